"""The built-in backbones on the whole path: trained, exported, in eight bits, asked without torch, made for the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.core.run import Run
from headstart.deploy import folder, graph
from headstart.deploy.predictor import Predictor
from headstart.models import backbone as backbones
from headstart.models import shipped
from headstart.workflows import push, ship

from .. import sounds, standins, words
from .conftest import QUICK, draw
from .parity import differences, lively
from .test_export_sound import batches

SHORT = [{"probe": {}}, {"thaw": {"blocks": "all", "epochs": 1}}]


@pytest.fixture(autouse=True)
def _standins(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", standins.write(tmp_path_factory.mktemp("builtin")))


def rows(modality: str, place: Path) -> Path:
    """A small labelled set of the modality."""
    if modality == "image":
        return draw(place / "photos", 16)
    if modality == "audio":
        return sounds.folder(place / "recordings", each=16)
    texts, labels = words.reviews(120, seed=2)
    lines = [f"{one}\t{label}" for one, label in zip(texts, labels, strict=True)]
    (place / "reviews.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place / "reviews.tsv"


@pytest.mark.slow
def test_recordings_are_answered_as_by_torch(tmp_path: Path) -> None:
    backbone = backbones.load("builtin/audio", seconds=0.5).eval()
    given = batches(100, backbone.spec)
    model = lively(backbone, given, sounds.KINDS)
    graph.write(model, tmp_path / "m.onnx")
    silent = [np.zeros((rows, length), np.int16) for rows, length in ((2, backbone.spec.window), (1, 30_000))]
    silent.append(given[0].copy())
    silent[-1][0] = 0  # one of them
    changed, largest = differences(model, tmp_path / "m.onnx", [*given, *silent])
    assert changed == 0
    assert largest <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_the_whole_path(modality: str, tmp_path: Path) -> None:
    run = headstart.fit(
        str(rows(modality, tmp_path)),
        backbone=f"builtin/{modality}",
        plan=SHORT,
        output_dir=str(tmp_path / "runs"),
        device="cpu",
        precision="fp32",
        force=True,
        on_event=lambda event: None,
    )
    facts = json.loads((run.model_folder / "headstart.json").read_text())
    assert facts["origin"]["uri"] == f"builtin/{modality}"
    assert shipped.card(modality).data in (run.path / "report.html").read_text()
    place = ship.export(run, settings=QUICK)
    verdict = folder.read_verdict(place)
    assert verdict["accepted"]
    assert {folder.INT8, folder.HALF} & {each["file"] for each in verdict["variants"]}, "something smaller was judged"
    asked = asking(modality, tmp_path)
    ours, theirs = Predictor(place).predict([asked]), headstart.predict(run, [asked])
    assert ours[0].scores[0][0] == theirs[0].scores[0][0]
    assert ours[0].scores[0][1] == pytest.approx(theirs[0].scores[0][1], abs=0.1)
    opens_elsewhere(modality, run)


def asking(modality: str, place: Path) -> str:
    if modality == "text":
        return "we found the film great and lovely"
    return str(next(file for file in sorted(place.rglob("*.*")) if file.suffix in (".png", ".wav")))


def opens_elsewhere(modality: str, run: Run) -> None:
    """What is published opens in the network's own library where head and pooling are native to it."""
    hub = push.prepare(run, "me/toy", licence=None, allow_module=False, emit=lambda event: None)
    told = (hub / "README.md").read_text()
    assert "license: apache-2.0" in told
    assert shipped.card(modality).data in told
    assert f"library_name: {'timm' if modality == 'image' else 'headstart'}" in told
    assert "base_model:" not in told, "it is on no hub"
