"""Parquet: the one table that is packed. What it unpacks to is looked at before, and while, it is unpacked.

Shapes: N rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.core.errors import DataError, MissingExtra, Problem
from headstart.data.reading.tables import BYTES_PER_CELL, Table, demand_columns, demand_size
from headstart.data.splits import LazyItems

_AT_ONCE = 8  # pictures of a Parquet file that are unpacked before their size is looked at


def read(path: str, source: str) -> Table:
    """The table in a Parquet file; its path must exist.

    Raises:
        MissingExtra: pyarrow is not installed.
        DataError: not a Parquet file, or one that unpacks to far more than itself.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise MissingExtra("pyarrow", "data", "reading Parquet") from error
    try:
        content = _unpacked(path, source)
    except (pyarrow.ArrowException, OSError, MemoryError) as error:
        raise DataError(f"not a readable Parquet file ({error})", where=source) from error
    columns: dict[str, Sequence[Any]] = {}
    for name, column in zip(content.column_names, content.columns, strict=True):
        columns[name] = _cells(column) if _is_heavy(column.type) else _objects(column)
        if _is_dictionary(column.type):  # whoever looks at every cell, such as for a path, makes a copy of every one
            demand_size(
                sum(len(cell) for cell in columns[name] if isinstance(cell, str)), os.path.getsize(path), source
            )
    table = Table(columns, source, os.path.dirname(os.path.abspath(path)), lambda row: f"row {row}")
    table.class_names = _class_names(content.schema.metadata or {})
    if not content.num_rows:
        table.problems.append(Problem("the table has no rows", source))
    return table


def _unpacked(path: str, source: str) -> Any:
    """The Arrow table of a Parquet file, with equal strings kept once, as they are in the file.

    Raises:
        DataError: it is small and unpacks to a huge table; equal values take next to nothing in Parquet.
    """
    import pyarrow
    from pyarrow import parquet

    claims = parquet.read_metadata(path)
    demand_columns(claims.num_columns, source)
    room = os.path.getsize(path)
    packed = sum(claims.row_group(index).total_byte_size for index in range(claims.num_row_groups))
    demand_size(max(packed, claims.num_rows * claims.num_columns * BYTES_PER_CELL), room, source)
    schema = parquet.read_schema(path)
    texts = [each.name for each in schema if pyarrow.types.is_string(each.type)]
    heavy = any(_is_heavy(each.type) for each in schema)
    batches, size = [], 0
    file = parquet.ParquetFile(path, read_dictionary=texts)
    for batch in file.iter_batches(_AT_ONCE) if heavy else file.iter_batches():
        size += batch.nbytes
        demand_size(size, room, source)
        batches.append(batch)
    return pyarrow.Table.from_batches(batches, file.schema_arrow)


def _is_heavy(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_struct(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _is_dictionary(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_dictionary(kind))


def _objects(column: Any) -> list[Any]:
    """A column's values; equal ones of a dictionary are one object."""
    if not _is_dictionary(column.type):
        return list(column.to_pylist())
    found: list[Any] = []
    for part in column.chunks:
        values = [*part.dictionary.to_pylist(), None]
        found += [values[-1 if index is None else index] for index in part.indices.to_pylist()]
    return found


def _cells(column: Any) -> LazyItems:
    """A column of encoded pictures that stays in Arrow's memory; cells become Python objects when they are read."""
    return LazyItems(lambda row: column[row].as_py(), range(len(column)))


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """The names of ClassLabel columns that `datasets` writes into the file's metadata."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        return {name: tuple(kind["names"]) for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
