"""The LUSIFER model: its parts, its configuration, and how it is built from two bases."""
