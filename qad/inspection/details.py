"""Everything that the work directory knows of one target, in every survey and program that observed it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qad.errors import InputError
from qad.inspection.bits import FIBERSTATUS_BITS, SCORE_FLAGS, ZWARN_BITS, bit_names
from qad.inspection.columns import BANDS, ZERO_POINT
from qad.inspection.formats import json_value, rows_as_json
from qad.inspection.spectrum import read_rows
from qad.inspection.tables import Tables
from qad.lines import EMISSION_LINES
from qad.schema import N_WAVE, SCORES, SPECTRA, SPECTRUM_KEY, WAVE_START, WAVE_STEP
from qad.storage.labels import Label, read_labels

if TYPE_CHECKING:
    import polars as pl

MAGNITUDE_PER_RELATIVE_ERROR = 1.0857362
"""2.5 / ln 10: error of a magnitude per relative error of the flux."""
_REDROCK = ("z", "zerr", "zwarn", "spectype", "subtype", "chi2", "deltachi2", "npixels", "ncoeff")
_OBSERVATION = (
    "objtype",
    "coadd_fiberstatus",
    "coadd_numexp",
    "coadd_exptime",
    "fiber",
    "petal_loc",
    "tileid",
    "night",
    "tsnr2_qso",
    "tsnr2_lya",
    "tsnr2_lrg",
    "psf_to_fiber_specflux",
    "snr",
    "snr_b",
    "snr_r",
    "snr_z",
    "n_good",
)
_IMAGING = ("morphtype", "photsys", "maskbits", "ebv", "pmra", "pmdec", "parallax", "ref_id", "desi_target")


def describe(tables: Tables, targetids: Sequence[int]) -> list[dict[str, Any]]:
    """Return one document a target, JSON types only.

    Keys: ``targetid``, ``labels``, and ``spectra``: one entry for each survey and program with ``position``, ``redrock``,
    ``observation``, ``imaging``, ``photometry``, ``scores``, ``views``, ``flags``, ``matches`` and ``lines``.

    Raises
    ------
    InputError
        If neither scores nor spectra know a target.
    """
    scores = _score_rows(tables, targetids)
    spectra = _spectra_rows(tables, targetids, scores)
    matches = tables.all_matches()
    labels = read_labels(tables.workspace.labels)
    documents = []
    for targetid in targetids:
        keys = sorted({key for key in (*spectra, *scores) if key[0] == targetid}, key=lambda key: _rank(scores, key))
        if not keys:
            raise InputError(tables.workspace.root, f"no spectrum of TARGETID {targetid} in scores or spectra")
        entries = [_entry(key, spectra.get(key, {}), scores.get(key, {}), _matches_of(matches, key)) for key in keys]
        said = [_label(label) for label in labels if label.targetid == targetid]
        documents.append({"targetid": str(targetid), "labels": said, "spectra": entries})
    return documents


def _entry(
    key: tuple[Any, ...], spectrum: Mapping[str, Any], score: Mapping[str, Any], matches: list[dict[str, Any]]
) -> dict[str, Any]:
    known = {**score, **spectrum}
    z = known["z"]
    flags = int(score.get("flags") or 0)
    return {
        "survey": key[1],
        "program": key[2],
        "healpix": key[3],
        "position": _clean({name: known[name] for name in ("ra", "dec")}),
        "redrock": _clean(
            {
                **{name: known[name] for name in _REDROCK if name in known},
                "zwarn_bits": bit_names(max(0, spectrum.get("zwarn") or 0), ZWARN_BITS),
            }
        ),
        "observation": _clean(
            {
                **{name: known[name] for name in _OBSERVATION if name in known},
                "fiberstatus_bits": bit_names(max(0, spectrum.get("coadd_fiberstatus") or 0), FIBERSTATUS_BITS),
            }
        ),
        "imaging": _clean({name: spectrum[name] for name in _IMAGING if name in spectrum}),
        "photometry": _photometry(spectrum),
        "scores": _clean({name: value for name, value in score.items() if _is_score(name)}),
        "views": _views(score),
        "flags": {"value": flags, "names": bit_names(flags, SCORE_FLAGS)},
        "matches": matches,
        "lines": _lines(z),
    }


def _spectra_rows(
    tables: Tables, targetids: Sequence[int], scores: Collection[tuple[Any, ...]]
) -> dict[tuple[Any, ...], dict[str, Any]]:
    columns = [column.name for column in SPECTRA.columns if not column.is_vector]
    found = {}
    # a target has one place on the sky, so that all its spectra lie in files of one healpix; without a score it is searched
    is_scored = {key[0] for key in scores}.issuperset(targetids)
    patterns = (
        [f"*-{healpix}.parquet" for healpix in sorted({key[3] for key in scores})] if is_scored else ["*.parquet"]
    )
    for path in sorted(path for pattern in patterns for path in tables.workspace.spectra.glob(pattern)):
        for row in read_rows(path, SPECTRA, targetids, columns).to_pylist():
            found[tuple(row[name] for name in SPECTRUM_KEY)] = row
    return found


def _score_rows(tables: Tables, targetids: Sequence[int]) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = tables.of_targets(targetids, tables.scores_columns)
    return {tuple(row[name] for name in SPECTRUM_KEY): row for row in rows.iter_rows(named=True)}


def _rank(scores: Mapping[tuple[Any, ...], Mapping[str, Any]], key: tuple[Any, ...]) -> tuple[Any, ...]:
    return (scores[key]["rank"], *key) if key in scores else (2**62, *key)


def _photometry(spectrum: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return AB magnitudes with their errors, not corrected for dust; a flux that is not positive has none."""
    import math

    found = []
    for band in BANDS:
        flux, ivar = spectrum.get(f"flux_{band}"), spectrum.get(f"flux_ivar_{band}")
        if flux is None or not flux > 0:
            continue
        error = MAGNITUDE_PER_RELATIVE_ERROR / (flux * math.sqrt(ivar)) if ivar is not None and ivar > 0 else None
        magnitude = ZERO_POINT - 2.5 * math.log10(flux)
        found.append({"band": band, "mag": round(magnitude, 4), "error": None if error is None else round(error, 4)})
    return found


