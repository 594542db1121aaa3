"""The authors' checkpoint: its files, and the model that they hold."""
