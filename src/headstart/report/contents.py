"""What a run folder holds, read once; what is missing or damaged becomes a sentence, never an error.

Shapes: N rows, K classes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headstart.core.errors import HeadstartError
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Difference
from headstart.measure.metrics import NAMES
from headstart.measure.metrics import usual as usual_metric
from headstart.report.exhibits import SUFFIXES
from headstart.report.formats import higher_is_better

LARGEST_PREVIEW = 300_000  # bytes; larger files are no thumbnails

PREPARED = {
    "image": "After resizing and cropping, before normalisation",
    "text": "Divided into tokens, cut where they are too many",
    "audio": "One channel at the network's own rate (played at 8 kHz here), before normalisation",
}


@dataclass(frozen=True)
class Contents:
    """Everything the report shows comes from here."""

    name: str
    experiment: dict[str, Any]
    experiment_text: str
    environment: dict[str, Any]
    data: dict[str, Any]
    rows: dict[str, list[str]]
    baselines: list[dict[str, Any]]
    baseline_answers: dict[str, Evaluation]
    stages: list[dict[str, Any]]
    events: list[dict[str, Any]]
    decisions: list[dict[str, Any]]
    result: dict[str, Any] | None
    origin: dict[str, Any]  # where the backbone came from
    functions: dict[str, Any]  # of the user's own, by their place in the settings
    best: dict[str, Any] | None  # the stage whose model the run kept
    val: Evaluation | None  # of the best stage
    test: Evaluation | None
    previews: dict[tuple[str, int], Path]
    network: list[Path]  # rows as the network gets them
    missing: tuple[str, ...] = field(default=())
    exported: dict[str, Any] = field(default_factory=dict)  # the verdict on the exported files

    @property
    def shown(self) -> Evaluation | None:
        """The rows that the details are about: test where there is one, validation otherwise."""
        return self.test or self.val

    @property
    def metric(self) -> str:
        """The metric that the run was judged by; the usual one where the stored scores do not hold that one."""
        verdict = (self.best or {}).get("verdict") or {}
        chosen = (self.result or {}).get("metric") or verdict.get("metric") or self.experiment.get("metric")
        stored = [(self.best or {}).get("metrics", {}).get("val"), (self.result or {}).get("metrics", {}).get("test")]
        usual = "accuracy" if self.val is None else str(usual_metric("auto", self.val.labels))
        if not isinstance(chosen, str) or chosen == "auto":
            return usual
        return chosen if all(measured(scores, chosen) for scores in stored if scores) else usual

    def score(self, split: str) -> dict[str, Any] | None:
        """The run's metric of the best stage on ``val``, or of the final model on ``test``: value, low, high, n."""
        source = self.result if split == "test" else self.best
        return measured(((source or {}).get("metrics") or {}).get(split), self.metric)

    @property
    def best_baseline(self) -> dict[str, Any] | None:
        """The baseline with the best score, or None."""
        scored = [entry for entry in self.baselines if measured(entry.get("metrics"), self.metric)]
        sign = 1 if higher_is_better(self.metric) else -1
        return max(scored, key=lambda entry: sign * entry["metrics"][self.metric]["value"], default=None)

    @property
    def baseline_on_test(self) -> dict[str, Any] | None:
        """The baseline that is best on validation rows, on the test rows: name, metrics, and the model's gain."""
        for found in (self.result or {}).get("baselines") or []:
            gain = found.get("gain") if isinstance(found, dict) else None
            whole = isinstance(gain, dict) and gain.keys() == {"value", "low", "high", "p", "n"}
            return found if whole and measured(found.get("metrics"), self.metric) else None
        return None

    def against_baseline(self) -> Difference | None:
        """The best stage minus the best baseline, paired on validation rows; None without the baseline's answers."""
        if self.best_baseline is None or self.val is None or self.metric not in NAMES:
            return None
        answers = self.baseline_answers.get(str(self.best_baseline.get("name")))
        try:
            return None if answers is None else self.val.compare(answers, self.metric)
        except HeadstartError:
            return None

    @property
    def backbone(self) -> str:
        """What was trained: what the model came from, else what was asked for or chosen; "" where nothing says it."""
        chosen = (d.get("choice") for d in self.decisions if isinstance(d, dict) and d.get("topic") == "backbone")
        return str(self.origin.get("uri") or self.experiment.get("backbone") or next(chosen, None) or "")

    @property
    def noun(self) -> str:
        """What one row is called."""
        return {"image": "picture", "text": "text", "audio": "recording"}.get(self.modality, "row")

    @property
    def modality(self) -> str:
        found = str(self.data.get("modality"))
        return found if found in PREPARED else ""

    @property
    def prepared(self) -> str:
        """What was done to a row before the network gets it."""
        return PREPARED.get(self.modality, "As it is given")


