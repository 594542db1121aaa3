"""An index on disk: documents in, the nearest ones in any language out."""
