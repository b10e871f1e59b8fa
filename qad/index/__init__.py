"""The optional PostgreSQL index."""
