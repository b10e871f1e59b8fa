"""The pairs that are damaged: simulated ones, and real spectra where they are at hand."""

from __future__ import annotations

import io
from pathlib import Path

from mutating.expect import Pair
from qad.desi import layout


def pairs_below(release: Path, name: str) -> list[Pair]:
    """Return the pairs of a release tree, sorted."""
    healpix = layout.locate_healpix(release)
    found = []
    for pixel in layout.find_pixels(healpix):
        folder = layout.pixel_folder(healpix, pixel)
        coadd, redrock = folder / layout.coadd_name(pixel), folder / layout.redrock_name(pixel)
        found.append(Pair(pixel, coadd.read_bytes(), redrock.read_bytes(), f"{name} {pixel}"))
    return found


def simulated_pairs(folder: Path, quasars: int = 4, resolution: bool = True) -> list[Pair]:
    """Return the pairs of a simulated release, made in a folder."""
    from qad.simulation.release import simulate

    simulate(folder, quasars=quasars, healpix=1, seed=3, contaminants=0.5, resolution=resolution, jobs=1)
    return pairs_below(folder, "simulated")


def tiled_pair(pair: Pair) -> Pair:
    """Return a pair whose masks are tile-compressed, as in older DESI files."""
    from astropy.io import fits

    with fits.open(io.BytesIO(pair.coadd)) as hdus:
        for name in [hdu.name for hdu in hdus if hdu.name.endswith("_MASK")]:
            hdus[name] = fits.CompImageHDU(hdus[name].data, name=name, compression_type="RICE_1")
        raw = io.BytesIO()
        hdus.writeto(raw, checksum=True)
    return Pair(pair.pixel, raw.getvalue(), pair.redrock, f"{pair.name}, masks in tiles")
