"""R16-R19, R22: a hostile or broken artefact is refused by an error of ours; it runs nothing and reaches nothing."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nursery import Life

from headstart.core import manifest
from headstart.core.errors import HeadstartError
from headstart.core.run import Run

ROOT = Path(__file__).resolve().parents[2]
LISTED = ("model.safetensors", "headstart.json", "labels.json", "preprocess.json", "golden.npz")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def model(tmp_path: Path, whole: Path) -> Path:
    shutil.copytree(whole / "runs/toy/model", tmp_path / "model")
    return tmp_path / "model"


def load(folder: Path) -> Any:
    from headstart.models.model import Model

    return Model.load(folder)


def resealed(folder: Path) -> Path:
    """An attacker writes manifests too."""
    (folder / manifest.MANIFEST).unlink()
    manifest.seal(folder)
    return folder


# ---- R16 -------------------------------------------------------------------------------------------------------------


def test_loading_runs_nothing_and_writes_nothing(tmp_path: Path) -> None:
    life = Life(tmp_path / "run", die_before=[("os.rename", r"toy/report\.html$", 1)])
    assert life.end() == -9
    other = Life(tmp_path / "half", die_before=[("os.rename", r"02-live/state/step-00000004$", 1)])
    assert other.end() == -9
    place = next((tmp_path / "half").glob("runs/toy/stages/02-live/state/step-00000003"))
    shutil.copytree(place, life.run / "stages/02-live/state/step-00000003")
    watched = Life(tmp_path / "watch", job=("load_watched", {"run": str(life.run)}))
    assert watched.end() == 0, watched.log()
    found = json.loads((tmp_path / "watch/seen.json").read_text())
    assert found == {"seen": [], "written": []}
    print("\nR16: 0 events of pickle, processes or sockets, 0 files written while a model, run and checkpoint load")


# ---- R17 -------------------------------------------------------------------------------------------------------------


def gadget(canary: Path, protocol: int) -> bytes:
    """A pickle that would create ``canary``, as ``os.system("touch …")`` written in opcodes."""
    command = f"touch {canary}".encode()
    text = b"cposix\nsystem\n(V" + command + b"\ntR."
    return (b"\x80" + bytes([protocol]) if protocol > 1 else b"") + text


def in_zip(payload: bytes) -> bytes:
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return out.getvalue()


def hostile_weights(canary: Path) -> dict[str, bytes]:
    plain, new = gadget(canary, 0), gadget(canary, 4)
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    holes = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}).encode()
    return {
        "pickle, protocol 0": plain,
        "pickle, protocol 4": new,
        "torch zip": in_zip(plain),
        "broken zip": in_zip(plain)[:-30],
        "7z": b"7z\xbc\xaf\x27\x1c" + plain,
        "header of a petabyte": struct.pack("<Q", 2**50) + b"{}",
        "tensor of terabytes": struct.pack("<Q", len(header)) + header,
        "hole": struct.pack("<Q", len(holes)) + holes + b"\0" * 8,
        "deep header": struct.pack("<Q", 200_000) + b"[" * 200_000,
        "empty": b"",
        "pickle behind a header": struct.pack("<Q", 2) + b"{}" + plain,
    }


NAMES = list(hostile_weights(Path("x")))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".bin", ".pth"])
def test_hostile_weights_run_nothing(tmp_path: Path, suffix: str) -> None:
    from headstart.models import weights

    canary = tmp_path / "canary"
    for name, data in hostile_weights(canary).items():
        file = tmp_path / f"weights{suffix}"
        file.write_bytes(data)
        with pytest.raises(HeadstartError):
            weights.read(file)
        assert not canary.exists(), name
    print(f"\nR17: {len(NAMES)}/{len(NAMES)} hostile weights as {suffix}: refused, no canary")


def test_the_gadget_would_have_sprung(tmp_path: Path) -> None:
    """The same bytes, loaded by what this package never calls: otherwise the tests above show nothing."""
    code = f"import pickle; pickle.loads({gadget(tmp_path / 'canary', 0)!r})"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_with_hostile_weights(model: Path, tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (model / "model.safetensors").write_bytes(hostile_weights(canary)[name])
    with pytest.raises(HeadstartError):
        load(resealed(model))
    assert not canary.exists()


def test_npz_files_with_objects_are_refused(model: Path, tmp_path: Path) -> None:
    from headstart.measure.evaluation import Evaluation

    class Gadget:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'canary'}",)

    objects = np.array([Gadget()], dtype=object)
    np.savez(model / "golden.npz", inputs=objects, logits=objects)
    with pytest.raises(HeadstartError):
        load(resealed(model))
    np.savez(tmp_path / "predictions.npz", about=objects, rows=objects, logits=objects, labels=objects)
    with pytest.raises(HeadstartError):
        Evaluation.load(tmp_path / "predictions.npz")
    assert not (tmp_path / "canary").exists()


FACTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "library of a stranger": lambda facts: facts["architecture"].update(library="os"),
    "library by path": lambda facts: facts["architecture"].update(library="../../evil"),
    "own module": lambda facts: facts["architecture"].update(library="own", name="os.system"),
    "name by path": lambda facts: facts["architecture"].update(name="../../../../etc/passwd"),
    "name with code": lambda facts: facts["architecture"].update(name="tiny; import os"),
    "unknown key": lambda facts: facts.update(auto_map={"AutoModel": "evil.Model"}),
    "remote code": lambda facts: facts["architecture"].update(trust_remote_code=True),
    "terabytes of classes": lambda facts: facts["head"].update(num_classes=10**12),
    "terabytes hidden": lambda facts: facts["head"].update(kind="mlp", hidden=10**12),
    "negative": lambda facts: facts["head"].update(feature_dim=-1),
    "a text for a number": lambda facts: facts["head"].update(feature_dim="1"),
    "a huge image": lambda facts: facts["architecture"].update(image_size=10**9),
    "temperature": lambda facts: facts.update(temperature=float("nan")),
    "newer": lambda facts: facts.update(format=99),
    "a list": lambda facts: facts.update(blocks={}),
    "dunder block": lambda facts: facts.update(blocks=["__class__.__init__.__globals__"]),
    "origin": lambda facts: facts["origin"].update(uri=["x"]),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_hostile_description(model: Path, name: str) -> None:
    facts = json.loads((model / "headstart.json").read_text())
    FACTS[name](facts)
    (model / "headstart.json").write_text(json.dumps(facts))
    with pytest.raises(HeadstartError):
        load(resealed(model))


def test_arguments_of_a_network_name_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's ``create_model`` would read ``checkpoint_path``: a description may not say it."""
    from headstart.models.backbone import Origin
    from headstart.models.backbones import timm

    seen = []

    def create(architecture: dict[str, Any], *others: Any) -> Any:
        seen.append(architecture["model_args"])
        raise HeadstartError("enough")

    monkeypatch.setattr(timm, "_create", create)
    hostile = {"checkpoint_path": "/etc/passwd", "pretrained": True, "cache_dir": "/", "depth": 2}
    with pytest.raises(HeadstartError, match="enough"):
        timm.rebuild({"model_args": hostile}, None, Origin(*[""] * 6))  # type: ignore[arg-type]
    assert seen == [{"depth": 2}]


