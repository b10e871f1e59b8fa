"""Spectra onto a common wavelength grid, normalised."""
