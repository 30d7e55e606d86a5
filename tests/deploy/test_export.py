"""Exports: torch's answers, nothing of the machine in the files, and planted faults that have to be refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

import headstart
from headstart.core import manifest
from headstart.core.errors import ArtefactError, ConfigError, NothingAccepted
from headstart.core.events import Event
from headstart.core.run import Run
from headstart.data.modalities.image import ImageSpec
from headstart.deploy import contract, folder, graph
from headstart.deploy.predictor import Predictor, Variant, open_session
from headstart.deploy.runtimes import onnxruntime
from headstart.deploy.runtimes.base import Session
from headstart.measure.metrics import softmax
from headstart.models import backbone as backbones
from headstart.models import heads
from headstart.models.model import Model
from headstart.workflows import judging, ship
from headstart.workflows.judging import Judge
from headstart.workflows.predict import load

from .conftest import QUICK, draw

SETTINGS = ship.Settings(threads=1, seconds=0.05)


def lively(name: str, size: int) -> Model:
    """A network with random weights that does not say the same of everything: its BatchNorm has seen data, and its head
    is centred on them."""
    torch.manual_seed(0)
    backbone = backbones.load(name, image_size=size, pretrained=False)
    head = heads.build("linear", backbone.feature_dim, 5, classes=tuple("abcde"), seed=0)
    torch.nn.init.normal_(head.last.weight)
    model = Model(backbone, head, tuple("abcde"), bn="train", temperature=0.7)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None  # the mean over all it sees
    seen = torch.from_numpy(pictures(32, size, seed=1))
    with torch.no_grad():
        model.train()(seen)
        head.last.bias -= model.eval()(seen).mean(dim=0)
    return model


def pictures(count: int, size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    noise = rng.integers(0, 64, (count, 3, size, size), dtype=np.uint8)
    return coarse.repeat(size // 8, axis=2).repeat(size // 8, axis=3) // 2 + noise


def gap(name: str, path: Path, count: int, size: int = 32) -> tuple[int, float]:
    """Decisions that differ from torch's, and the largest difference of logits relative to the largest."""
    model, inputs = lively(name, size), pictures(count, size)
    graph.write(model, path)
    session = onnxruntime.load(path, threads=1)
    wanted = graph.golden(model, inputs)
    found = [session(inputs[start : start + 7]) for start in range(0, count, 7)]  # no batch of the example's size
    logits, shares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert np.allclose(shares, softmax(logits / 0.7), atol=1e-5), "the temperature stands inside"
    assert len(np.unique(logits.argmax(axis=1))) > 1, "a network that always says the same proves nothing"
    return int((logits.argmax(axis=1) != wanted.logits.argmax(axis=1)).sum()), wanted.gap(logits)


def test_a_hundred_pictures_are_answered_as_by_torch(tmp_path: Path) -> None:
    changed, largest = gap("builtin/tiny", tmp_path / "m.onnx", 100)
    assert changed == 0
    assert largest <= 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["builtin/tiny", "torchvision/mobilenet_v2", "torchvision/resnet18"])
def test_a_thousand_pictures_are_answered_as_by_torch(name: str, tmp_path: Path) -> None:
    changed, largest = gap(name, tmp_path / "m.onnx", 1000, 64)
    assert changed == 0
    assert largest <= 1e-4


class Counting(torch.nn.Module):
    """Takes the number of rows for a plain number, which an exported graph keeps."""

    spec = ImageSpec(size=(8, 8), resize=8)

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(192, 8)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layer(pictures.reshape(len(pictures), -1))


def test_a_network_that_fixes_the_number_of_rows_is_refused(tmp_path: Path) -> None:
    backbone = backbones.load(Counting())
    model = Model(backbone, heads.build("linear", backbone.feature_dim, 2), ("a", "b")).eval()
    with pytest.raises(ArtefactError, match="fixed number of rows"):
        graph.write(model, tmp_path / "m.onnx")


def test_inputs_that_do_not_fit_are_answered_by_an_error_of_ours(exported: Path) -> None:
    session = onnxruntime.load(exported / folder.FLOAT, threads=1)
    with pytest.raises(ArtefactError, match=r"cannot answer inputs of shape \(1, 5, 8, 8\)"):
        session(np.zeros((1, 5, 8, 8), np.uint8))


def test_the_export_is_whole_and_says_what_it_is(toy_run: Run, exported: Path) -> None:
    verdict = folder.read_verdict(exported)
    model = load(toy_run).model
    assert verdict["accepted"]
    assert {each["file"] for each in verdict["variants"]} == {file.name for file in exported.glob("*.onnx")}
    for file in exported.glob("*.onnx"):
        assert contract.read(file) == graph.contract_of(model)
    assert not list(toy_run.path.glob(".export*")), "a draft was left behind"
    plain = next(each for each in verdict["variants"] if each["name"] == "onnxruntime fp32")
    assert plain["accepted"]
    assert plain["agreement"]["value"] == 1
    assert "several of them" not in (exported / folder.README).read_text()


