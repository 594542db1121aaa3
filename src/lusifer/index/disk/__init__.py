"""What lies on the disk: whether a commit is whole, and what is said of a file that is not."""