# ---- R18 -------------------------------------------------------------------------------------------------------------


def mutated(value: Any, rng: np.random.Generator) -> Any:
    """The same JSON with one thing somewhere replaced, removed or added."""
    strange = [None, -1, 10**30, 1e308, float("nan"), "", "\0", "x" * 5000, [], {}, [[]], True, "../..", "é\ud800"]
    choice = strange[int(rng.integers(len(strange)))]
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else []
        for key in keys:
            places.append((node, key))
            walk(node[key])

    value = copy.deepcopy(value)
    walk(value)
    if not places:
        return choice
    node, key = places[int(rng.integers(len(places)))]
    act = int(rng.integers(3))
    if act == 0 or (act == 2 and isinstance(node, list)):
        node[key] = choice
    elif act == 1:
        del node[key]
    else:
        node[f"{key}\0"[:200]] = choice
    return value


def test_mutated_descriptions_of_a_model(model: Path) -> None:
    rng = np.random.default_rng(0)
    refused = opened = 0
    for case in range(120):
        file = model / LISTED[1 + case % 3]
        before = file.read_bytes()
        file.write_text(json.dumps(mutated(json.loads(before), rng)))
        try:
            load(resealed(model))
            opened += 1
        except HeadstartError:
            refused += 1
        file.write_bytes(before)
    load(resealed(model))
    print(
        f"\nR18: 120 mutated descriptions: {refused} refused, {opened} opened (in what decides nothing), 0 other errors"
    )


