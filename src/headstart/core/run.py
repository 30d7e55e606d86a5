"""The folder of one run: the only thing that layers above the engine share."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import manifest, notebook
from headstart.core.errors import ArtefactError, ConfigError
from headstart.core.events import Decision, Event
from headstart.core.storage import placed

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """Everything one run leaves behind; all paths inside are relative, so the folder can be moved.

    ``experiment.yaml``, ``environment.json``, ``data.json``, ``events.jsonl``, ``decisions.json``,
    ``stages/00-probe/{result.json, predictions.npz, state/}``, ``result.json``, ``report.html``, ``model/`` …
    """

    def __init__(self, path: str | Path) -> None:
        self.path = self.place(path)

    @staticmethod
    def place(run: str | Path | Run) -> Path:
        """The folder that is meant.

        Raises:
            ConfigError: it is neither a path nor a run.
        """
        if isinstance(run, Run):
            return run.path
        if not isinstance(run, (str, os.PathLike)) or not str(run).strip():
            what = f"a run is named by its folder, not by {run!r} (a {type(run).__name__})"
            raise ConfigError(what, where="run", remedy="give what fit returned, or the folder that it printed")
        return Path(run)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run.

        Raises:
            ArtefactError: ``path`` holds no run.
        """
        run = cls(path)
        if not (run.path / "experiment.yaml").is_file():
            inside = run.path.parent if (run.path.parent / "experiment.yaml").is_file() else "runs/photos"
            raise ArtefactError(
                "this folder holds no run (experiment.yaml is missing)",
                where=str(path),
                remedy=f"give the folder that `headstart fit` printed, such as {inside}",
            )
        return run

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def model_folder(self) -> Path:
        return self.path / "model"

    def record(self, event: Event) -> None:
        """Append an event to ``events.jsonl`` with the seconds since the epoch."""
        if not event.recorded:
            return
        if isinstance(event, Decision):
            decisions = self.read("decisions.json", default=[])
            self.write("decisions.json", [*decisions, {"time": time.time(), **asdict(event)}])
        line = json.dumps({"time": time.time(), **event.as_json()}, default=manifest.plain, ensure_ascii=False)
        self.path.mkdir(parents=True, exist_ok=True)
        with placed(self.path / "events.jsonl"), open(self.path / "events.jsonl", "ab") as file:
            file.write((line + "\n").encode("utf-8", "backslashreplace"))

    def clear_leftovers(self) -> None:
        """Remove what a killed process left half-written, so that nothing is appended to half a line either."""
        for left in self.path.rglob(".*.tmp-*"):
            manifest.remove(left)
        file = self.path / "events.jsonl"
        whole = file.read_bytes() if file.is_file() else b""
        if whole and not whole.endswith(b"\n"):
            manifest.write_bytes(file, whole[: whole.rfind(b"\n") + 1])

    def events(self) -> list[dict[str, Any]]:
        """All recorded events, oldest first; a half-written last line (after a crash) is left out."""
        file = self.path / "events.jsonl"
        if not file.is_file():
            return []
        found = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return found

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file of the run atomically."""
        manifest.write_json(self.path / name, value)

    def read(self, name: str, default: Any = None) -> Any:
        """Read a JSON file of the run; ``default`` where it does not exist."""
        return manifest.read_json(self.path / name) if (self.path / name).is_file() else default

    @property
    def test_reads(self) -> int:
        """How often the test rows were read: once by an honest run, and once by every ``evaluate`` since."""
        return int(self.read("test_reads.json", default={"reads": 0})["reads"])

    def count_test_read(self) -> None:
        """Write down that the test rows are about to be read."""
        self.write("test_reads.json", {"reads": self.test_reads + 1})
        result = self.read("result.json")
        if result is not None:
            self.write("result.json", {**result, "test_reads": self.test_reads})

    def stage_folder(self, index: int, name: str) -> Path:
        return self.path / "stages" / f"{index:02d}-{name}"

    def is_done(self, index: int, name: str) -> bool:
        """Whether the stage is complete: its manifest is written last."""
        return manifest.is_sealed(self.stage_folder(index, name))

    def stages(self) -> list[dict[str, Any]]:
        """The result of every complete stage, in order, each with its ``folder`` relative to the run."""
        results = []
        for folder in sorted((self.path / "stages").glob("[0-9][0-9]*-*")):
            if manifest.is_sealed(folder):
                result = manifest.read_json(folder / "result.json")
                results.append({**result, "folder": folder.relative_to(self.path).as_posix()})
        return results

    def best(self) -> dict[str, Any] | None:
        """The stage whose model the run kept last, or None while there is none."""
        kept = [stage for stage in self.stages() if stage["verdict"]["decision"] == "keep"]
        return kept[-1] if kept else None

    @property
    def beaten_by(self) -> str | None:
        """The baseline that no stage beat on validation rows; None where one did. Of folds: where it was so in all."""
        folds = [fold["beaten_by"] for fold in self.read("folds.json", default={"folds": []})["folds"]]
        if folds:
            return str(folds[0]) if all(folds) else None
        return self.read("result.json", default={}).get("beaten_by") or None

    def frame(self) -> pd.DataFrame:
        """A DataFrame of the baselines, then the stages: what trained, how long, every validation metric with its
        interval, the verdict.

        Of a cross-validated run it holds the folds, with the scores of their test rows, their mean, all rows, and what
        the baselines reach on all rows.
        """
        import pandas as pd

        return pd.DataFrame(self._lines())

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        lines = self._lines()
        metric = lines[-1]["metric"] if lines else ""
        titles = {f"{metric}_low": "95 % from", f"{metric}_high": "to"}
        order = ["fold", "best", "stage", "trainable", "updates", "seconds", metric, *titles, "verdict"]
        shown = [name for name in order if any(name in line for line in lines)]
        test = (self.read("result.json", default={}).get("metrics") or {}).get("test") or {}
        told = f": {metric} {test[metric]['value']:.4g} on {test[metric]['n']} test rows" if metric in test else ""
        cells = ([line.get(name, "") for name in shown] for line in lines)
        return notebook.table([titles.get(name, name) for name in shown], cells, f"{self.path}{told}")

    def _lines(self) -> list[dict[str, Any]]:
        """The baselines and the stages, or the folds, as flat rows."""
        found = self.read("folds.json")
        if found is None:
            stages = [_stage(stage) for stage in self.stages()]
            beside = self.read("baseline/result.json", default=[]) if stages else []
            return [*({**_baseline(each), "metric": stages[-1]["metric"]} for each in beside), *stages]
        judged = {"metric": found["metric"]}
        folds = [
            {"fold": fold["name"], "best": fold["best"], "seconds": fold["seconds"], **_flat(fold["metrics"]), **judged}
            for fold in found["folds"]
        ]
        means = {"fold": "mean of the folds", **_flat(found["mean"]), **judged}
        pooled = {"fold": "all rows", **_flat(found["pooled"]), **judged}
        beside = [
            {"fold": f"all rows: {each['name']}", **_flat(each["metrics"]), **judged}
            for each in found.get("baselines") or []
        ]
        return [*folds, means, pooled, *beside]


def _stage(stage: dict[str, Any]) -> dict[str, Any]:
    """One line of ``frame``."""
    chosen = ("method", "trainable", "frozen_blocks", "blocks", "updates", "epochs", "seconds")
    verdict = stage["verdict"]
    told = {"verdict": verdict["decision"], "reason": verdict["reason"], "metric": verdict["metric"]}
    return {"stage": stage["name"], **{key: stage[key] for key in chosen}, **_flat(stage["metrics"]["val"]), **told}


def _baseline(found: dict[str, Any]) -> dict[str, Any]:
    """One line of ``frame``: of the network nothing trains."""
    nothing = dict.fromkeys(("trainable", "frozen_blocks", "blocks", "updates", "epochs"), 0)
    told = {"verdict": "baseline", "reason": "no backbone"}
    named = {"stage": found["name"], "method": "baseline", **nothing, "seconds": found["seconds"]}
    return {**named, **_flat(found["metrics"]), **told}


def _flat(metrics: dict[str, dict[str, float]]) -> dict[str, float]:
    """``accuracy``, ``accuracy_low``, ``accuracy_high`` and so on."""
    found: dict[str, float] = {}
    for name, measured in metrics.items():
        found |= {name: measured["value"], f"{name}_low": measured["low"], f"{name}_high": measured["high"]}
    return found
