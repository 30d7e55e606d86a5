"""Dictionaries and thesauri: which words mean the same, which the opposite, and how a meaning is told in a sentence."""

from __future__ import annotations

import gzip
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from pretraining.writing.cleaning import clean


@dataclass
class Meaning:
    """Words of one meaning by language, what is said of it in English, words of the opposite, and related words."""

    words: dict[str, list[str]]
    glosses: list[str] = field(default_factory=list)
    opposites: dict[str, list[str]] = field(default_factory=dict)
    related: dict[str, list[str]] = field(default_factory=dict)
    kind: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a line of a JSON file."""
        return {name: value for name, value in asdict(self).items() if value}


def opened(content: bytes) -> str:
    """Text of a dictd dictionary (``.dict.dz`` is gzip)."""
    return gzip.decompress(content).decode("utf-8", "replace")


def thesaurus(content: bytes, language: str) -> Iterator[Meaning]:
    """Entries of a MyThes file: a headword, then lines ``(class)|synonym|…``; antonyms are marked as such."""
    encoding, _, body = content.partition(b"\n")
    lines = body.decode(encoding.decode("ascii").strip(), "replace").splitlines()
    position = 0
    while position < len(lines):
        head, _, count = lines[position].rpartition("|")
        number = int(count) if count.strip().isdigit() else 0
        senses = [line.split("|") for line in lines[position + 1 : position + 1 + number]]
        position += 1 + number
        opposite = [word for kind, *words in senses if "ant" in kind for word in words]
        for kind, *words in senses:
            if "ant" in kind:
                continue
            opposite_here = opposite + [word for word in words if "(antonym)" in word]
            same = [word for word in words if "(" not in word]
            near = [_bare(word) for word in words if "(similar term)" in word]
            meaning = Meaning({language: [head, *same]}, kind=kind.strip("[]()"))
            meaning.opposites = {language: [_bare(word) for word in opposite_here]} if opposite_here else {}
            meaning.related = {language: near} if near else {}
            if len(same) + len(near) > 0:
                yield meaning


def _bare(word: str) -> str:
    return re.sub(r" ?\([^()]*\)", "", word).strip()


def bilingual(text: str) -> Iterator[Meaning]:
    """Entries of FreeDict's English-Indonesian dictionary: headword, pronunciation, class; translations; gloss."""
    head, kind = "", ""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        entry = re.match(r"(\S.*?) /.*<([\w, ]+)>\s*$|(\S[^/<>]*?) <([\w, ]+)>\s*$", line)
        if entry is not None:
            head, kind = entry[1] or entry[3], entry[2] or entry[4]
            continue
        translations = [re.sub(r"^\d+\.\s*|\s\d+\.$|\([^)]*\)", "", part).strip() for part in line.split(",")]
        follows = number > 0 and (lines[number - 1].rstrip().endswith(">") or re.match(r"\d+\. ", line) is not None)
        if not head or not follows or len(line) > 200:
            continue
        gloss = lines[number + 1] if number + 1 < len(lines) else ""
        gloss = "" if re.match(r"\d+\. ", gloss) or gloss.rstrip().endswith(">") else clean(gloss)
        found = [part for part in translations if part]
        if found:
            yield Meaning({"en": [head], "id": found}, glosses=[gloss] if len(gloss) > 8 else [], kind=kind)


