"""Redrock's quasar templates, and the spectrum that redrock fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qad.errors import InputError

Array = NDArray[np.float64]

LYMAN = ((1215.67, 0.0023), (1025.72, 0.0023 / 5.2615), (972.537, 0.0023 / 14.356), (949.7431, 0.0023 / 29.85984),
         (937.8035, 0.0023 / 53.36202))  # fmt: skip
"""Line, Å, and optical depth at z = 0 of the mean forest: Calura et al. (2012, MNRAS 422, 3019), as redrock applies it to
the v1.0 templates of DR1; the depth grows as (1 + z) to the power 3.64."""
_GROWTH = 3.64


@dataclass(frozen=True)
class Template:
    """A template: its name (``QSO:::HIZ``), rest wavelengths (Å, shape (n_wave,)) and vectors, shape (n_vectors, n_wave)."""

    name: str
    version: str
    wave: Array
    vectors: Array

    @property
    def subtype(self) -> str:
        """HIZ or LOZ, as the column SUBTYPE has it."""
        return self.name.rpartition(":")[2]

    def model(self, z: float, coeff: Array, wave: Array) -> Array:
        """Return the fitted spectrum at observed wavelengths (Å), in the unit of the fluxes; nan outside of the template."""
        rest = wave / (1 + z)
        used = coeff[: len(self.vectors)]
        flux = np.interp(rest, self.wave, used @ self.vectors, left=np.nan, right=np.nan)
        return flux * forest(z, wave)


def forest(z: float, wave: Array) -> Array:
    """Return the mean transmission of the Lyman series in front of a quasar at redshift `z`."""
    passed = np.ones_like(wave)
    for line, depth in LYMAN:
        inside = wave < line * (1 + z)
        passed[inside] *= np.exp(-depth * (wave[inside] / line) ** _GROWTH)
    return passed


def template_files(folder: Path) -> list[Path]:
    """Return the quasar templates of a folder (``rrtemplate-QSO-*.fits``), the lowest version of each kind: DR1's.

    Raises
    ------
    InputError
        If there are none.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("rrtemplate-QSO-*.fits")):
        kind = path.stem.removeprefix("rrtemplate-").rpartition("-v")[0]
        found.setdefault(kind, path)
    if not found:
        raise InputError(folder, "holds no rrtemplate-QSO-*.fits of redrock-templates")
    return list(found.values())


def read_template(path: Path) -> Template:
    """Read a redrock template file.

    Raises
    ------
    InputError
        If it is none.
    """
    from astropy.io import fits

    try:
        with fits.open(path, memmap=False) as file:
            header, data = file["BASIS_VECTORS"].header, file["BASIS_VECTORS"].data
            wave = header["CRVAL1"] + header["CDELT1"] * np.arange(header["NAXIS1"])
            is_log = bool(header.get("LOGLAM", header["CRVAL1"] < 10))
            name = f"{str(header['RRTYPE']).strip()}:::{str(header.get('RRSUBTYP', '')).strip()}"
            version = str(header.get("VERSION", "")).strip()
            vectors = np.atleast_2d(np.asarray(data, np.float64))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(path, f"not a redrock template: {str(error).splitlines()[0]}") from None
    return Template(name, version, 10.0**wave if is_log else wave, vectors)
