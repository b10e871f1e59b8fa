"""The tables in the formats that archives, journals and people take: FITS, VOTable, ECSV, Parquet."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qad.inspection.text import ascii_text
from qad.publishing.columns import UNIT_OF, FieldInfo, describe
from qad.terminal.console import printable

if TYPE_CHECKING:
    import polars as pl
    from astropy.table import Table

MISSING = {"Int16": -32768, "Int32": -2147483648, "Int64": -9223372036854775808}
_WIDER = {"Int8": "Int16", "UInt8": "Int16", "UInt16": "Int32", "UInt32": "Int64", "Boolean": "Int16"}


def astropy_table(frame: pl.DataFrame, title: str) -> Table:
    """Return the rows as an astropy table: units, UCDs and descriptions on each column, what is missing masked.

    Text is ASCII: the one alphabet that every format takes.
    """
    from astropy.table import MaskedColumn, Table

    table = Table(meta={"description": plain(title)})
    for name in frame.columns:
        info = describe(name)
        series = frame[name]
        values, missing = _values(series)
        column = MaskedColumn(
            values, name=name, mask=missing, description=plain(info.description), unit=info.unit or None
        )
        if series.dtype.is_integer() or str(series.dtype) == "Boolean":
            column.fill_value = MISSING.get(_kind(series), -32768)
        column.info.meta = {"ucd": info.ucd} if info.ucd else {}
        table[name] = column if missing.any() else _unmasked(column)
    return table


def _unmasked(column: Any) -> Any:
    from astropy.table import Column

    bare = Column(np.asarray(column), name=column.name, description=column.description, unit=column.unit)
    bare.info.meta = column.info.meta
    return bare


def _kind(series: pl.Series) -> str:
    return _WIDER.get(str(series.dtype), str(series.dtype))


def _values(series: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    import polars as pl

    missing = series.is_null().to_numpy()
    if series.dtype.is_float():
        values = series.fill_null(float("nan")).to_numpy()
        return values, missing | ~np.isfinite(values)
    if series.dtype.is_integer() or series.dtype == pl.Boolean:
        kind = _kind(series)
        values = series.cast(getattr(pl, kind)).fill_null(MISSING[kind]).to_numpy()
        return values, missing
    text = [plain("" if value is None else str(value)) for value in series.to_list()]
    return np.array(text if text else [], dtype=str), missing


def plain(text: str) -> str:
    """Return text as printable ASCII on one line."""
    return " ".join(ascii_text(printable(text.replace("″", " arcsec").replace("Å", "Angstrom"))).split())


def fits_bytes(table: Table, name: str, header: Mapping[str, Any]) -> bytes:
    """Return a FITS file: one binary table with TUNIT, TUCD, TCOMM and TNULL, and checksums."""
    from astropy.io import fits

    columns = []
    for key in table.colnames:
        column = table[key]
        null = None
        values = column
        if np.ma.isMaskedArray(column):
            filler: Any = np.nan if column.dtype.kind == "f" else "" if column.dtype.kind == "U" else column.fill_value
            null = int(filler) if column.dtype.kind == "i" else None
            values = column.filled(filler)
        # the standard knows no unit with a letter beyond its own list
        unit = column.unit.to_string("fits") if column.unit is not None else None
        columns.append(fits.Column(key.upper(), _format(column), array=_encoded(values), unit=unit, null=null))
    table_hdu = fits.BinTableHDU.from_columns(columns, name=name)
    for index, key in enumerate(table.colnames, 1):
        ucd = table[key].info.meta.get("ucd")
        if ucd:
            table_hdu.header[f"TUCD{index}"] = ucd
        table_hdu.header[f"TCOMM{index}"] = table[key].description[:68]
    primary = fits.PrimaryHDU()
    for hdu in (primary, table_hdu):
        for key, value in header.items():
            hdu.header[key] = value
        hdu.add_checksum(when="")
    table_hdu.header["RADESYS"] = "ICRS"
    table_hdu.add_checksum(when="")
    sink = io.BytesIO()
    fits.HDUList([primary, table_hdu]).writeto(sink)
    return sink.getvalue()


def _format(column: Any) -> str:
    kind = column.dtype.kind
    if kind == "U":
        return f"{max(1, column.dtype.itemsize // 4)}A"
    return {"f4": "E", "f8": "D", "i2": "I", "i4": "J", "i8": "K"}[f"{kind}{column.dtype.itemsize}"]


def _encoded(values: Any) -> np.ndarray:
    values = np.asarray(values)
    return np.char.encode(values, "ascii") if values.dtype.kind == "U" else values


def votable_bytes(tables: Mapping[str, Table], infos: Mapping[str, str]) -> bytes:
    """Return a VOTable 1.4 with one table each: UCDs, VOUnits, the coordinate system, and `infos` for the whole."""
    from astropy.io.votable import tree
    from astropy.io.votable.tree import CooSys, Info, TableElement, VOTableFile

    file = VOTableFile(version="1.4")
    resource = tree.Resource(type="results")
    file.resources.append(resource)
    resource.coordinate_systems.append(CooSys(ID="icrs", system="ICRS"))
    # what every service says of a good answer: clients of services read the file as one
    for key, value in {"QUERY_STATUS": "OK", **infos}.items():
        resource.infos.append(Info(name=key, value=value))
    for name, table in tables.items():
        copy = table.copy()
        for key in copy.colnames:
            unit = copy[key].unit
            if unit is not None:
                copy[key].unit = UNIT_OF.get(describe(key).unit, str(unit))
        with warnings.catch_warnings():
            # fields of text without a length: astropy writes arraysize="*", as we want it
            warnings.simplefilter("ignore")
            element = TableElement.from_table(file, copy)
        element.name = name
        element.ID = name
        element.description = table.meta["description"]
        for field in element.fields:
            field.ID = f"{name}_{field.name}"
            field.ucd = table[field.name].info.meta.get("ucd")
            if field.name in ("ra", "dec"):
                field.ref = "icrs"
        resource.tables.append(element)
    sink = io.BytesIO()
    file.to_xml(sink)
    return sink.getvalue()


def ecsv_bytes(table: Table) -> bytes:
    """Return the table as ECSV: text that astropy reads back with units, types and what is missing."""
    sink = io.StringIO()
    table.write(sink, format="ascii.ecsv", delimiter=",")
    return sink.getvalue().encode()


def parquet_bytes(frame: pl.DataFrame, metadata: Mapping[str, str]) -> bytes:
    """Return the rows as Parquet: nulls are nulls, unit, ucd and description in the metadata of each field."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = frame.to_arrow()
    fields = []
    for field in table.schema:
        info = describe(field.name)
        is_text = pa.types.is_large_string(field.type) or pa.types.is_string_view(field.type)
        described = {"unit": info.unit, "ucd": info.ucd, "description": info.description}
        fields.append(pa.field(field.name, pa.string() if is_text else field.type, metadata=described))
    table = table.cast(pa.schema(fields, metadata=dict(metadata)))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def dictionary(frame: pl.DataFrame) -> list[FieldInfo]:
    """Return what each column is."""
    return [describe(name) for name in frame.columns]
