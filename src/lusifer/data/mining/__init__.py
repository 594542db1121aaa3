"""Hard negatives and clusters, by any embedder."""
