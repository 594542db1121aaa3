"""Tasks that need no hub: a class each, over files of a folder or the packaged sentences, and the rows of a suite."""
