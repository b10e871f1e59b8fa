"""Catalogues in VOTable, read in blocks of rows: TABLEDATA, BINARY and BINARY2 (IVOA Recommendation VOTable 1.4)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.parsers.expat import ExpatError, ParserCreate

from qad.errors import InputError
from qad.matching.columns import Block, ColumnError, Field, shorten
from qad.matching.source import ArrowBlock, Source, open_stream, read_errors
from qad.matching.votable_binary import Binary, BinaryError

CHUNK_BYTES = 1 << 20
BLOCK_ROWS = 1 << 16
_NUMBERS = ("unsignedByte", "short", "int", "long", "float", "double")
_DATA = ("TABLEDATA", "BINARY", "BINARY2")


@dataclass
class Table:
    """What a VOTable says of one of its tables.

    Attributes
    ----------
    fields : list of dict
        The attributes of each FIELD; ``null`` is what stands for a missing value.
    kind : str
        TABLEDATA, BINARY or BINARY2; empty: no data.
    offset : int
        Byte where the data element starts: TABLEDATA, or STREAM.
    """

    number: int
    fields: list[dict[str, str]] = field(default_factory=list)
    kind: str = ""
    offset: int = 0


class _Found(Exception):
    """The scan has what it looks for."""


def votable_sources(path: Path) -> Iterator[Source]:
    """Yield the tables of a VOTable.

    Raises
    ------
    InputError
        If it is not XML, or keeps its data elsewhere: data are never fetched from an address that a file names.
    """
    number = 0
    while (table := _scan(path, number)) is not None:
        fields = tuple(_field(data) for data in table.fields)
        yield Source(path, f"TABLE {number}", fields, _Reader(path, table, tuple(f.name for f in fields)))
        number += 1


def query_status(path: Path) -> dict[str, str]:
    """Return the INFO elements of a VOTable that is the answer of a service: ``QUERY_STATUS`` and its text among them."""
    infos: dict[str, str] = {}
    inside: list[str] = []

    def start(tag: str, data: dict[str, str]) -> None:
        inside.clear()
        if _plain(tag) == "INFO":
            name = data.get("name", "")
            infos[name] = data.get("value", "")
            inside.append(f"{name} text")

    def text(data: str) -> None:
        if inside:
            infos[inside[0]] = (infos.get(inside[0], "") + data).strip()[:500]

    def end(_tag: str) -> None:
        inside.clear()

    parser = ParserCreate()
    parser.StartElementHandler, parser.CharacterDataHandler, parser.EndElementHandler = start, text, end
    parser.buffer_text = True
    with read_errors(path, ""), votable_errors(path, ""), closing(open_stream(path)) as stream:
        while chunk := stream.read(CHUNK_BYTES):
            parser.Parse(chunk)
        parser.Parse(b"", True)
    return infos


def _plain(tag: str) -> str:
    return tag.rpartition(":")[2]


def _scan(path: Path, number: int) -> Table | None:
    """Return the `number`-th table with its fields and where its data are; None if there are fewer."""
    table = Table(-1)
    parser = ParserCreate()

    def start(tag: str, data: dict[str, str]) -> None:
        nonlocal table
        tag = _plain(tag)
        if tag == "TABLE":
            table = Table(table.number + 1)
        elif table.number != number:
            return
        elif tag == "FIELD":
            table.fields.append({**data, "null": ""})
        elif tag == "VALUES" and "null" in data and table.fields:
            table.fields[-1]["null"] = data["null"]
        elif tag in ("FITS", "PARQUET"):
            raise InputError(path, f"holds its data as {tag} inside XML; save it as TABLEDATA or BINARY2")
        elif tag in _DATA:
            table.kind, table.offset = tag, parser.CurrentByteIndex
            if tag == "TABLEDATA":
                raise _Found
        elif tag == "STREAM":
            if "href" in data:
                raise InputError(path, "its data lie elsewhere (STREAM href); save them inside the VOTable")
            if data.get("encoding", "base64") != "base64":
                raise InputError(path, f"its data are encoded as {data['encoding']}; only base64 is read")
            table.offset = parser.CurrentByteIndex
            raise _Found

    def end(tag: str) -> None:
        if _plain(tag) == "TABLE" and table.number == number:
            raise _Found

    def entity(*_: object) -> None:
        raise InputError(path, "declares XML entities; no VOTable needs them")

    parser.StartElementHandler, parser.EndElementHandler, parser.EntityDeclHandler = start, end, entity
    with read_errors(path, ""), votable_errors(path, ""), closing(open_stream(path)) as stream:
        try:
            while chunk := stream.read(CHUNK_BYTES):
                parser.Parse(chunk)
            parser.Parse(b"", True)
        except _Found:
            return table
    return None


def _field(data: dict[str, str]) -> Field:
    kind: Literal["number", "text", "other"] = "other"
    datatype, size = data.get("datatype", ""), data.get("arraysize", "")
    if datatype in ("char", "unicodeChar") and "x" not in size:
        kind = "text"
    elif datatype in _NUMBERS and size in ("", "1"):
        kind = "number"
    name = data.get("name") or data.get("ID", "")
    return Field(name, kind, data.get("unit", ""), "", data.get("ucd", ""), f"{datatype}[{size}]" if size else datatype)


@dataclass(frozen=True)
class _Reader:
    path: Path
    table: Table
    names: tuple[str, ...]

    def __call__(self, names: Sequence[str]) -> Iterator[Block]:
        wanted = [self.names.index(name) for name in names]
        where = f"TABLE {self.table.number}"
        with read_errors(self.path, where), votable_errors(self.path, where):
            if self.table.kind == "TABLEDATA":
                yield from self._rows(wanted)
            elif self.table.kind:
                yield from self._binary(wanted)

    def _rows(self, wanted: list[int]) -> Iterator[Block]:
        """Read the cells of TABLEDATA."""
        from astropy.utils.xml.iterparser import get_xml_iterator

        first_row, rows = 0, []
        row: list[str] = []
        number, inside = -1, False
        with closing(open_stream(self.path)) as stream, get_xml_iterator(stream) as events:
            for starts, tag, data, _position in events:
                if starts:
                    if tag == "TABLE":
                        number += 1
                    elif tag == "TABLEDATA":
                        inside = number == self.table.number
                    elif tag == "TR":
                        row = []
                elif not inside:
                    continue
                elif tag == "TD":
                    row.append(data)
                elif tag == "TR":
                    rows.append([row[index] if index < len(row) else "" for index in wanted])
                    if len(row) != len(self.names):
                        raise ColumnError(
                            f"row {first_row + len(rows)}: {len(row)} cells, expected {len(self.names)} as there are FIELDs"
                        )
                    if len(rows) == BLOCK_ROWS:
                        yield self._block(wanted, rows, first_row)
                        first_row, rows = first_row + len(rows), []
                elif tag == "TABLEDATA":
                    break
        if rows:
            yield self._block(wanted, rows, first_row)

    def _block(self, wanted: list[int], rows: list[list[str]], first_row: int) -> Block:
        columns = {}
        for index, texts in zip(wanted, zip(*rows, strict=True), strict=True):
            columns[self.names[index]] = _cells(self.table.fields[index], self.names[index], texts, first_row)
        return ArrowBlock(columns, len(rows))

    def _binary(self, wanted: list[int]) -> Iterator[Block]:
        """Read the rows of BINARY or BINARY2."""
        names = [self.names[index] for index in wanted]
        decoder = Binary(self.table.fields, self.table.kind == "BINARY2", wanted)
        try:
            with closing(open_stream(self.path)) as stream:
                stream.seek(self.table.offset)
                for columns, n_rows in decoder.blocks(_base64(stream)):
                    yield ArrowBlock(dict(zip(names, columns, strict=True)), n_rows)
        except (BinaryError, binascii.Error) as error:
            raise InputError(self.path, f"damaged: {error}", where=f"TABLE {self.table.number}") from None


def _base64(stream: Any) -> Iterator[bytes]:
    """Yield the decoded content of the STREAM element that starts here."""
    head = b""
    while b">" not in head:
        more = stream.read(4096)
        if not more:
            return
        head += more
    rest = head.partition(b">")[2]
    is_last = False
    while not is_last:
        chunk = rest.partition(b"<")[0]
        is_last = b"<" in rest
        text = b"".join(chunk.split())
        keep = 0 if is_last else len(text) % 4
        yield base64.b64decode(text[: len(text) - keep], validate=True)
        more = b"" if is_last else stream.read(CHUNK_BYTES)
        if not more and not is_last:
            raise BinaryError("the file ends inside its data")
        rest = text[len(text) - keep :] + more


def _cells(data: dict[str, str], name: str, texts: Sequence[str], first_row: int) -> Any:
    """Return the cells of one column of TABLEDATA as an Arrow array."""
    import pyarrow as pa
    import pyarrow.compute as pc

    array = pa.array(texts, pa.string())
    datatype = data.get("datatype", "")
    if datatype not in _NUMBERS:
        return array
    text = pc.utf8_trim_whitespace(array)
    empty = pc.is_in(text, pa.array(["", *([data["null"]] if data["null"] else [])]))
    text = pc.if_else(empty, pa.scalar(None, pa.string()), text)
    is_real = datatype in ("float", "double")
    try:
        return pc.cast(text, pa.float64() if is_real else pa.int64())
    except pa.ArrowInvalid:
        values = [_number(value, is_real) for value in text.to_pylist()]
    bad = next((row for row, value in enumerate(values) if value is _BAD), None)
    if bad is not None:
        raise ColumnError(f"row {first_row + bad + 1}, column {name}: {shorten(texts[bad])} is no {datatype}")
    return pa.array(values, pa.float64() if is_real else pa.int64())


_BAD = object()


def _number(text: str | None, is_real: bool) -> Any:
    if text is None:
        return None
    try:
        return float(text) if is_real else int(text, 0)
    except ValueError:
        return _BAD


@contextmanager
def votable_errors(path: Path, where: str) -> Iterator[None]:
    """Turn what expat raises on XML that is none, and a wrong cell, into InputError."""
    try:
        yield
    except ColumnError as error:
        raise InputError(path, str(error), where=where) from None
    except (ExpatError, ValueError, UnicodeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(path, f"not a readable VOTable: {reason}", where=where) from None
