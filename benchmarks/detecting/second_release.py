"""The second simulation's files: coadd and redrock in the layout of DR1, written by astropy, and the truth beside them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from detecting.second_quasars import ANOMALIES, draw_anomaly, draw_source, light_of
from detecting.second_sky import CAMERAS, FAULTS, MERGED, observe, wave_of

EBV_MEAN = 0.04
PER_PIXEL = 250
FIRST_PIXEL = 9100
FLUX_UNIT, IVAR_UNIT = "10**-17 erg/(s cm2 Angstrom)", "10**+34 (s2 cm4 Angstrom2) / erg2"


def write_release(
    directory: Path, quasars: int, anomaly_rate: float = 0.02, artefact_rate: float = 0.01, seed: int = 0
) -> Path:
    """Write a release below `directory` and return its truth; the same arguments give the same spectra.

    Pixels that are there already, of the same arguments, are kept.
    """
    truth = directory / "truth.parquet"
    stamp, wanted = directory / "recipe.txt", f"{quasars} {anomaly_rate} {artefact_rate} {seed} 1\n"
    if stamp.is_file() and stamp.read_text() != wanted:
        shutil.rmtree(directory)
    if truth.is_file():
        return truth
    done = directory / ".pixels"
    done.mkdir(parents=True, exist_ok=True)
    stamp.write_text(wanted)
    rows = []
    n_pixels = max(2, round(quasars / PER_PIXEL))
    names = _planted(quasars, anomaly_rate, artefact_rate, seed)
    for index, part in enumerate(np.array_split(np.arange(quasars), n_pixels)):
        note = done / f"{FIRST_PIXEL + index}.json"
        if not note.is_file():
            made = _write_pixel(directory, FIRST_PIXEL + index, [(int(i), *names[int(i)]) for i in part], seed)
            note.write_text(json.dumps(made))
        rows += json.loads(note.read_text())
    _write_truth(truth, rows)
    return truth


def _planted(quasars: int, anomaly_rate: float, artefact_rate: float, seed: int) -> list[tuple[str | None, str | None]]:
    """Return anomaly and artefact of every object: every class equally often, at random places."""
    rng = np.random.default_rng([seed, 11])
    n_odd, n_faulty = round(anomaly_rate * quasars), round(artefact_rate * quasars)
    order = rng.permutation(quasars)
    names: list[tuple[str | None, str | None]] = [(None, None)] * quasars
    for count, place in enumerate(order[: n_odd + n_faulty]):
        kinds = list(ANOMALIES) if count < n_odd else list(FAULTS)
        name = kinds[count % len(kinds)]
        names[place] = (name, None) if count < n_odd else (None, name)
    return names


def _write_pixel(
    directory: Path, healpix: int, objects: list[tuple[int, str | None, str | None]], seed: int
) -> list[dict]:
    frames, rows = [], []
    for number, anomaly, artefact in objects:
        rng = np.random.default_rng([seed, 7, number])
        strength = float(rng.random())
        source = draw_anomaly(rng, anomaly, strength) if anomaly else draw_source(rng)
        light = light_of(source, MERGED, rng)
        ebv = float(EBV_MEAN * np.exp(0.4 * rng.normal()))
        light = light * 10 ** (-0.4 * 3.1 * 0.86 * ebv * (5500.0 / MERGED) ** 1.3)
        brightness = 10 ** float(np.clip(rng.normal(0.0, 0.38), -0.8, 1.5)) * 0.26
        light = light * brightness / np.median(light)
        frame = observe(light, rng, float(rng.choice((1.0, 1.0, 1.0, 2.0))) * float(np.exp(0.1 * rng.normal())))
        snr = frame.snr()
        if artefact:
            FAULTS[artefact](frame, strength, rng)
        frames.append(frame)
        rows.append(
            {
                "targetid": 39_700_000_000_000_000 + seed % 1000 * 10_000_000 + number,
                "survey": "main", "program": "dark", "healpix": healpix, "kind": "qso", "z_true": source.z,
                "z": source.z_read if source.z_read is not None else source.z + (1 + source.z) * 0.0006 * rng.normal(),
                "anomaly": anomaly, "artefact": artefact, "strength": strength if anomaly or artefact else None,
                "snr_true": snr, "ebv": ebv, "ra": 150.0 + 0.01 * (number % 100), "dec": 2.0 + 0.01 * (number // 100),
                "fiber": int(rng.integers(5000)),
            }
        )  # fmt: skip
    folder = directory / "spectro" / "redux" / "iron" / "healpix" / "main" / "dark" / str(healpix // 100) / str(healpix)
    folder.mkdir(parents=True, exist_ok=True)
    _write_coadd(folder / f"coadd-main-dark-{healpix}.fits", healpix, rows, frames)
    _write_redrock(folder / f"redrock-main-dark-{healpix}.fits", healpix, rows)
    return rows


def _primary(healpix: int):
    from astropy.io import fits

    primary = fits.PrimaryHDU()
    cards = {"SPGRP": "healpix", "SPGRPVAL": healpix, "HPXPIXEL": healpix, "HPXNSIDE": 64, "HPXNEST": "True"}
    cards |= {"SURVEY": "main", "PROGRAM": "dark", "DEPNAM00": "SPECPROD", "DEPVER00": "iron"}
    primary.header.update(cards)
    return primary


def _table(name: str, columns: dict[str, tuple[str, list]]):
    from astropy.io import fits

    parts = [fits.Column(name=key, format=form, array=np.array(values)) for key, (form, values) in columns.items()]
    return fits.BinTableHDU.from_columns(parts, name=name)


def _fibermap(rows: list[dict]) -> dict[str, tuple[str, list]]:
    n = len(rows)
    return {
        "TARGETID": ("K", [row["targetid"] for row in rows]),
        "COADD_FIBERSTATUS": ("J", [0] * n),
        "TARGET_RA": ("D", [row["ra"] for row in rows]),
        "TARGET_DEC": ("D", [row["dec"] for row in rows]),
        "OBJTYPE": ("3A", ["TGT"] * n),
        "MORPHTYPE": ("4A", ["PSF"] * n),
        "EBV": ("E", [row["ebv"] for row in rows]),
        "DESI_TARGET": ("K", [4] * n),
        "COADD_NUMEXP": ("I", [1] * n),
        "COADD_EXPTIME": ("E", [1000.0] * n),
    }


def _write_coadd(path: Path, healpix: int, rows: list[dict], frames: list) -> None:
    from astropy.io import fits

    n = len(rows)
    hdus = [_primary(healpix), _table("FIBERMAP", _fibermap(rows))]
    exposures = {
        "TARGETID": ("K", [row["targetid"] for row in rows]),
        "FIBER": ("J", [row["fiber"] for row in rows]),
        "PETAL_LOC": ("I", [row["fiber"] // 500 for row in rows]),
        "TILEID": ("J", [1000 + healpix] * n),
        "NIGHT": ("J", [20211105] * n),
    }
    hdus.append(_table("EXP_FIBERMAP", exposures))
    for camera in CAMERAS:
        wavelength = fits.ImageHDU(wave_of(camera), name=f"{camera}_WAVELENGTH")
        wavelength.header["BUNIT"] = "Angstrom"
        hdus.append(wavelength)
        for what, dtype, unit in (
            ("FLUX", np.float32, FLUX_UNIT),
            ("IVAR", np.float32, IVAR_UNIT),
            ("MASK", np.int32, ""),
        ):
            values = np.stack([getattr(frame, what.lower())[camera] for frame in frames]).astype(dtype)
            image = fits.ImageHDU(values, name=f"{camera}_{what}")
            if unit:
                image.header["BUNIT"] = unit
            hdus.append(image)
    hdus.append(_table("SCORES", {"TARGETID": exposures["TARGETID"], "TSNR2_QSO": ("E", [30.0] * n)}))
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)


def _write_redrock(path: Path, healpix: int, rows: list[dict]) -> None:
    from astropy.io import fits

    n = len(rows)
    redshifts = {
        "TARGETID": ("K", [row["targetid"] for row in rows]),
        "CHI2": ("D", [8000.0] * n),
        "Z": ("D", [row["z"] for row in rows]),
        "ZERR": ("D", [3e-4] * n),
        "ZWARN": ("K", [0] * n),
        "NPIXELS": ("K", [7900] * n),
        "SPECTYPE": ("6A", ["QSO"] * n),
        "SUBTYPE": ("20A", ["HIZ" if row["z"] > 1.6 else "LOZ" for row in rows]),
        "DELTACHI2": ("D", [500.0] * n),
    }
    hdus = [_primary(healpix), _table("REDSHIFTS", redshifts), _table("FIBERMAP", _fibermap(rows))]
    fits.HDUList(hdus).writeto(path, overwrite=True, checksum=True)


def _write_truth(path: Path, rows: list[dict]) -> None:
    from qad.schema import TRUTH
    from qad.storage.parquet import make_table, write_table
    from qad.storage.provenance import Provenance

    rows = sorted(rows, key=lambda row: row["targetid"])
    columns = {column.name: [row[column.name] for row in rows] for column in TRUTH.columns}
    write_table(path, make_table(TRUTH, columns), TRUTH, Provenance("simulate", {"generator": "second"}))
