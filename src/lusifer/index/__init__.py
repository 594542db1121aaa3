"""An index on disk: store documents, and find the nearest ones for a question in any language."""
