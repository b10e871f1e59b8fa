"""Which rows of a healpix are the spectra that are wanted, and why each other row is not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from qad.desi.columns import first_rows
from qad.desi.redrock import Redshifts
from qad.settings import Extract

NOT_IN_COADD = "not_in_coadd"
"""Why a row is dropped that redrock and the settings want, and the coadd does not hold."""


@dataclass(frozen=True)
class Selection:
    """The wanted rows, by TARGETID, and the count of rows dropped by reason.

    Attributes
    ----------
    redrock_rows, coadd_rows : ndarray of int, shape (n_wanted,)
        Rows of the two files that belong together.
    n_rows : int
        Rows that were judged: those of the redrock file, and those of the coadd that it does not know.
    dropped : dict of str to int
        ``n_rows`` less their sum is n_wanted.
    duplicates : list of int
        TARGETIDs that stand more than once in one of the files; the first row counts.
    """

    redrock_rows: np.ndarray
    coadd_rows: np.ndarray
    n_rows: int
    dropped: dict[str, int]
    duplicates: list[int]


def select_rows(
    redshifts: Redshifts,
    targetid: np.ndarray,
    objtype: Sequence[str] | None,
    fiberstatus: np.ndarray,
    settings: Extract,
) -> Selection:
    """Match redshifts with coadd rows by TARGETID and keep the wanted ones.

    Parameters
    ----------
    redshifts : Redshifts
    targetid : ndarray of int64, shape (n_coadd,)
        Of the coadd's rows.
    objtype : sequence of str or None
        Of the coadd's rows; None where the file does not tell.
    fiberstatus : ndarray of int, shape (n_coadd,)
    settings : Extract

    Notes
    -----
    A row is dropped for the first reason that applies: ``duplicate``, ``spectype``, ``zwarn``, ``bad_z`` (not finite, or
    not above -1), ``z_range``, ``not_in_coadd``, ``objtype``, ``fiberstatus``; rows of the coadd alone are
    ``not_in_redrock``.  What redrock alone can tell comes first: a coadd that was cut to its quasars counts as the whole
    file does, and ``not_in_coadd`` is a row that is wanted as far as redrock knows it.
    """
    rows = first_rows(targetid, redshifts.targetid)
    z = redshifts.z
    is_first = np.zeros(len(z), bool)
    is_first[np.unique(redshifts.targetid, return_index=True)[1]] = True
    with np.errstate(invalid="ignore"):
        reasons = {
            "duplicate": ~is_first,
            "spectype": ~_is_in(redshifts.spectype, settings.spectype),
            "zwarn": (redshifts.zwarn & ~np.int64(settings.zwarn)) != 0,
            "bad_z": ~(np.isfinite(z) & (z > -1)),
            "z_range": ~((z >= settings.z_min) & (z <= settings.z_max)),
            NOT_IN_COADD: rows < 0,
            "objtype": ~_taken(objtype, rows, settings.objtype),
            "fiberstatus": _has_other_bits(fiberstatus, rows, settings.fiberstatus),
        }
    kept = np.ones(len(z), bool)
    dropped = {}
    for name, is_bad in reasons.items():
        dropped[name] = int((kept & is_bad).sum())
        kept &= ~is_bad
    unknown = int((first_rows(redshifts.targetid, targetid) < 0).sum())
    wanted = np.flatnonzero(kept)
    return Selection(
        wanted,
        rows[wanted],
        len(z) + unknown,
        {name: n for name, n in {**dropped, "not_in_redrock": unknown}.items() if n},
        sorted({*_repeated(redshifts.targetid), *_repeated(targetid)}),
    )


def _is_in(values: Sequence[str], wanted: Collection[str]) -> np.ndarray:
    names = {word.upper() for word in wanted}
    return np.array([value in names for value in values], bool)


def _taken(objtype: Sequence[str] | None, rows: np.ndarray, wanted: Collection[str]) -> np.ndarray:
    if objtype is None or not len(objtype):
        return np.ones(len(rows), bool)
    return _is_in(objtype, wanted)[np.maximum(rows, 0)]


def _has_other_bits(status: np.ndarray, rows: np.ndarray, allowed: int) -> np.ndarray:
    if not len(status):
        return np.zeros(len(rows), bool)
    return (status[np.maximum(rows, 0)].astype(np.int64) & ~np.int64(allowed)) != 0


def _repeated(targetid: np.ndarray) -> list[int]:
    values, counts = np.unique(targetid, return_counts=True)
    return [int(value) for value in values[counts > 1]]