def test_nothing_of_this_machine_is_in_the_files(toy_run: Run, exported: Path) -> None:
    for file in exported.iterdir():
        data = file.read_bytes()
        for secret in (str(Path.home()), str(Path.cwd()), str(toy_run.path), "site-packages", "torch/nn"):
            assert secret.encode() not in data, f"{file.name} tells {secret}"


def test_the_same_model_gives_the_same_bytes(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    graph.write(load(toy_run).model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (exported / folder.FLOAT).read_bytes()


def altered(place: Path, file: str, change: Callable[[onnx.ModelProto], None]) -> None:
    made = onnx.load(place / file)
    change(made)
    onnx.save(made, place / file)


def constant_of(made: onnx.ModelProto, kind: str, turn: int = 0) -> onnx.TensorProto:
    """The constant that the first node of an operator reads."""
    node = [node for node in made.graph.node if node.op_type == kind][turn]
    return next(tensor for tensor in made.graph.initializer if tensor.name in node.input[1:])


def put(tensor: onnx.TensorProto, values: np.ndarray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), tensor.name))


def another_mean(made: onnx.ModelProto) -> None:
    mean = constant_of(made, "Sub")
    put(mean, numpy_helper.to_array(mean) * np.float32(0.8))


def turned_channels(made: onnx.ModelProto) -> None:
    first = constant_of(made, "Conv")
    put(first, numpy_helper.to_array(first)[:, ::-1])


def swapped_labels(made: onnx.ModelProto) -> None:
    stored = json.loads(made.metadata_props[0].value)
    stored["classes"][:2] = reversed(stored["classes"][:2])
    helper.set_model_props(made, {contract.KEY: json.dumps(stored)})


def crushed_head(made: onnx.ModelProto) -> None:
    head = constant_of(made, "Gemm")
    put(head, np.sign(numpy_helper.to_array(head)) * np.float32(0.01))


FAULTS = (another_mean, turned_channels, swapped_labels, crushed_head)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_refused(fault: Callable[[onnx.ModelProto], None], judge: Judge) -> None:
    assert not any(each.fault == "parity" for each in judge.judge(folder.FLOAT, "as it is"))
    altered(judge.place, folder.FLOAT, fault)
    found = judge.judge(folder.FLOAT, "with a fault")
    assert all(each.fault == "parity" for each in found if each.precision == "fp32")


def test_a_runtime_that_refuses_the_file_is_left_out(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Event] = []

    def picky(place: Path, variant: Variant, threads: int) -> Session:
        if variant.runtime in refused:
            raise ArtefactError(f"{variant.runtime} refuses the file")
        return open_session(place, variant, threads)

    refused = {"openvino"}
    monkeypatch.setattr(judging, "open_session", picky)
    told = replace(judge, emit=said.append).judge(folder.FLOAT, "as it is")
    assert {each.runtime for each in told} == {"onnxruntime"}
    assert any("openvino fp32 is left out: openvino refuses the file" in str(event) for event in said)
    refused = {"onnxruntime"}
    with pytest.raises(ArtefactError, match="onnxruntime refuses"):
        judge.judge(folder.FLOAT, "as it is")


@pytest.mark.parametrize("fault", [swapped_labels, crushed_head], ids=lambda fault: fault.__name__)
def test_a_quantised_file_with_a_fault_is_refused(fault: Callable[[onnx.ModelProto], None], judge: Judge) -> None:
    shutil.copy(judge.place / folder.FLOAT, judge.place / folder.INT8)
    altered(judge.place, folder.INT8, fault)
    assert all(each.fault == "metric" for each in judge.judge(folder.INT8, "with a fault"))


def test_only_the_wanted_runtime_judges(judge: Judge) -> None:
    """As on a machine with the base install, whatever is installed here; ONNX Runtime is always asked."""
    assert judging.runtimes(["onnxruntime"]) == ("onnxruntime",)
    assert judging.runtimes(["openvino"]) == ("onnxruntime", "openvino") == judge.runtimes
    alone = replace(judge, runtimes=judging.runtimes(["onnxruntime"]))
    assert [each.name for each in alone.judge(folder.FLOAT, "weights as they are")] == ["onnxruntime fp32"]


def test_a_runtime_that_cannot_judge_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="did you mean 'openvino'"):
        judging.runtimes(["openvin"])
    monkeypatch.setattr("headstart.deploy.runtimes.openvino.version", lambda: "")
    with pytest.raises(ConfigError, match="openvino cannot judge: not installed here") as told:
        judging.runtimes(["openvino"])
    assert "headstart[openvino]" in str(told.value)


