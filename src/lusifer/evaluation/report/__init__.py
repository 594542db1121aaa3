"""Evaluation folders as one page, as Markdown and as a section of a model card, by the files in `templates/`."""
