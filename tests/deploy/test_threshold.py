""" "Don't know": what an export answers is what its verdict says of the validation rows, at any temperature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import headstart
from headstart.core import manifest
from headstart.core.run import Run
from headstart.data import sources
from headstart.deploy import predictor
from headstart.deploy.folder import VERDICT
from headstart.models.model import Model
from headstart.workflows import ship

from .conftest import CLASSES, draw


def tempered(run: Run, temperature: float) -> None:
    """The model of a run whose calibration came to something else."""
    model = Model.load(run.model_folder)
    model.temperature = temperature
    model.save(run.model_folder, examples=torch.from_numpy(model.backbone.spec.noise(2)))
    run.write("result.json", {**run.read("result.json"), "temperature": temperature})


@pytest.fixture
def noisy(tmp_path: Path) -> Callable[..., Run]:
    """Pictures of which a third are filed wrongly, and a probe that cannot tell."""
    folder, rng = draw(tmp_path / "photos", 40), np.random.default_rng(3)
    for file in sorted(folder.glob("*/*.png")):
        if rng.random() < 0.35:
            file.rename(folder / CLASSES[rng.integers(3)] / f"moved-{file.parent.name}-{file.name}")
    quick = {"image_size": 32, "device": "cpu", "precision": "fp32", "baseline": False, "normalisation_check": False}
    own = {"output_dir": str(tmp_path / "runs"), "on_event": lambda event: None, "val": 0.5, "test": 0}
    return lambda: headstart.fit(str(folder), backbone="builtin/tiny", plan="probe", force=True, **quick, **own)


@pytest.mark.parametrize("temperature", [0.4, 5.0])
def test_what_is_answered_is_what_the_verdict_says(noisy: Callable[..., Run], temperature: float) -> None:
    run = noisy()
    tempered(run, temperature)
    settings = ship.Settings(threads=1, seconds=0.02, int8=False, precision=0.75, runtimes=("onnxruntime",))
    place = ship.export(run, settings=settings)
    told = manifest.read_json(place / VERDICT)
    threshold = told["variants"][0]["threshold"]
    assert 0 < threshold["coverage"] < 1, "the toy is not hard enough"
    names = run.read("rows.json")["val"]
    source = Path(run.read("data.json")["source"])
    answers = headstart.load(place).predict([source / name for name in names])
    answered = [(each, name) for each, name in zip(answers, names, strict=True) if not each.problem]
    assert len(answered) / len(names) == pytest.approx(threshold["coverage"])
    right = [each.label == Path(name).parent.name for each, name in answered]
    assert np.mean(right) == pytest.approx(threshold["precision"]["value"])


def test_labels_are_judged_as_they_are_given(tmp_path: Path) -> None:
    """Of several, from a threshold on: dividing logits by the temperature changes which these are."""
    draw(tmp_path / "photos", 30)
    rng, lines = np.random.default_rng(5), ["image,labels"]
    for file in sorted((tmp_path / "photos").glob("*/*.png")):
        marks = [name for name in CLASSES if (name == file.parent.name) != (rng.random() < 0.25)]
        lines.append(f"{file.relative_to(tmp_path)},{'|'.join(marks)}")
    (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
    quick = {"image_size": 32, "device": "cpu", "precision": "fp32", "baseline": False, "normalisation_check": False}
    quick |= {"output_dir": str(tmp_path / "runs"), "on_event": lambda event: None, "val": 0.5, "test": 0}
    own = {"task": "multilabel", "threshold": 0.3, "metric": "macro_f1"}
    run = headstart.fit(str(tmp_path / "table.csv"), backbone="builtin/tiny", plan="probe", force=True, **quick, **own)
    tempered(run, 4.0)
    place = ship.export(run, settings=ship.Settings(threads=1, seconds=0.02, int8=False, runtimes=("onnxruntime",)))
    told = manifest.read_json(place / VERDICT)
    names = run.read("rows.json")["val"]
    given = headstart.load(place).predict([tmp_path / name for name in names])
    rows = sources.read_unlabelled([str(tmp_path / name) for name in names])
    assert len(rows) == len(given)
    wanted = {line.split(",")[0]: set(line.split(",")[1].split("|")) - {""} for line in lines[1:]}
    scores = []
    for name in CLASSES:
        pairs = [(name in each.labels, name in wanted[row]) for each, row in zip(given, names, strict=True)]
        scores.append(2 * sum(a and b for a, b in pairs) / sum(a + b for a, b in pairs))
    for score in (told["reference"], told["variants"][0]["score"]):
        assert score["value"] == pytest.approx(np.mean(scores))


def test_every_variant_has_its_own_threshold() -> None:
    told = [{"name": "fp32", "threshold": {"value": 0.2}}, {"name": "int8", "threshold": {"value": 0.7}}, {"name": "x"}]
    found = [predictor._threshold({"variants": told}, name) for name in ("fp32", "int8", "x")]
    assert found == [0.2, 0.7, 0.0]
