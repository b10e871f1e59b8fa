"""The optional PostgreSQL index."""

INDEXED_STAGES = ("extract", "score", "crossmatch")
"""Stages whose tables the index holds: it follows them when ``index.dsn`` is set."""
