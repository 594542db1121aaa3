"""Files, hub and rows: what is read from disk or network, and how it is written. No torch."""
