"""Fetch a release's files: planned, resumed, verified."""
