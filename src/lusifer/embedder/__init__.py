"""A LUSIFER model as a sentence-transformers folder: save, load, check and identify it."""
