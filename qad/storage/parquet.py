"""Reading and writing the tables of :mod:`qad.schema`: the schema is enforced on the way in and on the way out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qad.errors import InputError
from qad.schema import Column, Table, arrow_type
from qad.storage.atomic import atomic_path
from qad.storage.provenance import Provenance

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import pyarrow as pa

ROW_GROUP_ROWS = 1024
_VERSION = re.compile(r"[1-9][0-9]{0,8}\Z")


def write_table(path: Path, table: pa.Table, spec: Table, provenance: Provenance) -> None:
    """Write a table under its final name, whole.

    Parameters
    ----------
    path : Path
    table : pyarrow.Table
        Its fields must match ``spec`` in name, order and type; columns whose names start with one of ``spec.open_prefixes``
        may follow.
    spec : Table
    provenance : Provenance

    Raises
    ------
    ValueError
        If the table does not match `spec`: a bug of the caller.
    StorageError
        If the disk is full or not writable.
    """
    import pyarrow.parquet as pq

    _check_columns(table.schema, spec, error=lambda text: ValueError(f"{spec.tag}: {text}"))
    vectors = [field.name for field in table.schema if _is_vector(field)]
    plain = [field.name for field in table.schema if not _is_vector(field)]
    table = table.replace_schema_metadata(provenance.as_metadata(spec.tag))
    with atomic_path(path) as partial:
        # byte-stream-split and zstd level 1: smallest and fastest for noisy floats; dictionaries and statistics only grow them
        pq.write_table(
            table,
            partial,
            compression="zstd",
            compression_level=1,
            use_dictionary=[name for name in plain if _is_text(table.schema.field(name))],
            use_byte_stream_split=[f"{name}.list.element" for name in vectors],
            write_statistics=plain,
            row_group_size=ROW_GROUP_ROWS if vectors else 131_072,
            store_schema=True,
            write_page_checksum=True,
        )


def read_metadata(path: Path, spec: Table) -> dict[str, Any]:
    """Return the ``qad.*`` metadata of a table file, JSON decoded.

    Raises
    ------
    InputError
        If the file is not Parquet, not this table, or of a newer version.
    """
    schema = _read_schema(path)
    return checked_metadata(path, schema, spec)


def was_made_so(path: Path, spec: Table, provenance: Provenance, *more: str) -> bool:
    """Return whether a table file is there that was made of the same inputs with the same settings.

    `more` names further ``qad.*`` entries that must be equal.
    """
    if not path.is_file():
        return False
    try:
        found = read_metadata(path, spec)
    except InputError:
        return False
    expected = provenance.as_dict(spec.tag)
    return all(found.get(key) == expected[key] for key in ("qad.table", "qad.config", "qad.inputs", *more))


def read_table(path: Path, spec: Table, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table, or some of its columns, and check it against its schema.

    Raises
    ------
    InputError
        If the file is missing or damaged, is another table or of a newer version, or a column lacks or has another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _read_schema(path)
    checked_metadata(path, schema, spec)
    _check_columns(schema, spec, error=lambda text: InputError(path, text, where=spec.tag))
    try:
        wanted = None if columns is None else list(columns)
        return pq.read_table(path, columns=wanted, partitioning=None, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(path, f"damaged: {_first_line(error)}", where=spec.tag) from None


def read_batches(path: Path, spec: Table, columns: Sequence[str], rows: int) -> Iterator[pa.Table]:
    """Yield some columns of a table in pieces of at most `rows` rows: memory holds one piece, and a row group's bytes.

    The file's schema is checked as in :func:`read_table`.

    Raises
    ------
    InputError
        As :func:`read_table`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _read_schema(path)
    checked_metadata(path, schema, spec)
    _check_columns(schema, spec, error=lambda text: InputError(path, text, where=spec.tag))
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(rows, columns=list(columns)):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, OSError) as error:
        raise InputError(path, f"damaged: {_first_line(error)}", where=spec.tag) from None


