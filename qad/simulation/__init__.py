"""Simulated releases in the true DR1 format."""
