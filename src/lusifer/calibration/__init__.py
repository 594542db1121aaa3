"""Language statistics of a model: what its cosines mean in each language, and the mean of its vectors there."""
