"""A base as people have it: configuration, weights, LM head and tokenizer, from wherever its files lie."""
