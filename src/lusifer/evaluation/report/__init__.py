"""Evaluation folders as one page, as Markdown and as a section of a model card."""
