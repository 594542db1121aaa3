"""How a model treats each language: what its cosines are worth there, and where its vectors lie on average."""
