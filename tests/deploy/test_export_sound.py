"""Exports of networks that hear: recordings of any length, windows averaged inside the graph, answers without torch."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
import torch
from onnx import TensorProto, numpy_helper

import headstart
from headstart.core.run import Run
from headstart.data.modalities import audio
from headstart.data.modalities.audio import AudioSpec
from headstart.deploy import contract, folder, graph
from headstart.deploy.predictor import Predictor
from headstart.models import backbone as backbones
from headstart.models.backbone import Backbone
from headstart.models.intakes.audio import Intake
from headstart.workflows import ship

from .. import sounds
from ..models import sounds_zoo
from . import torchless
from .conftest import QUICK
from .parity import differences, dimensions, lively

SECONDS = 0.25


def made(family: str, place: Path) -> Backbone:
    """A small network: the user's own, or a random one of transformers."""
    if family == "own":
        return backbones.load(sounds.ear(), seconds=SECONDS).eval()
    own = {} if family == "whisper" else {"seconds": SECONDS}  # Whisper hears windows of one length alone
    return sounds_zoo.make(family, place, **own)


def recordings(count: int, spec: AudioSpec) -> list[np.ndarray]:
    """What networks are given of recordings from a tenth of a window to three and a half, most shorter than one."""
    rng = np.random.default_rng(5)
    shares = np.concatenate([np.linspace(0.1, 1, count - count // 3), np.linspace(1.05, 3.5, count // 3)])
    values = []
    for row, share in enumerate(rng.permutation(shares)):
        kind = sounds.KINDS[row % len(sounds.KINDS)]
        seconds = share * spec.window / spec.rate
        values.append(audio.prepare((sounds.recording(kind, rng, seconds), sounds.RATE), spec))
    return values


def batches(count: int, spec: AudioSpec) -> list[np.ndarray]:
    """Batches of seven, rows of one and of several windows mixed; the last ones of a row each."""
    values = recordings(count, spec)
    cut = count - 9
    found = [audio.collate(values[start : min(start + 7, cut)]) for start in range(0, cut, 7)]
    return found + [audio.collate([value]) for value in values[cut:]]


SLOW = pytest.mark.slow


@pytest.mark.parametrize("family", ["own", pytest.param("wav2vec2", marks=SLOW), pytest.param("ast", marks=SLOW)])
def test_recordings_are_answered_as_by_torch(family: str, tmp_path: Path) -> None:
    backbone = made(family, tmp_path)
    given = batches(100, backbone.spec)
    widths = {-(-batch.shape[1] // backbone.spec.window) for batch in given}
    assert widths >= {1, 2, 4}
    model = lively(backbone, given, sounds.KINDS)
    graph.write(model, tmp_path / "m.onnx")
    assert dimensions(tmp_path / "m.onnx") == ["rows", "length"]
    changed, largest = differences(model, tmp_path / "m.onnx", given)
    assert changed == 0
    assert largest <= 1e-4
    assert contract.read(tmp_path / "m.onnx") == graph.contract_of(model)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["own", *sounds_zoo.FAMILIES])
def test_a_thousand_recordings_are_answered_as_by_torch(family: str, tmp_path: Path) -> None:
    backbone = made(family, tmp_path)
    given = batches(1000, backbone.spec)
    model = lively(backbone, given[:20], sounds.KINDS)
    graph.write(model, tmp_path / "m.onnx")
    changed, largest = differences(model, tmp_path / "m.onnx", given)
    assert changed == 0
    assert largest <= 1e-4


@pytest.mark.slow
def test_planted_faults_another_padding_and_windows_of_equal_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = made("own", tmp_path)
    given = batches(30, backbone.spec)
    model = lively(backbone, given, sounds.KINDS)
    graph.write(model, tmp_path / "m.onnx")
    other = onnx.load(tmp_path / "m.onnx")
    marks = [each for each in other.graph.initializer if each.data_type == TensorProto.INT32]
    for mark in marks:
        values = numpy_helper.to_array(mark)
        mark.CopyFrom(numpy_helper.from_array(np.where(values == audio.PAD, 0, values).astype(np.int32), mark.name))
    assert any((numpy_helper.to_array(mark) == 0).any() for mark in marks)
    onnx.save(other, tmp_path / "padding.onnx")
    assert differences(model, tmp_path / "padding.onnx", given)[1] > 1e-3

    heard = Intake._heard
    monkeypatch.setattr(
        Intake, "_heard", lambda self, *given: heard(self, *given) * (1.1 if torch.compiler.is_exporting() else 1.0)
    )
    graph.write(model, tmp_path / "louder.onnx")
    assert differences(model, tmp_path / "louder.onnx", given)[1] > 1e-3


def test_the_form_for_graphs_gives_the_same_in_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("own", "wav2vec2"):
        backbone = made(family, tmp_path / family)
        for batch in batches(30, backbone.spec):
            inputs = torch.from_numpy(batch)
            with torch.no_grad():
                wanted = backbone.features(inputs)
                with monkeypatch.context() as patch:
                    patch.setattr(torch.compiler, "is_exporting", lambda: True)
                    found = backbone.features(inputs)
            assert torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A probe on recordings with a tiny random wav2vec2, most of them longer than the window; with its export."""
    place = tmp_path_factory.mktemp("sounds")
    sounds.folder(place / "recordings", each=20)
    own = {"device": "cpu", "precision": "fp32", "force": True, "baseline": False, "on_event": lambda event: None}
    fitted = headstart.fit(
        str(place / "recordings"),
        backbone=str(sounds_zoo.saved("wav2vec2", place / "network")),
        plan="probe",
        seconds=SECONDS,
        output_dir=str(place / "runs"),
        **own,
    )
    ship.export(fitted, settings=QUICK)
    return fitted


def test_files_are_answered_without_torch(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    for kind in sounds.KINDS:
        for seconds in (0.1, 0.4, 0.9):
            file = tmp_path / "new" / f"{kind}{seconds}.wav"
            file.parent.mkdir(exist_ok=True)
            soundfile.write(file, sounds.recording(kind, rng, seconds), sounds.RATE)
    (tmp_path / "new" / "zero.wav").write_bytes(b"RIFF no sound")
    table = tmp_path / "found.csv"
    done = torchless.command("predict", str(run.path / "export"), str(tmp_path / "new"), "--output", str(table))
    assert done.returncode == 0, done.stderr
    with open(table, newline="") as file:
        found = list(csv.DictReader(file))
    wanted = headstart.load(run).predict(str(tmp_path / "new"))
    assert [row["label"] for row in found] == [row.label for row in wanted]
    assert [bool(row["problem"]) for row in found] == [bool(row.problem) for row in wanted]
    assert sum(bool(row["problem"]) for row in found) == 1
    assert len({row["label"] for row in found}) > 2


def test_the_plain_file_gives_the_probabilities_of_torch(run: Run) -> None:
    source = str(run.path.parents[1] / "recordings")
    found = Predictor(run.path / "export", variant="onnxruntime fp32", threads=1).predict(source)
    for mine, theirs in zip(found, headstart.load(run).predict(source), strict=True):
        assert dict(mine.scores) == pytest.approx(dict(theirs.scores), abs=1e-4)
    verdict = folder.read_verdict(run.path / "export")
    assert {each["file"] for each in (*verdict["variants"], *verdict["gone"])} > {folder.FLOAT}
