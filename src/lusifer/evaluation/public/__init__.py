"""Published scores of public models, and the rank of a model among them."""
