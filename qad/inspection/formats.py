"""Rows on their way to a program: CSV, JSON, Parquet and FITS, TARGETIDs exact in each."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qad.inspection.text import ascii_text
from qad.schema import MATCHES, SCORES, SPECTRA
from qad.storage.atomic import write_bytes
from qad.terminal.console import printable

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

Format = Literal["csv", "json", "parquet", "fits"]
FORMATS: tuple[Format, ...] = ("csv", "json", "parquet", "fits")
NO_INTEGER = {"Int16": -32768, "Int32": -2147483648, "Int64": -9223372036854775808}
"""What stands for null in an integer column of FITS (TNULL)."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_UNITS = {column.name: column.unit for table in (SPECTRA, MATCHES, SCORES) for column in table.columns}


def encode(frame: pl.DataFrame, form: Format, metadata: Mapping[str, Any]) -> bytes:
    """Return the rows in a format; `metadata` (``qad.*`` entries) goes with them where the format has a place for it."""
    if form == "csv":
        return _csv(frame)
    if form == "json":
        return json_bytes(rows_as_json(frame))
    return _parquet(frame, metadata) if form == "parquet" else _fits(frame, metadata)


def write(path: Path, frame: pl.DataFrame, form: Format, metadata: Mapping[str, Any]) -> None:
    """Write the rows to a file, whole."""
    write_bytes(path, encode(frame, form, metadata))


def rows_as_json(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return the rows as JSON types: a TARGETID is a string (it does not fit a double), NaN and infinity are null."""
    return [{name: json_value(name, value) for name, value in row.items()} for row in frame.iter_rows(named=True)]


def json_value(name: str, value: Any) -> Any:
    """Return one value as a JSON type."""
    if name == "targetid" and value is not None:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [json_value("", item) for item in value]
    return value


def json_bytes(document: Any) -> bytes:
    """Return a JSON document as UTF-8 text; characters that could steer a terminal are escaped by JSON."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return ("".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in text) + "\n").encode()


def _json_escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def _csv(frame: pl.DataFrame) -> bytes:
    import polars as pl

    frame = _flat(frame)
    text = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    safe = frame.with_columns(pl.col(name).map_elements(_csv_cell, return_dtype=pl.String) for name in text)
    return safe.write_csv(None).encode()


def _csv_cell(value: str) -> str:
    """Return a cell that no spreadsheet takes for a formula, and no terminal for a command."""
    return printable(f"'{value}" if value.startswith(_FORMULA) else value)


def _parquet(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame.to_arrow()
    described = [
        field.with_metadata({"unit": _UNITS.get(field.name, "")}) if _UNITS.get(field.name) else field
        for field in table.schema
    ]
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    # polars' large strings are read back as plain ones by every reader
    table = table.cast(pa.schema([_plain_text(field) for field in described], metadata=entries))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _plain_text(field: Any) -> Any:
    import pyarrow as pa

    is_text = pa.types.is_large_string(field.type) or pa.types.is_string_view(field.type)
    return field.with_type(pa.string()) if is_text else field


def _fits(frame: pl.DataFrame, metadata: Mapping[str, Any]) -> bytes:
    from astropy.io import fits

    frame = _flat(frame)
    columns = [_fits_column(frame[name]) for name in frame.columns]
    table = fits.BinTableHDU.from_columns(columns, name="CANDIDATES")
    for index, name in enumerate(frame.columns, 1):
        if _UNITS.get(name):
            table.header[f"TUNIT{index}"] = _UNITS[name]
    table.header["QADVER"] = (str(metadata.get("qad.version", "")), "version of qad")
    table.header["QADTABLE"] = ("inspect/1", "rows of qad inspect")
    table.add_checksum(when="")  # astropy writes the time into the comment: other bytes a second later
    sink = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(sink)
    return sink.getvalue()


def _fits_column(series: pl.Series) -> Any:
    from astropy.io import fits

    name = series.name.upper()
    kind = str(series.dtype)
    if kind in ("Float32", "Float64"):
        return fits.Column(name, "E" if kind == "Float32" else "D", array=series.fill_null(float("nan")).to_numpy())
    if kind == "Boolean":
        return fits.Column(name, "L", array=series.fill_null(False).to_numpy())
    if kind.startswith(("Int", "UInt")):
        return _fits_integers(name, series)
    text = [ascii_text(printable(value or "")) for value in series.cast(_string()).to_list()]
    return fits.Column(name, f"{max([1, *map(len, text)])}A", array=_bytes(text))


def _fits_integers(name: str, series: pl.Series) -> Any:
    import polars as pl
    from astropy.io import fits

    # FITS has no unsigned integers but by an offset that not every reader undoes: the next larger signed type holds them
    wider = {"Int8": pl.Int16, "UInt8": pl.Int16, "UInt16": pl.Int32, "UInt32": pl.Int64, "UInt64": pl.Int64}
    series = series.cast(wider.get(str(series.dtype), series.dtype))
    kind = str(series.dtype)
    null = NO_INTEGER[kind] if series.null_count() else None
    values = series.fill_null(null).to_numpy() if null is not None else series.to_numpy()
    return fits.Column(name, {"Int16": "I", "Int32": "J", "Int64": "K"}[kind], array=values, null=null)


def _flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Lists, which a catalogue column can be, become text in formats that have none."""
    import polars as pl

    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    return frame.with_columns(
        pl.col(name).map_elements(lambda value: str(list(value)), return_dtype=pl.String) for name in nested
    )


def _string() -> Any:
    import polars as pl

    return pl.String


def _bytes(text: list[str]) -> np.ndarray:
    import numpy as np

    return np.array([value.encode("ascii") for value in text]) if text else np.empty(0, "S1")
