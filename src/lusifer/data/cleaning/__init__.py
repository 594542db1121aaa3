"""Rows in, fewer rows out: repeats, near repeats, and texts that evaluation uses."""
