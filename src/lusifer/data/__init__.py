"""Training data: the form of rows, their sources, and how the stages read them."""