def wordnet(files: dict[str, bytes]) -> Iterator[Meaning]:
    """Synsets of WordNet's ``data.*`` files (wndb(5WN)): words, gloss and examples, antonyms and similar words.

    Fellbaum (1998), "WordNet: an electronic lexical database".
    """
    synsets: dict[tuple[str, str], tuple[list[str], str, list[tuple[str, str, str]], str]] = {}
    for name, content in sorted(files.items()):
        part = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}[name.rpartition(".")[2]]
        for line in content.decode("latin-1").splitlines():
            if line.startswith(" "):
                continue
            data, _, gloss = line.partition(" | ")
            fields = data.split()
            count = int(fields[3], 16)
            words = [re.sub(r"\((?:a|p|ip)\)$", "", word).replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
            pointers = fields[5 + 2 * count :]
            number = int(fields[4 + 2 * count])
            links = [(pointers[4 * i], pointers[4 * i + 1], pointers[4 * i + 2]) for i in range(number)]
            synsets[part, fields[0]] = (words, gloss, links, fields[1])
    for (part, _), (words, gloss, links, topic) in synsets.items():
        meaning = Meaning({"en": words}, [piece for piece in _gloss(gloss) if piece], kind=f"{part}{topic}")
        opposite = [word for sign, place, to in links if sign == "!" for word in synsets[to, place][0]]
        near = [word for sign, place, to in links if sign in ("&", "^", "=", "$") for word in synsets[to, place][0]]
        if part == "a" and not opposite:  # a satellite has the opposites of the adjective it is near to
            for sign, place, to in links:
                if sign == "&":
                    opposite += [w for s, p, t in synsets[to, place][2] if s == "!" for w in synsets[t, p][0]]
        meaning.opposites = {"en": opposite} if opposite else {}
        meaning.related = {"en": near} if near else {}
        yield meaning


def _gloss(text: str) -> list[str]:
    """The definition, then the examples, of a WordNet gloss."""
    examples = re.findall(r'"([^"]+)"', text)
    return [clean(re.sub(r'"[^"]*"|\([^)]*\)', "", text)).strip(" ;")] + [clean(example) for example in examples]


def definitions(text: str) -> Iterator[str]:
    """Paragraphs of a dictd dictionary of prose, without its marks of source and grammar."""
    text = re.sub(r"\[[^\]\n]{1,40}\]|\\[^\\\n]+\\|[{}]|--[A-Z][\w. ]+$|\bSyn\.|\bObs\.", " ", text, flags=re.MULTILINE)
    for block in re.split(r"\n\s*\n|\n {2,4}(?=\d+\. )", text):
        line = clean(re.sub(r"^\s*(?:\d+\.|\([a-z]\)|[\w' ]+ , [\w. &]+\.)\s*", "", block))
        if line:
            yield line


def defined(text: str) -> Iterator[Meaning]:
    """Headwords of the GNU Collaborative International Dictionary of English, with definitions and synonyms."""
    for entry in re.split(r"\n(?=[A-Z][\w'-]* \\)", text):
        head = re.match(r"([A-Z][\w'-]*) \\", entry)
        if head is None or "\n" not in entry:
            continue
        body = entry.partition("\n")[2]
        same = re.search(r"Syn: ([^.\[]+)", body)
        body = re.sub(r"Syn:.*|-- ?\{.*|\[[^\]]*\]|\{|\}", " ", re.split(r"\n\s*\n\s{8,}", body)[0])
        senses = [
            clean(re.sub(r"--\w.*|^[^\[\]]*\] ", "", sense)).split(";")[0] for sense in re.split(r"\s\d+\. ", body)
        ]
        glosses = [sense for sense in senses if 12 < len(sense) < 300 and sense[0].isupper()][:4]
        words = [head[1].lower(), *(word.strip().lower() for word in re.split("[;,]", same[1] if same else ""))]
        words = [word for word in words if 1 < len(word) < 25]
        if glosses and words:
            yield Meaning({"en": words}, glosses, kind="defined")


def emoji(english: bytes, indonesian: bytes) -> Iterator[Meaning]:
    """Names and keywords of emoji and signs in both languages, from the Unicode CLDR's annotations."""
    names = {language: _annotations(content) for language, content in (("en", english), ("id", indonesian))}
    for sign in names["en"]:
        if sign in names["id"]:
            yield Meaning({language: found[sign] for language, found in names.items()}, kind="sign")


def _annotations(content: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in ElementTree.fromstring(content).iter("annotation"):
        words = [word.strip() for word in (item.text or "").split("|")]
        found.setdefault(item.get("cp", ""), []).extend(word for word in words if word)
    return {sign: list(dict.fromkeys(words)) for sign, words in found.items()}
