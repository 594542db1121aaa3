"""Suites of tasks, from the Hugging Face Hub and from local files."""
