"""Means, intervals and paired tests from evaluation folders."""
