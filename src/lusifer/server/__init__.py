"""A model behind HTTP: OpenAI's embeddings, reranking, search and a page, from one worker thread a model."""
