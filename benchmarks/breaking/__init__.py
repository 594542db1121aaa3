"""Training runs that are broken on purpose, for `faults.py`."""
