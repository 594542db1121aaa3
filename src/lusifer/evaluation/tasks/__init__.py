"""Tasks that read local files or the packaged sentences and need no Hub: one class for each task, and suite rows."""
