"""Serve models over HTTP: OpenAI's embeddings, reranking, search and a page, with one worker thread per model."""
