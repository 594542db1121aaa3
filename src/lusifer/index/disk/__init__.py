"""The files of an index on disk: complete commits, checksums, damaged files and filters."""
