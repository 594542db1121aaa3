"""Evaluation folders in; means, intervals and paired tests out."""
