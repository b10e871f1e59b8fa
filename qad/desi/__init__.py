"""What is known of DESI: paths, FITS files, coadds, redrock, masks."""
