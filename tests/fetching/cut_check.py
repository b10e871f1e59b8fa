"""Is a file the whole one without what nobody wants?  Judged from the bytes, apart from the package's own reader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

MAY_CHANGE = {"CHECKSUM", "DATASUM"}
MAY_COME = ("QAD", "HISTORY", "CHECKSUM", "DATASUM")


def check_cut(cut: Path, whole: Path, wanted: set[int] | None, resolution: bool = False) -> int:
    """Assert that `cut` holds the wanted rows of `whole`, bit for bit, and return how many.

    Parameters
    ----------
    cut, whole : Path
    wanted : set of int or None
        TARGETIDs; None: all rows.
    resolution : bool
        The resolution matrices must be there too.
    """
    # warnings are errors here: a checksum that does not hold is one
    with fits.open(cut, checksum=True) as ours, fits.open(whole, disable_image_compression=True) as theirs:
        kept = [hdu for hdu in theirs if resolution or not hdu.name.endswith("_RESOLUTION")]
        assert [hdu.name for hdu in ours] == [hdu.name for hdu in kept]
        targetid = np.array(theirs["FIBERMAP"].data["TARGETID"])
        rows = np.ones(len(targetid), bool) if wanted is None else np.isin(targetid, list(wanted))
        for mine, other in zip(ours, kept, strict=True):
            chosen = None
            if wanted is not None and other.name == "EXP_FIBERMAP":
                chosen = np.isin(other.data["TARGETID"], list(wanted))
            elif wanted is not None and _first_axis(other) == len(rows):
                chosen = rows
            assert _data(mine, cut) == _chosen(_data(other, whole), other, chosen), f"the data of {mine.name}"
            _check_cards(_cards(mine, cut), _cards(other, whole), other, chosen)
            if mine.data is not None and chosen is not None:
                assert len(mine.data) == chosen.sum()
        history = "\n".join(ours[0].header["HISTORY"])
        assert f"from {whole.name}" in history
        n_rows = f"{rows.sum()} of {len(rows)} rows" if wanted is not None else f"{len(rows)} rows"
        assert n_rows in history
        assert ours[0].header["QADMODE"] == ("hdus" if wanted is None else "rows")
        return int(rows.sum())


def _first_axis(hdu: fits.hdu.base._BaseHDU) -> int | None:
    """Return how many rows an HDU has; None if it is no table and has fewer than two axes."""
    if isinstance(hdu, fits.BinTableHDU):
        return int(hdu.header["NAXIS2"])
    n_axes = hdu.header["NAXIS"]
    return int(hdu.header[f"NAXIS{n_axes}"]) if n_axes > 1 else None


def _raw(path: Path, start: int, stop: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _data(hdu: fits.hdu.base._BaseHDU, path: Path) -> bytes:
    place = hdu.fileinfo()["datLoc"]
    return _raw(path, place, place + hdu.size)


def _chosen(data: bytes, hdu: fits.hdu.base._BaseHDU, rows: np.ndarray | None) -> bytes:
    if rows is None:
        return data
    return np.frombuffer(data, np.uint8).reshape(len(rows), -1)[rows].tobytes()


def _cards(hdu: fits.hdu.base._BaseHDU, path: Path) -> list[str]:
    info = hdu.fileinfo()
    text = _raw(path, info["hdrLoc"], info["datLoc"]).decode("ascii")
    cards = [text[start : start + 80] for start in range(0, len(text), 80)]
    cards = cards[: cards.index("END".ljust(80))]
    while cards and not cards[-1].strip():
        cards.pop()
    return cards


def _check_cards(ours: list[str], theirs: list[str], hdu: fits.hdu.base._BaseHDU, rows: np.ndarray | None) -> None:
    """Assert that only those cards are others that must be."""
    axis = "NAXIS2" if isinstance(hdu, fits.BinTableHDU) else f"NAXIS{hdu.header['NAXIS']}"
    for mine, other in zip(ours, theirs, strict=False):
        if mine == other:
            continue
        key = other[:8].strip()
        assert mine[:8].strip() == key
        if rows is not None and key == axis:
            assert int(mine[10:].partition("/")[0]) == rows.sum()
        else:
            assert key in MAY_CHANGE
    assert len(ours) >= len(theirs)
    assert all(card.startswith(MAY_COME) for card in ours[len(theirs) :])
