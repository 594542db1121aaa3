"""Use of a trained model: files of texts in, files of vectors out."""
