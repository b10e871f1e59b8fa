"""Tile-compressed images, as some older DESI files keep their masks."""

from __future__ import annotations

import io
import re
from math import prod

import numpy as np

from qad.desi.header import BLOCK, HDU, ITEM_BYTES, Header
from qad.errors import InputError

_CODECS = ("RICE_1", "RICE_ONE", "NOCOMPRESS")
"""Codecs that keep within a damaged tile: gzip can expand it a thousandfold, astropy's PLIO_1 reads beyond its end."""
_PARAMETERS = {"BLOCKSIZE": (16, 32), "BYTEPIX": (1, 2, 4, 8)}
"""What astropy's C code takes unchecked: with a BYTEPIX of a billion it crashes the process."""
_FORM = re.compile(r"1?[PQ][BIJ](\([0-9]+\))?\Z")


def read_tiled(hdu: HDU, raw: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Decompress an image of whole numbers.

    Parameters
    ----------
    hdu : HDU
        Of kind ``compressed``.
    raw : bytes
        Its header and data.
    shape : tuple of int
        What its header says of the image.

    Raises
    ------
    InputError
        If the codec is not one of those that DESI used for masks, or the tiles are damaged.
    """
    header = hdu.header
    codec, bitpix = header.text("ZCMPTYPE").strip(), header.integer("ZBITPIX")
    if codec not in _CODECS or bitpix < 0 or bitpix not in ITEM_BYTES:
        raise header.error(f"compressed with {codec[:20]!r} (ZBITPIX {bitpix}): only whole numbers in RICE_1 are read")
    tiles = [header.integer(f"ZTILE{i}", shape[-1] if i == 1 else 1) for i in range(1, len(shape) + 1)]
    if min(tiles, default=0) < 1 or prod(tiles) > prod(shape):
        raise header.error(f"tiles of {tiles} in an image of {list(reversed(shape))}")
    _check_columns(header)
    _check_parameters(header)
    image = _decompress(hdu, raw)
    if image.shape != shape:
        raise header.error(f"decompresses to {image.shape}, the header says {shape}")
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


def _check_columns(header: Header) -> None:
    """A tile that is not in COMPRESSED_DATA would be looked for in a column of gzip."""
    column, form = header.text("TTYPE1", "").strip(), header.text("TFORM1").strip()
    if header.integer("TFIELDS") != 1 or column != "COMPRESSED_DATA" or not _FORM.match(form):
        raise header.error(
            f"tiles in {header.integer('TFIELDS')} columns, the first {column[:20]!r} of form {form[:20]!r}"
        )


def _check_parameters(header: Header) -> None:
    for i in range(1, 1000):
        if f"ZNAME{i}" not in header:
            return
        name = header.text(f"ZNAME{i}").strip().upper()
        if name in _PARAMETERS and header.integer(f"ZVAL{i}") not in _PARAMETERS[name]:
            raise header.error(f"tiles with {name} {header.integer(f'ZVAL{i}')}")


def _decompress(hdu: HDU, raw: bytes) -> np.ndarray:
    import warnings

    from astropy.io import fits

    primary = b"".join(
        card.ljust(80).encode()
        for card in (
            "SIMPLE  =                    T",
            "BITPIX  =                    8",
            "NAXIS   =                    0",
            "EXTEND  =                    T",
            "END",
        )
    ).ljust(BLOCK)
    try:
        with warnings.catch_warnings(), fits.open(io.BytesIO(primary + raw), memmap=False) as opened:
            warnings.simplefilter("ignore")
            image = np.asarray(opened[1].data)
    except Exception as error:  # noqa: BLE001  the decompressor raises whatever damaged tiles provoke
        raise InputError(hdu.header.path, f"tiles cannot be decompressed: {error}"[:200], where=hdu.name) from None
    return image
