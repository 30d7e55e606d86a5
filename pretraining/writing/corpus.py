"""Collects the corpus: paragraphs in English and Indonesian, sentence pairs of the two, and dictionaries' meanings.

A corpus folder holds ``en.txt`` and ``id.txt`` (a paragraph a line), ``pairs.tsv`` (English, Indonesian),
``meanings.jsonl`` (see ``dictionaries.Meaning``), ``topics.tsv`` (see ``judging``) and
``manifest.json`` (packages, versions, licences, counts, hashes).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from headstart.core import manifest
from pretraining.writing import dictionaries, formats
from pretraining.writing.cleaning import Unseen, clean, language, readable
from pretraining.writing.judging import topic
from pretraining.writing.packages import Apt, Package, licences

MEMBERS = re.compile(
    r"/locale/id/LC_MESSAGES/[^/]+\.mo$|/locale/(?:fr|de)/LC_MESSAGES/(?:wesnoth|freedroid|cataclysm|unknown)[^/]*\.mo$"
    r"|/help/(?:id|C)/.*\.(?:page|xml)$|/man/id/|/html/(?:id-ID|en-US)/[^/]+\.html$|\.id\.html$|\.en\.html$"
    r"|/libreoffice/help/id/text/.*\.html$|/kicad/help/id/[^/]+\.html$|/(?:debian-faq|debian-history)/.*\.html$"
    r"|/developers-reference/.*\.html$|/installation-guide-amd64/(?:en|id)/.*\.html$|/i18n/(?:[^/]+/)?(?:id|en)\.json$"
    r"|/sword/modules/.*\.[bc]z[sz]$|/dictd/.*\.dict\.dz$|/games/fortunes/\w+$|/data/Rdata\.rdb$"
    r"|/crawl/dat/(?:descript|database)/\w+\.txt$|/endless-sky/data/.*\.txt$|/mythes/.*\.dat$|/wordnet/data\.\w+$"
    r"|/common/annotations(?:Derived)?/(?:en|id)\.xml$|^/usr/share/doc/[^/]+/copyright$"
)
PLAIN_PROSE = ("/dictd/devil", "/dictd/gcide", "/dictd/jargon")


class Corpus:
    """What has been collected so far."""

    def __init__(self) -> None:
        self.text: dict[str, list[str]] = {"en": [], "id": []}
        self.pairs: dict[str, str] = {}
        self.meanings: list[dictionaries.Meaning] = []
        self.topics: list[tuple[str, str]] = []
        self.sources: Counter[str] = Counter()
        self.packages: dict[str, dict[str, object]] = {}
        self._unseen = Unseen()

    def add(self, texts: Iterable[str], source: str, known: str | None = None) -> None:
        """Keep what reads as prose and is new; its language is told from its words unless ``known``."""
        for text in self._unseen(text for text in texts if readable(text)):
            which = known or language(text)
            if which is not None:
                self.text[which].append(text)
                self.sources[f"{source}/{which}"] += len(text)

    def add_pairs(self, pairs: Iterable[tuple[str, str]], source: str) -> None:
        """Messages and their translations: as pairs, and what reads as prose as text."""
        for message, translation in pairs:
            english, other = clean(message), clean(translation)
            if english.lower() != other.lower() and re.search(r"[A-Za-z]{3}", english) and len(other) > 2:
                self.pairs.setdefault(english, other)
                self.add([english], source, "en")
                self.add([other], source, "id")

    def save(self, folder: Path) -> None:
        """Write the corpus and its manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        for which, texts in self.text.items():
            (folder / f"{which}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
        lines = (f"{english}\t{other}" for english, other in self.pairs.items())
        (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / "topics.tsv").write_text("".join(f"{name}\t{text}\n" for name, text in self.topics), encoding="utf-8")
        with open(folder / "meanings.jsonl", "w", encoding="utf-8") as file:
            for meaning in self.meanings:
                file.write(json.dumps(meaning.as_json(), ensure_ascii=False) + "\n")
        names = ("en.txt", "id.txt", "pairs.tsv", "meanings.jsonl")
        facts = {
            "files": {
                name: {"bytes": (folder / name).stat().st_size, "sha256": manifest.sha256(folder / name)}
                for name in names
            },
            "paragraphs": {which: len(texts) for which, texts in self.text.items()},
            "pairs": len(self.pairs),
            "meanings": len(self.meanings),
            "characters by source": dict(self.sources.most_common()),
            "packages": self.packages,
        }
        manifest.write_json(folder / "manifest.json", facts)


def collect(folder: Path, archives: Path, names: Iterable[str]) -> None:
    """Fetch the packages and write the corpus into ``folder``."""
    apt = Apt(archives)
    apt.update()
    packages = apt.fetch(sorted({*names, *apt.with_catalogues()}))
    corpus = Corpus()
    # the longest texts first: where a sentence stands twice, it stays in its context
    ordered = sorted(packages, key=lambda package: (package.name not in set(names), package.name))
    for package in ordered:
        _read(corpus, package)
    corpus.save(folder)


def _read(corpus: Corpus, package: Package) -> None:
    """Read what is wanted of one package, and note its version and licences where there was anything."""
    together: dict[str, bytes] = {}
    stated, read = b"", 0
    for path, content in package.members(MEMBERS):
        if path.endswith("/copyright"):
            stated = content
            continue
        read += 1
        if re.search(r"\.json$|\.[bc]z[sz]$|wordnet/data|/annotations", path):
            together[path] = content
        elif path.endswith(".mo"):
            pairs = formats.catalogue(content)
            if "/locale/id/" in path:
                corpus.add_pairs(pairs, "catalogues")
            else:
                corpus.add((clean(message) for message, _ in pairs), package.name, "en")
        else:
            _read_file(corpus, package.name, path, content)
    _read_together(corpus, package.name, together)
    if read:
        corpus.packages[package.name] = {"version": package.version, "licences": licences(stated)}


def _read_file(corpus: Corpus, source: str, path: str, content: bytes) -> None:
    if path.endswith((".html", ".page", ".xml")):
        corpus.add(formats.markup(content), source)
    elif "/man/id/" in path:
        corpus.add(formats.manual(content), source)
    elif path.endswith(".rdb"):
        corpus.add(formats.r_lines(content), source, "en")
    elif "/fortunes/" in path:
        corpus.add(formats.fortunes(content), source, "en")
        corpus.topics += topic(path, content)
    elif "/mythes/" in path:
        corpus.meanings += dictionaries.thesaurus(content, "id" if "th_id" in path else "en")
    elif "eng-ind" in path:
        corpus.meanings += dictionaries.bilingual(dictionaries.opened(content))
    elif any(name in path for name in PLAIN_PROSE):
        text = dictionaries.opened(content)
        corpus.add(dictionaries.definitions(text), source, "en")
        if "gcide" in path:
            corpus.meanings += dictionaries.defined(text)
    else:
        corpus.add(formats.quoted(content), source, "en")


def _read_together(corpus: Corpus, source: str, files: dict[str, bytes]) -> None:
    """Files that are read beside one another."""
    for path in sorted(files):
        if path.endswith(("id.json", "bzz", "czz")):
            beside = path[:-7] + "en.json" if path.endswith("json") else path[:-1] + "s"
            if beside not in files:
                continue
            if path.endswith("json"):
                english, other = formats.messages(files[beside]), formats.messages(files[path])
                corpus.add_pairs(((english[name], other[name]) for name in english if name in other), source)
            else:
                corpus.add(formats.bible(files[beside], files[path]), source, "en")
    if any("wordnet" in path for path in files):
        corpus.meanings += dictionaries.wordnet({path: files[path] for path in files if "wordnet/" in path})
        corpus.add((text for meaning in corpus.meanings for text in meaning.glosses), source, "en")
    for path in sorted(files):
        if "annotations" in path and path.endswith("en.xml"):
            corpus.meanings += dictionaries.emoji(files[path], files[path[:-6] + "id.xml"])


def read_meanings(folder: Path) -> Iterator[dictionaries.Meaning]:
    """The meanings of a corpus folder."""
    with open(folder / "meanings.jsonl", encoding="utf-8") as file:
        for line in file:
            yield dictionaries.Meaning(**json.loads(line))
