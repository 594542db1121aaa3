"""Mine hard negatives and cluster queries with any embedder."""