def measured(metrics: dict[str, Any] | None, name: str) -> dict[str, Any] | None:
    """A metric of a stored mapping: value, low, high, n; None where it is not there."""
    found = (metrics or {}).get(name)
    return found if isinstance(found, dict) and found.keys() >= {"value", "low", "high", "n"} else None


class _Reader:
    """Reads parts of a run and notes what could not be read."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.missing: list[str] = []

    def json(self, name: str, kind: type, needed: str = "") -> Any:
        """A JSON file of the expected kind; empty where it is missing (said if ``needed``) or damaged."""
        try:
            value = self.run.read(name)
        except (HeadstartError, OSError):
            self.missing.append(f"{name} is damaged and was left out")
            return kind()
        if value is None and needed:
            self.missing.append(needed)
        return value if isinstance(value, kind) else kind()

    def evaluation(self, name: str) -> Evaluation | None:
        if not (self.run.path / name).is_file():
            return None
        try:
            return Evaluation.load(self.run.path / name)
        except HeadstartError:
            self.missing.append(f"{name} is damaged and was left out")
            return None

    def experiment(self) -> tuple[dict[str, Any], str]:
        try:
            text = (self.run.path / "experiment.yaml").read_text(encoding="utf-8")
            value = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            self.missing.append("experiment.yaml cannot be read")
            return {}, ""
        return (value if isinstance(value, dict) else {}), text

    def stages(self) -> list[dict[str, Any]]:
        try:
            return self.run.stages()
        except (HeadstartError, OSError):
            self.missing.append("the stages are damaged and were left out")
            return []


def read(run: Run) -> Contents:
    """Everything of a run that the report needs."""
    reader = _Reader(run)
    experiment, text = reader.experiment()
    result = reader.json("result.json", dict) or None
    stages = reader.stages()
    best = _best(stages, result)
    val = reader.evaluation(f"{best['folder']}/predictions.npz") if best else None
    stored = {file.stem: reader.evaluation(f"baseline/{file.name}") for file in run.path.glob("baseline/*.npz")}
    return Contents(
        name=run.name,
        experiment=experiment,
        experiment_text=text,
        environment=reader.json("environment.json", dict, "environment.json is missing: the machine is not known"),
        data=reader.json("data.json", dict, "data.json is missing: the data and its audit are not known"),
        rows=reader.json("rows.json", dict),
        baselines=reader.json("baseline/result.json", list),
        baseline_answers={name: answers for name, answers in stored.items() if answers is not None},
        stages=stages,
        events=run.events(),
        decisions=reader.json("decisions.json", list),
        result=result,
        origin=reader.json("model/headstart.json", dict).get("origin") or {},
        functions=reader.json("identity.json", dict).get("functions") or {},
        best=best,
        val=val,
        test=reader.evaluation("predictions-test.npz"),
        previews=_previews(run.path / "previews"),
        network=_network(run.path / "previews"),
        exported=reader.json("export/verdict.json", dict),
        missing=tuple(reader.missing),
    )


def _best(stages: list[dict[str, Any]], result: dict[str, Any] | None) -> dict[str, Any] | None:
    """The stage that the result names, else the last one that was kept."""
    named = [stage for stage in stages if result and stage.get("name") == result.get("best")]
    kept = [stage for stage in stages if stage.get("verdict", {}).get("decision") == "keep"]
    return next(reversed(named or kept), None)


def _previews(folder: Path) -> dict[tuple[str, int], Path]:
    """What there is to show, by (split, row)."""
    found = {}
    for file in sorted(folder.glob("*-*")):
        match = re.fullmatch(r"([a-z]+)-(\d+)", file.stem) if file.suffix in SUFFIXES else None
        if match and match[1] != "network" and _small(file):
            found[match[1], int(match[2])] = file
    return found


def _network(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("network-*") if file.suffix in SUFFIXES and _small(file))


def _small(file: Path) -> bool:
    return file.is_file() and file.stat().st_size <= LARGEST_PREVIEW
