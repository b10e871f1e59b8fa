"""Score and rank spectra."""
