"""Tables of paths and labels: CSV, TSV, JSONL, Parquet. Cells stay the strings that they are ("NA", "007", "null").

The standard library reads text; pandas would turn "NA" into nothing and "007" into 7.0. Shapes: N rows.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from headstart.core.errors import DataError, Problem
from headstart.core.plural import plural
from headstart.data.files import read_bytes
from headstart.data.reading.collection import listing, printable

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
_DELIMITERS = ",;\t|"
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_MAX_COLUMNS = 10_000
_MAX_CELL = 8_000_000  # characters; an unclosed quote would otherwise swallow a file
_MAX_LINE = 16_000_000  # characters
_MAX_GROWTH = 100  # times its own size, to which a file may unpack beyond _SMALL bytes
_SMALL = 2**27
BYTES_PER_CELL = 64  # of a Python object and the place that holds it


@dataclass
class Table:
    """Columns by name, of equal length. ``place(i)`` says where row i stands; paths are relative to ``base``."""

    columns: Mapping[str, Sequence[Any]]
    source: str
    base: str
    place: Callable[[int], str]
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)  # names of integer labels, by column
    typed: dict[str, str] = field(default_factory=dict)  # modality of columns whose type tells it
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_table(path: str, source: str) -> Table:
    """Read a table by its extension.

    Raises:
        DataError: it cannot be read at all; mistakes in single rows are collected in ``Table.problems``.
    """
    extension = os.path.splitext(path)[1].lower()
    if extension == ".parquet":
        from headstart.data.reading import parquet

        return parquet.read(path, source)
    notes: list[str] = []
    text = _decoded(read_bytes(path), source, notes)
    _demand_lines(text, source)
    if extension in (".jsonl", ".ndjson"):
        return _read_json_lines(text, path, source, notes)
    with _long_cells():
        return _read_csv(text, path, source, notes, "\t" if extension == ".tsv" else None)


def _decoded(data: bytes, source: str, notes: list[str]) -> str:
    """The text of a file: by its byte order mark, else UTF-8, else UTF-16 by its zero bytes, else Windows' Latin."""
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            if encoding != "utf-8-sig":
                notes.append(f"the table is encoded as {encoding}")
            try:
                return data.decode(encoding)
            except UnicodeDecodeError as error:
                raise DataError(f"not {encoding} as its first bytes say ({error.reason})", where=source) from error
    head = data[:4096]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
        if len(head) >= 4 and zeros.count(0) > 0.7 * len(zeros) and head.count(0) < 0.7 * len(head):
            notes.append(f"the table looks like {encoding} without a byte order mark and was read as such")
            return data.decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        for encoding in ("cp1252", "latin-1"):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                continue
            notes.append(f"the table is not UTF-8 (line {line}) and was read as {encoding}: check accented letters")
            return text
        raise


def _demand_lines(text: str, source: str) -> None:
    """Raises DataError where a line is longer than any line of a table."""
    line = start = 0
    while len(text) - start > _MAX_LINE:
        line, end = line + 1, text.find("\n", start, start + _MAX_LINE + 1)
        if end < 0:
            raise DataError(f"line {line} has more than {_MAX_LINE:,} characters", where=source)
        start = end + 1


def _read_csv(text: str, path: str, source: str, notes: list[str], delimiter: str | None) -> Table:
    if delimiter is None:
        delimiter = _sniffed(text)
        if delimiter != ",":
            notes.append(f"the columns are separated by {delimiter!r}")
    problems: list[Problem] = []
    blank: list[str] = []
    records = _records(text, delimiter, source, problems, blank)
    first = next(records, (1, []))
    records, second = _peeked(records)
    names = _header(first[1], source, problems)
    rows: list[list[str]] = []
    lines: list[int] = []
    if _is_data(first[1], second):
        names = ["text", "label"]
        problems.clear()
        rows.append(first[1])
        lines.append(first[0])
        notes.append("the table has no header line: its columns were taken as text and label")
    ragged = []
    for line, cells in records:
        if any(cells[len(names) :]) or len(cells) < len(names):
            ragged.append(f"line {line} has {len(cells)}")
            continue
        rows.append(cells)
        lines.append(line)
    if blank:
        notes.append(f"{plural(len(blank), 'blank line')} left out: {listing(blank)}")
    if ragged:
        remedy = "quote cells that hold the separator"
        problems.append(
            Problem(f"the header has {plural(len(names), 'column')}, but {listing(ragged)}", source, remedy)
        )
    nul = [f"line {line}" for line, cells in zip(lines, rows, strict=True) if any("\0" in cell for cell in cells)]
    if nul:
        problems.append(Problem(f"zero bytes in {listing(nul)}", source, "the file is damaged, or not a text table"))
    columns = {name: [cells[index] for cells in rows] for index, name in enumerate(names)}
    return _table(columns, path, source, notes, problems, lines)


