"""Tile-compressed images, as some older DESI files keep their masks."""

from __future__ import annotations

import io
from math import prod

import numpy as np

from qad.desi.header import BLOCK, HDU, ITEM_BYTES
from qad.errors import InputError

_CODECS = ("RICE_1", "RICE_ONE", "PLIO_1", "NOCOMPRESS")
"""Codecs whose output is bounded by the tile; a gzip tile can expand a thousandfold."""


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
    image = _decompress(hdu, raw)
    if image.shape != shape:
        raise header.error(f"decompresses to {image.shape}, the header says {shape}")
    return np.ascontiguousarray(image, image.dtype.newbyteorder("="))


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