def test_no_export_where_nothing_is_accepted(toy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(shutil.copytree(toy_run.path, tmp_path / "run"))
    write = graph.write

    def faulty(model: Model, path: Path) -> None:
        write(model, path)
        altered(path.parent, path.name, another_mean)

    monkeypatch.setattr(graph, "write", faulty)
    with pytest.raises(NothingAccepted, match="not torch's") as caught:
        ship.export(run, settings=SETTINGS)
    assert caught.value.exit_code == 2
    assert folder.read_verdict(run.path / "export")["accepted"] == []
    with pytest.raises(ArtefactError, match="no variant"):
        Predictor(run.path / "export")


def test_other_rows_than_the_runs_are_refused(toy_run: Run, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(toy_run.path.parents[1] / "photos", tmp_path / "photos"))
    model = load(toy_run).model
    assert ship.rows_of(toy_run, model, moved, lambda event: None)
    (moved / "red" / "000.png").unlink()
    shutil.copy(moved / "red" / "001.png", moved / "red" / "999.png")
    with pytest.raises(ArtefactError, match=r"1 gone \(such as red/000.png\), 1 new \(such as red/999.png\)") as caught:
        ship.rows_of(toy_run, model, moved, lambda event: None)
    assert "--data" in str(caught.value)


@pytest.mark.slow
def test_a_fold_of_a_cross_validated_run_is_exported(tmp_path: Path) -> None:
    run = headstart.fit(
        str(draw(tmp_path / "photos", 12)),
        plan="probe",
        backbone="builtin/tiny",
        image_size=32,
        folds=2,
        output_dir=str(tmp_path / "runs"),
        device="cpu",
        precision="fp32",
        baseline=False,
        normalisation_check=False,
        force=True,
        on_event=lambda event: None,
    )
    with pytest.raises(ArtefactError, match="models of its folds") as caught:
        ship.export(run, settings=SETTINGS)
    assert "fold-1" in str(caught.value)
    one = run.path / "fold-1"
    place = ship.export(one, settings=replace(SETTINGS, int8=False))
    assert folder.read_verdict(place)["data"]["fingerprint"] == Run(one).read("data.json")["fingerprint"]


def test_a_folder_of_something_else_is_not_overwritten(toy_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(toy_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("export")))
    (run.path / "export").mkdir()
    (run.path / "export" / "thesis.txt").write_text("mine")
    with pytest.raises(ArtefactError, match="holds no export"):
        ship.export(run, settings=SETTINGS)
    assert (run.path / "export" / "thesis.txt").read_text() == "mine"


def test_a_flipped_bit_is_noticed(exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    data = bytearray((place / folder.FLOAT).read_bytes())
    data[len(data) // 2] ^= 1
    (place / folder.FLOAT).write_bytes(data)
    with pytest.raises(ArtefactError, match="damaged"):
        Predictor(place)


@pytest.mark.parametrize("fault", FAULTS[:2], ids=lambda fault: fault.__name__)
def test_golden_rows_notice_what_a_new_seal_would_hide(
    fault: Callable[[onnx.ModelProto], None], exported: Path, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    altered(place, folder.FLOAT, fault)
    manifest.seal(place)
    with pytest.raises(ArtefactError, match="differently"):
        Predictor(place, variant="onnxruntime fp32")


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../model.onnx"},
        {"file": "/etc/passwd"},
        {"runtime": "os"},
        {"runtime": "my.module"},
        {"precision": "fp8"},
        {"gap": "x"},
        {"batch_gap": None},
    ],
    ids=str,
)
def test_a_verdict_that_leads_elsewhere_is_refused(change: dict[str, str], exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    verdict = manifest.read_json(place / folder.VERDICT)
    verdict["variants"][0].update(change)
    manifest.write_json(place / folder.VERDICT, verdict)
    manifest.seal(place)
    with pytest.raises(ArtefactError, match="not a verdict"):
        Predictor(place)


def test_files_of_the_users_stay_when_an_export_is_written_again(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(toy_run.path, tmp_path / "run")) / folder.EXPORT
    (place / "notes.txt").write_text("mine")
    (place / "more" / "deep").mkdir(parents=True)
    (place / "more" / "deep" / "x").write_text("mine too")
    (place / "latest").symlink_to(place / "more")
    (place / "gone").symlink_to(tmp_path / "nowhere")
    before = (place / folder.VERDICT).stat().st_mtime_ns
    ship.export(Run(place.parent), settings=QUICK)
    assert (place / "latest").is_symlink()
    assert (place / "gone").is_symlink()
    assert (place / folder.VERDICT).stat().st_mtime_ns != before
    assert ((place / "notes.txt").read_text(), (place / "more" / "deep" / "x").read_text()) == ("mine", "mine too")
    folder.read_verdict(place)
