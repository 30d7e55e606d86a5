"""Docstrings of Python's standard library by topic: read from its source files, nothing of it is imported.

The same texts for every installation of one version of Python.
"""

from __future__ import annotations

import ast
import csv
import sysconfig
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from headstart.core import manifest
from headstart.core.errors import DataError
from headstart.data.samples.base import PER_CLASS, divided

TITLE = "docstrings of the standard library"
ABOUT = "six topics: code, concurrency, files, network, numbers, testing"
BACKBONE = "builtin/text"
SETTINGS: dict[str, Any] = {}
TEST = 120  # of each topic
SHORTEST, LONGEST = 25, 300  # characters
TOPICS = {
    "code": "ast compileall dis importlib inspect modulefinder pkgutil pyclbr pydoc runpy symtable zipimport",
    "concurrency": "asyncio concurrent contextvars multiprocessing queue sched signal subprocess threading",
    "files": "_pyio bz2 filecmp fileinput fnmatch genericpath glob gzip lzma ntpath os pathlib posixpath shutil stat "
    "tarfile tempfile zipapp zipfile",
    "network": "email ftplib http imaplib ipaddress mailbox poplib smtplib socket socketserver ssl urllib wsgiref "
    "xmlrpc",
    "numbers": "_pydecimal bisect colorsys fractions heapq numbers random statistics",
    "testing": "bdb doctest pdb profile pstats timeit trace tracemalloc unittest",
}


def write(folder: Path) -> Path:
    """``train.tsv``, ``val.tsv`` and ``test.tsv`` of text and label under ``folder``.

    Raises:
        DataError: this installation has too few docstrings.
    """
    rows = docstrings()
    labels = [topic for _, topic in rows]
    few = [topic for topic in TOPICS if labels.count(topic) < 3 * PER_CLASS]
    if few:
        what = f"the source files of {', '.join(few)} in the standard library hold too few docstrings"
        raise DataError(what, where=str(_library()))
    folder.mkdir(parents=True, exist_ok=True)
    for split, chosen in divided(labels, TEST).items():
        picked = [rows[row] for row in chosen]
        manifest.write_atomically(folder / f"{split}.tsv", partial(_write, picked))
    return folder


def docstrings() -> list[tuple[str, str]]:
    """First paragraphs with their topics, sorted; what two topics say alike is left out."""
    return list(_docstrings(_library()))


@lru_cache(maxsize=1)
def _docstrings(library: Path) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    shared = set()
    for topic, modules in TOPICS.items():
        for text in {text for module in modules.split() for text in _paragraphs(library, module)}:
            if found.setdefault(text, topic) != topic:
                shared.add(text)
    return tuple(sorted((text, topic) for text, topic in found.items() if text not in shared))


def _paragraphs(library: Path, module: str) -> Iterator[str]:
    """The first paragraph of every docstring of a module, or of a package with all that is in it but tests."""
    place = library / module
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    for file in files:
        if not file.is_file() or {"test", "tests"} & set(file.relative_to(library).parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
                continue
            text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
            if len(text) >= SHORTEST and ">>>" not in text:
                yield text[:LONGEST]


def _write(rows: list[tuple[str, str]], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened, delimiter="\t").writerows([("text", "label"), *rows])


def _library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])
