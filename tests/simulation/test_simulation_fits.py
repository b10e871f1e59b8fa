"""The FITS writer: what astropy reads back is what was written, and the sums hold."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qad.desi.cards import encode_checksum
from qad.desi.datamodel import TableColumn
from qad.simulation.fits import write_image, write_primary, write_table


def read_back(content: bytes) -> fits.HDUList:
    """Open a file in memory; a wrong sum is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return fits.open(io.BytesIO(content), checksum=True, memmap=False)


@settings(max_examples=40, deadline=None)
@given(
    image=hnp.arrays(
        st.sampled_from([np.float32, np.int32, np.float64]), st.tuples(st.integers(1, 7), st.integers(1, 900))
    ),
    cut=st.integers(0, 7),
)
def test_an_image_reads_back_however_it_is_cut_into_parts(image: np.ndarray, cut: int) -> None:
    file = io.BytesIO()
    write_primary(file, {"SURVEY": "main"})
    parts = [part for part in (image[:cut], image[cut:]) if len(part)]
    write_image(file, "B_FLUX", image.shape, image.dtype.name, parts, "Angstrom")
    assert len(file.getvalue()) % 2880 == 0
    with read_back(file.getvalue()) as hdus:
        hdus.verify("exception")
        assert np.array_equal(hdus["B_FLUX"].data, image, equal_nan=image.dtype.kind == "f")
        assert hdus[0].header["SURVEY"] == "main"


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False),
            st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=6),
            st.lists(st.floats(-1e30, 1e30), min_size=3, max_size=3),
        ),
        max_size=20,
    )
)
def test_a_table_reads_back(rows: list[tuple]) -> None:
    columns = [
        TableColumn("TARGETID", "K"),
        TableColumn("Z", "D", "mag"),
        TableColumn("SPECTYPE", "6A"),
        TableColumn("COEFF", "3D"),
    ]
    values = {c.name: [row[i] for row in rows] for i, c in enumerate(columns)}
    if not rows:
        values["COEFF"] = np.zeros((0, 3))
    file = io.BytesIO()
    write_primary(file, {})
    write_table(file, "REDSHIFTS", columns, values, tnull={"K": 999999})
    with read_back(file.getvalue()) as hdus:
        table = hdus["REDSHIFTS"]
        assert [column.format for column in table.columns] == ["K", "D", "6A", "3D"]
        assert table.columns["Z"].unit == "mag"
        assert table.columns["TARGETID"].null == 999999
        assert table.data["TARGETID"].tolist() == [row[0] for row in rows]
        assert table.data["Z"].tolist() == [row[1] for row in rows]
        assert [str(text) for text in table.data["SPECTYPE"]] == [row[2] for row in rows]
        assert np.array_equal(table.data["COEFF"], np.array(values["COEFF"]).reshape(-1, 3))


@given(value=st.integers(0, 2**32 - 1))
def test_checksums_are_encoded_as_astropy_does(value: int) -> None:
    from astropy.io.fits.hdu.base import _ValidHDU

    assert encode_checksum(value) == _ValidHDU()._char_encode(value)


def test_a_card_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 80"):
        write_primary(io.BytesIO(), {"LONG": "x" * 80})


def test_writing_twice_gives_the_same_bytes() -> None:
    def content() -> bytes:
        file = io.BytesIO()
        write_primary(file, {"SURVEY": "it's"})
        write_image(file, "A", (2, 3), "float32", [np.arange(6.0).reshape(2, 3)])
        return file.getvalue()

    assert content() == content()
    with read_back(content()) as hdus:
        assert hdus[0].header["SURVEY"] == "it's"