@pytest.mark.parametrize("cases", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_mutated_safetensors(whole: Path, tmp_path: Path, cases: int) -> None:
    from headstart.models import weights

    data = (whole / "runs/toy/model/model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    rng = np.random.default_rng(1)
    file = tmp_path / "x.safetensors"
    refused = 0
    for case in range(cases):
        if case % 2:
            text = json.dumps(mutated(header, rng)).encode("utf-8", "surrogatepass")
            file.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
        else:
            damaged = bytearray(data[: int(rng.integers(len(data)))] if case % 4 else data)
            for place in rng.integers(0, min(len(damaged), 8 + length), 3) if damaged else ():
                damaged[place] = int(rng.integers(256))
            file.write_bytes(bytes(damaged))
        try:
            weights.read(file)
        except HeadstartError:
            refused += 1
    print(f"\nR18: {cases} mutated safetensors: {refused} refused, 0 other errors")
    assert refused > cases // 2


def test_mutated_manifests_checkpoints_predictions_and_runs(whole: Path, tmp_path: Path) -> None:
    import torch

    from headstart.engine.checkpoint import Checkpoints
    from headstart.measure.evaluation import Evaluation

    rng = np.random.default_rng(2)
    state = tmp_path / "state"
    place = Checkpoints(state).save(1, {"now/a": torch.arange(4)}, {"x": 1})
    listed = json.loads((place / "manifest.json").read_text())
    predictions = (whole / "runs/toy/predictions-test.npz").read_bytes()
    shutil.copytree(whole / "runs/toy", tmp_path / "toy")
    run = Run(tmp_path / "toy")
    results = json.loads((run.path / "result.json").read_text())
    for _ in range(150):
        (place / "manifest.json").write_text(json.dumps(mutated(listed, rng)))
        Checkpoints(state).latest()
        damaged = bytearray(predictions)
        for index in rng.integers(0, len(damaged), 4):
            damaged[index] = int(rng.integers(256))
        (tmp_path / "p.npz").write_bytes(bytes(damaged))
        with _ours():
            Evaluation.load(tmp_path / "p.npz")
        (run.path / "result.json").write_text(json.dumps(mutated(results, rng)))
        (run.path / "events.jsonl").write_bytes(rng.bytes(200))
        with _ours():
            run.read("result.json"), run.events(), run.stages()
    (run.path / "result.json").write_text("[" * 100_000)
    with pytest.raises(HeadstartError):
        run.read("result.json")
    print("\nR18: 150 mutated manifests, predictions and run files each: 0 other errors")


class _ours:  # noqa: N801
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return isinstance(error, HeadstartError)


# ---- R19 -------------------------------------------------------------------------------------------------------------

SPELLINGS = (
    *("..", "../x", "../../x", "..\\x", "x/../../y", "/tmp/x", "//x", "%2e%2e/x", "%252e%252e/x", "..;/x", "~/x"),
    *("．．/x", "x\0y", ".", "", " ", "x" * 300, "C:\\x", "\\\\host\\x", "file:///etc/passwd", "\u202e../x", "a/b"),
)


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_manifest_reads_nothing_outside(model: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_text("secret")
    listed = json.loads((model / "manifest.json").read_text())
    listed["files"][name] = manifest.sha256(tmp_path / "x")
    (model / "manifest.json").write_text(json.dumps(listed))
    with pytest.raises(HeadstartError):
        load(model)


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_run_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    """As the name of a run: refused, or a folder below ``output_dir``; nothing lands elsewhere."""
    import headstart
    from headstart.workflows.places import run_name

    experiment = headstart.Experiment(output_dir=str(tmp_path / "runs"), name=name or None)

    class Collected:
        source = "x"

    try:
        place = Path(experiment.output_dir) / run_name(experiment, Collected())  # type: ignore[arg-type]
    except HeadstartError:
        return
    assert not name or name.strip(), "a blank name is none"
    inside = place.resolve()
    assert inside.is_relative_to((tmp_path / "runs").resolve())
    assert inside != (tmp_path / "runs").resolve()


@pytest.mark.parametrize("name", SPELLINGS)
def test_class_names_are_data_only(model: Path, name: str) -> None:
    labels = json.loads((model / "labels.json").read_text())
    labels["classes"][0] = name
    (model / "labels.json").write_text(json.dumps(labels))
    with _ours():
        assert load(resealed(model)).classes[0] == name
    assert sorted(path.name for path in model.iterdir()) == sorted([*LISTED, "manifest.json", "README.md"])


def test_links_out_of_a_model_are_not_followed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_bytes((model / "labels.json").read_bytes())
    (model / "labels.json").unlink()
    (model / "labels.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(HeadstartError, match="leads out"):
        load(resealed(model))


# ---- R22 -------------------------------------------------------------------------------------------------------------

FLOORS = {"torch": (2, 10), "pillow": (12, 2), "transformers": (5, 3), "safetensors": (0, 5), "numpy": (2, 0)}
BANNED = {"lightning": ("2.6.2", "2.6.3"), "ultralytics": ("8.3.41", "8.3.42", "8.3.45", "8.3.46")}


def test_the_lock_holds_no_version_with_known_holes() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pins = dict(re.findall(r"^([a-z0-9][a-z0-9._-]*)==([^ ;\\]+)", text, re.MULTILINE))
    for name, floor in FLOORS.items():
        assert tuple(int(part) for part in re.findall(r"\d+", pins[name])[:2]) >= floor, name
    assert not [name for name, versions in BANNED.items() if pins.get(name) in versions]
    assert "onnx" not in pins or tuple(map(int, pins["onnx"].split(".")[:2])) >= (1, 21)


@pytest.mark.slow
def test_importing_opens_no_socket() -> None:
    code = (
        "import sys; seen = []; sys.addaudithook(lambda e, a: seen.append(e) if e.startswith('socket.') else None);"
        "import headstart.cli, headstart.workflows.fit, headstart.workflows.course, headstart.workflows.predict;"
        "import headstart.models.saving, headstart.data.sources, headstart.report.page;"
        "print([e for e in seen if e != 'socket.gethostname'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
