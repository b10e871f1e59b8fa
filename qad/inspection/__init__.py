"""Show candidates to a person."""