def _views(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    names = [name.removeprefix("view_") for name in score if name.startswith("view_")]
    return [_clean({"name": name, "value": score[f"view_{name}"], "p_value": score.get(f"p_{name}")}) for name in names]


def _is_score(name: str) -> bool:
    is_view = name.startswith("view_") or (name.startswith("p_") and name != "p_value")
    return not is_view and name in {c.name for c in SCORES.columns} - {
        "targetid",
        "survey",
        "program",
        "healpix",
        "ra",
        "dec",
    }


def _matches_of(matches: pl.DataFrame, key: tuple[Any, ...]) -> list[dict[str, Any]]:
    import polars as pl

    same = pl.all_horizontal(pl.col(name) == value for name, value in zip(SPECTRUM_KEY, key, strict=True))
    rows = rows_as_json(matches.filter(same).drop(*SPECTRUM_KEY, "rank").sort("sep_arcsec", nulls_last=True))
    # another catalogue's columns come as null
    return [
        {name: value for name, value in row.items() if value is not None or not name.startswith("cat_")} for row in rows
    ]


def _lines(z: float) -> list[dict[str, Any]]:
    """Return the emission lines that fall on the detectors."""
    last = WAVE_START + WAVE_STEP * (N_WAVE - 1)
    inside = [line for line in EMISSION_LINES if WAVE_START <= line.wave * (1 + z) <= last]
    return [{"name": line.name, "wave_rest": line.wave, "wave_obs": round(line.wave * (1 + z), 2)} for line in inside]


def _label(label: Label) -> dict[str, str]:
    return {"label": label.label, "comment": label.comment, "who": label.who, "when": label.when, "model": label.model}


def _clean(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_value(name, value) for name, value in values.items()}
