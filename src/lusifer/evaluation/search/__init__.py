"""Tasks of questions and documents that measure themselves: all documents are searched, and every place is kept."""