def read_once(path: Path, spec: Table) -> tuple[dict[str, Any], pa.Table]:
    """Return the metadata and all columns but the table's own vectors, opening the file once; checked as :func:`read_table`.

    Raises
    ------
    InputError
        As :func:`read_table`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    vector_names = {column.name for column in spec.columns if column.is_vector}
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            schema = file.schema_arrow
            metadata = checked_metadata(path, schema, spec)
            _check_columns(schema, spec, error=lambda text: InputError(path, text, where=spec.tag))
            names = [name for name in schema.names if name not in vector_names]
            return metadata, file.read(names, use_threads=False)
    except FileNotFoundError:
        raise InputError(path, "no such file") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"damaged, or no Parquet file: {_first_line(error)}", where=spec.tag) from None


def read_frame(paths: Path | Iterable[Path], spec: Table, columns: Sequence[str]) -> pl.DataFrame:
    """Read scalar columns of one or more files of a table into one frame; each file is checked."""
    import polars as pl

    files = [paths] if isinstance(paths, Path) else list(paths)
    frames = [pl.from_arrow(read_table(path, spec, columns)) for path in files]
    if not frames:
        frames = [pl.from_arrow(_empty(spec, columns))]
    plain = [frame.with_columns(pl.col(pl.Categorical).cast(pl.String)) for frame in frames]  # type: ignore[union-attr]
    return pl.concat(plain)


def vectors(table: pa.Table, name: str) -> np.ndarray:
    """Return a vector column as a contiguous array, shape (n_rows, length), without a copy where that can be."""
    import numpy as np
    import pyarrow as pa

    column = table.column(name)
    length = column.type.list_size
    if table.num_rows == 0:
        return np.empty((0, length), pa.array([], column.type.value_type).to_numpy().dtype)
    parts = [
        chunk.flatten().to_numpy(zero_copy_only=False).reshape(-1, length) for chunk in column.chunks if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def vector_array(values: np.ndarray) -> pa.FixedSizeListArray:
    """Return an array of shape (n_rows, length) as an Arrow vector column."""
    import numpy as np
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    item = pa.field("item", flat.type, nullable=False)
    return pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, values.shape[1]))


def make_table(spec: Table, columns: dict[str, Any], **sizes: int) -> pa.Table:
    """Build a table of `spec` from arrays or lists by column name; a vector column takes an array (n_rows, length).

    A nullable column that is not given is null everywhere, a vector nan: Arrow before 23 cannot read a null vector back.  Further columns (``spec.open_prefixes``) follow in the order given.
    """
    import numpy as np
    import pyarrow as pa

    n_rows = len(next(iter(columns.values())))
    schema = spec.arrow(**sizes)
    arrays: list[Any] = []
    for field, column in zip(schema, spec.columns, strict=True):
        if column.name not in columns and column.nullable:
            if column.is_vector:
                arrays.append(
                    vector_array(np.full((n_rows, field.type.list_size), np.nan, column.dtype.partition("[")[0]))
                )
            else:
                arrays.append(pa.nulls(n_rows, field.type))
        elif column.is_vector and isinstance(columns[column.name], np.ndarray):
            arrays.append(vector_array(columns[column.name].astype(column.dtype.partition("[")[0], copy=False)))
        elif column.dtype == "dictionary":
            text = pa.array(columns[column.name], pa.string())
            arrays.append(text.dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(columns[column.name], field.type))
    fields = list(schema)
    for name in columns:
        if name not in schema.names:
            values = columns[name]
            extra = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
            fields.append(pa.field(name, extra.type))
            arrays.append(extra)
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _empty(spec: Table, columns: Sequence[str]) -> pa.Table:
    return (
        spec.arrow(**{column.dtype.partition("[")[2][:-1]: 1 for column in spec.columns if column.is_vector})
        .empty_table()
        .select(columns)
    )


def _read_schema(path: Path) -> pa.Schema:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(path, "no such file")
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(path, f"not a readable Parquet file: {_first_line(error)}") from None


def checked_metadata(path: Path, schema: pa.Schema, spec: Table) -> dict[str, Any]:
    """Return the ``qad.*`` entries of a file's schema, JSON decoded; raise InputError as :func:`read_metadata` does."""
    raw = {
        key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for key, value in (schema.metadata or {}).items()
        if key.startswith(b"qad.")
    }
    name, _, version = raw.get("qad.table", "").partition("/")
    if name != spec.name or not _VERSION.match(version):
        raise InputError(path, f"holds {raw.get('qad.table') or 'no table of qad'}, expected {spec.tag}")
    if int(version) > spec.version:
        raise InputError(path, f"holds {name}/{version}, this qad reads up to {spec.tag}; update qad")
    try:
        return {key: json.loads(value) if value[:1] in ("{", "[") else value for key, value in raw.items()}
    except (ValueError, RecursionError):
        raise InputError(path, "damaged: its qad.* metadata are not JSON", where=spec.tag) from None


def _check_columns(schema: pa.Schema, spec: Table, error: Any) -> None:
    for column in spec.columns:
        index = schema.get_field_index(column.name)
        if index < 0:
            raise error(f"column {column.name} is missing")
        field = schema.field(index)
        if not _same_type(field.type, column):
            raise error(f"column {column.name} is {field.type}, expected {column.dtype}")
        unit = (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace")
        if unit != column.unit:
            raise error(f"column {column.name} is in {unit or 'no unit'!r}, expected {column.unit or 'no unit'!r}")
    known = {column.name for column in spec.columns}
    for name in schema.names:
        if name not in known and not name.startswith(spec.open_prefixes):
            raise error(f"column {name} does not belong to the table")


def _same_type(found: pa.DataType, column: Column) -> bool:
    import pyarrow as pa

    if column.is_vector:
        base, _, length = column.dtype[:-1].partition("[")
        if not pa.types.is_fixed_size_list(found):
            return False
        right_length = not length.isdigit() or found.list_size == int(length)
        return bool(right_length and found.value_type == arrow_type(base))
    if column.dtype == "dictionary":
        return pa.types.is_dictionary(found) or pa.types.is_string(found)
    return bool(found == arrow_type(column.dtype))


def _is_vector(field: pa.Field) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(field.type))


def _is_text(field: pa.Field) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(field.type) or pa.types.is_dictionary(field.type))


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
