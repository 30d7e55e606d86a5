"""What ships with the package: pretrained weights, one folder a modality, each with a card that says what it is.

``builtin/<name>/`` holds ``model.safetensors`` (fp16, without a head) and ``card.json``, of texts also the files that
transformers reads. The scripts in ``pretraining/`` wrote them. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core import manifest
from headstart.core.errors import ArtefactError, BackboneError
from headstart.core.registry import suggest

FOLDER = Path(__file__).resolve().parents[1] / "builtin"
CARD, WEIGHTS = "card.json", "model.safetensors"
RANDOM = "tiny"  # the network beside them that is not pretrained
REMEDY = "install headstart again: its files are not those that were published"
WANTED: dict[str, type | tuple[type, ...]] = {
    "architecture": dict,
    "input": dict,
    "data": str,
    "licence": str,
    "sha256": str,
    "parameters": int,
}


@dataclass(frozen=True)
class Card:
    """What a built-in backbone is: ``card.json``, whose other keys (seed, steps, hardware …) are in ``facts``."""

    name: str
    folder: Path
    facts: Mapping[str, Any]

    @property
    def uri(self) -> str:
        return f"builtin/{self.name}"

    @property
    def architecture(self) -> Mapping[str, Any]:
        """``library``, and what builds the network: a name with ``model_args``, or ``settings``."""
        return dict(self.facts["architecture"])

    @property
    def input(self) -> Mapping[str, Any]:
        """The spec of the modality, as far as it is not the usual one."""
        return dict(self.facts["input"])

    @property
    def data(self) -> str:
        """A sentence: what it was trained on."""
        return str(self.facts["data"])

    @property
    def licence(self) -> str:
        return str(self.facts["licence"])

    @property
    def sha256(self) -> str:
        """Of ``model.safetensors``, hex."""
        return str(self.facts["sha256"])

    @property
    def parameters(self) -> int:
        return int(self.facts["parameters"])

    @property
    def scores(self) -> Mapping[str, Any]:
        """Scores on development sets, by what they were measured on."""
        return dict(self.facts.get("scores") or {})

    @property
    def bytes(self) -> int:
        """Size of the weights on the disk."""
        return (self.folder / WEIGHTS).stat().st_size

    def about(self) -> tuple[tuple[str, str], ...]:
        """What ``headstart models`` tells of it, by title."""
        rows = [("trained on", self.data), ("made by", self.made_by), ("licence", self.licence)]
        rows.append(("file", f"{self.bytes / 1e6:.1f} MB, SHA-256 {self.sha256[:12]}…"))
        rows += [("scores", f"{score:.3f}  {on}") for on, score in _flat(self.scores)]
        return tuple((title, text) for title, text in rows if text)

    @property
    def made_by(self) -> str:
        """The script with its arguments, and what it took."""
        told = self.facts.get("arguments") or ()
        pairs = [f"{name}={value}" for name, value in _flat(told)] if isinstance(told, Mapping) else map(str, told)
        arguments = told if isinstance(told, str) else " ".join(pairs)
        parts = [f"{self.facts.get('script', '')} {arguments}".strip()]
        parts += [f"{self.facts['steps']:,} steps"] if isinstance(self.facts.get("steps"), int) else []
        if isinstance(self.facts.get("seconds"), (int, float)):
            parts.append(f"{self.facts['seconds'] / 60:.0f} min on {self.facts.get('hardware', 'a machine not told')}")
        return ", ".join(part for part in parts if part)

    def weights(self) -> Path:
        """The weights file, whose digest is that of the card.

        Raises:
            BackboneError: it is missing or damaged.
        """
        file = self.folder / WEIGHTS
        if not file.is_file():
            raise BackboneError("the weights of this built-in backbone are missing", where=str(file), remedy=REMEDY)
        if manifest.sha256(file) != self.sha256:
            raise BackboneError(
                f"the weights of {self.uri} are damaged: their SHA-256 is not the card's",
                where=str(file),
                remedy=REMEDY,
            )
        return file


def _flat(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings with the names that lead to them."""
    for name, value in told.items():
        whole = f"{before}, {name}" if before else str(name)
        if isinstance(value, Mapping):
            yield from _flat(value, whole)
        else:
            yield whole, value


def names() -> tuple[str, ...]:
    """The pretrained backbones of this installation, by modality."""
    return tuple(sorted(file.parent.name for file in FOLDER.glob(f"*/{CARD}")))


def card(name: str) -> Card:
    """The card of ``builtin/name``.

    Raises:
        BackboneError: there is no such backbone, or its card cannot be read.
    """
    file, known = FOLDER / name / CARD, (*names(), RANDOM)
    if name not in names():
        raise BackboneError(f"no built-in backbone '{name}'{suggest(name, known)}", remedy=f"known: {', '.join(known)}")
    try:
        facts = manifest.read_json(file)
    except ArtefactError as error:
        raise BackboneError(
            "the card of this built-in backbone cannot be read", where=str(file), remedy=REMEDY
        ) from error
    wrong = [key for key, kind in WANTED.items() if not isinstance(facts, dict) or not isinstance(facts.get(key), kind)]
    if wrong:
        raise BackboneError(f"the card lacks {', '.join(wrong)}, or says it wrongly", where=str(file), remedy=REMEDY)
    return Card(name, FOLDER / name, facts)
