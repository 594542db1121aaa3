"""Read a base from a folder, a file, a package or the Hub: configuration, weights, LM head and tokenizer."""
