"""`python -m lusifer.cli` does what `lusifer` does."""

from lusifer.cli import entry

entry()
