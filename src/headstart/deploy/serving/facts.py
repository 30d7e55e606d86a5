"""What the server may say about its model: from the verdict of its export, nothing of the machine's paths."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from headstart.core import manifest
from headstart.core.errors import ArtefactError
from headstart.deploy import folder
from headstart.deploy.predictor import Predictor


@dataclass(frozen=True)
class Facts:
    """The model, and what was measured of it when it was exported."""

    name: str  # of the run
    modality: str
    texts: int  # that make up an item: 2 of pairs
    classes: tuple[str, ...]
    variant: str
    runtime: str
    precision: str
    bytes: int
    metric: str
    score: dict[str, float]  # value, low, high, n: on the validation rows
    latency_ms: dict[str, float]  # p50, p95 of one row, where it was exported
    threshold: float  # below it the answer is "don't know"; 0 where there is none
    batch_rows: int  # items that are answered at once
    batch_gap: float  # by how much a probability differed in a batch from alone, at the export or at the start

    @classmethod
    def read(cls, predictor: Predictor, *, rows: int, gap: float) -> Facts:
        """From the verdict beside the model.

        Raises:
            ArtefactError: it does not hold what it should.
        """
        path = predictor.folder / folder.VERDICT
        verdict = manifest.read_json(path)
        try:
            chosen = next(each for each in verdict["variants"] if each["name"] == predictor.name)
            score = {key: float(chosen["score"][key]) for key in ("value", "low", "high", "n")}
            latency = {key: float(chosen["speed"]["one"][f"{key}_ms"]) for key in ("p50", "p95")}
            place = predictor.folder.resolve()
            return cls(
                name=place.parent.name if place.name == folder.EXPORT else place.name,
                modality=predictor.modality,
                texts=getattr(predictor.contract.spec, "texts", None) or 1,
                classes=predictor.classes,
                variant=predictor.name,
                runtime=predictor.variant.runtime,
                precision=predictor.variant.precision,
                bytes=int(chosen["bytes"]),
                metric=str(verdict["metric"]),
                score=score,
                latency_ms=latency,
                threshold=predictor.threshold,
                batch_rows=rows,
                batch_gap=gap,
            )
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise ArtefactError(f"not a verdict ({error})", where=str(path)) from error

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
