"""Match candidates with catalogues by position."""
