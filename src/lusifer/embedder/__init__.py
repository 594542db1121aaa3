"""Text in, vectors out: a LUSIFER model as a sentence-transformers folder."""
