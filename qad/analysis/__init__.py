"""What is measured on a candidate's spectrum: lines, continuum, absorption, other redshifts, redrock's fit."""