def _table(
    columns: dict[str, list[Any]], path: str, source: str, notes: list[str], problems: list[Problem], lines: list[int]
) -> Table:
    if not lines:
        problems.append(Problem("the table has no rows", source))
    base = os.path.dirname(os.path.abspath(path))
    return Table(columns, source, base, lambda row: f"line {lines[row]}", notes=notes, problems=problems)


def _records(
    text: str, delimiter: str, source: str, problems: list[Problem], blank: list[str]
) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of every record that is not blank; a broken quote ends the file with a problem.

    Lines that are blank, with a record after them, are named in ``blank``.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    empty: list[str] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                blank += empty
                empty = []
                yield line, cells
            else:
                empty.append(f"line {line}")
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append(Problem(f"{error} in the record that starts at line {line}", source, "is a quote not closed?"))


@contextmanager
def _long_cells() -> Iterator[None]:
    """The csv module's limit is one for the whole process: raise it only while a table is read."""
    before = csv.field_size_limit(_MAX_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _sniffed(text: str) -> str:
    """The separator that splits the first records into the same number of columns, the most columns winning."""
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        widths = []
        reader = csv.reader(io.StringIO(text[:65536], newline=""), delimiter=delimiter)
        try:
            for cells in reader:
                widths += [len(cells)] if cells else []
                if len(widths) == 50:
                    break
        except csv.Error:
            pass
        width, times = Counter(widths).most_common(1)[0] if widths else (1, 0)
        if widths and widths[0] > 1 and width > 1 and times / len(widths) * width > best_score:
            best, best_score = delimiter, times / len(widths) * width
    return best


def _peeked(records: Iterator[tuple[int, list[str]]]) -> tuple[Iterator[tuple[int, list[str]]], list[list[str]]]:
    """The records as before, and the first hundred of them."""
    few = list(itertools.islice(records, 100))
    return itertools.chain(few, records), [cells for _, cells in few]


def _is_data(first: list[str], others: list[list[str]]) -> bool:
    """Whether the first line of a two-column table is a row: a text, and a label that other rows carry too."""
    if len(first) != 2 or len(first[0].split()) < 3:
        return False
    return first[1].strip() in {cells[1].strip() for cells in others if len(cells) == 2}


def as_list(column: Any) -> list[Any]:
    """A column as plain Python values (pandas, numpy and `datasets` columns too)."""
    return column.tolist() if hasattr(column, "tolist") else list(column[:])


def demand_columns(count: int, source: str) -> None:
    """Raises DataError where a table has more columns than anybody meant."""
    if count > _MAX_COLUMNS:
        raise DataError(f"the table has {count:,} columns, more than {_MAX_COLUMNS:,}", where=source)


def demand_size(claimed: int, size: int, source: str) -> None:
    """Raises DataError where a file of ``size`` bytes would take ``claimed`` bytes of memory, and that is no table."""
    most = max(_SMALL, _MAX_GROWTH * size)
    if claimed > most:
        what = f"it unpacks to more than {most / 1e6:,.0f} MB, far beyond its own size"
        raise DataError(what, where=source, remedy="give the columns that are needed as a table of their own")


def _header(cells: list[str], source: str, problems: list[Problem]) -> list[str]:
    demand_columns(len(cells), source)
    names = [cell.strip() or f"column {index}" for index, cell in enumerate(cells, start=1)]
    while names and not cells[len(names) - 1].strip():  # empty columns that spreadsheets leave at the end
        names.pop()
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        problems.append(Problem(f"the header names columns twice: {listing(twice)}", source, "rename one of them"))
    return names


def _read_json_lines(text: str, path: str, source: str, notes: list[str]) -> Table:
    problems: list[Problem] = []
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    broken = []
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:  # numbers stay as written: 1.0 and 1 are different names
            row = json.loads(content, parse_int=str, parse_float=str, parse_constant=str)
        except (json.JSONDecodeError, RecursionError) as error:
            broken.append(f"line {line} ({printable(str(error))})")
            continue
        if not isinstance(row, dict):
            broken.append(f"line {line} (not an object)")
            continue
        rows.append(row)
        lines.append(line)
    if broken:
        problems.append(Problem(f"not a JSON object: {listing(broken)}", source, "one {…} a line"))
    names = dict.fromkeys(name for row in rows for name in row)
    demand_columns(len(names), source)
    demand_size(len(rows) * len(names) * BYTES_PER_CELL, len(text), source)  # rows without a key get an empty cell
    columns = {name: [row.get(name) for row in rows] for name in names}
    return _table(columns, path, source, notes, problems, lines)
