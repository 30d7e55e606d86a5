"""Two gloo processes under torchrun: the same fit, no drift, one writer, close to a single process.

The driver that every process runs calls the command line; around it, it notes the state after each stage, watches what
its process writes into the run folder, and plants the faults that a test asks for.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation

from .. import words

pytestmark = pytest.mark.distributed

DRIVER = """
import hashlib, json, os, sys
from pathlib import Path

rank, notes, fault = int(os.environ.get("RANK", "0")), Path(os.environ["NOTES"]), os.environ.get("FAULT", "")
written = []


def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(os.fsdecode(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir"):
        written.append(os.fsdecode(arguments[0]))


sys.addaudithook(watch)
import torch

torch.set_num_threads(1)
from headstart import cli
from headstart.engine import loop
from headstart.workflows.course import Course

take, update, states = Course.take, loop.Loop._update, []


def noting(self, index, stage):
    verdict = take(self, index, stage)
    digest = hashlib.sha256()
    for name, value in self.model.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    states.append([stage.title, digest.hexdigest()])
    return verdict


def faulty(self, batch):
    loss = update(self, batch)
    if fault == "drift" and rank == 1 and self.state.updates == 3:
        with torch.no_grad():
            self.job.learner.model.head.last.bias[0] += 1e-6
    if fault == "interrupt" and self.job.stage == 2 and self.state.updates == 2:
        os._exit(9)
    return loss


if fault == "own cache":
    os.environ["HEADSTART_CACHE"] = str(notes / f"cache-{rank}")
Course.take, loop.Loop._update = noting, faulty
if fault in ("interrupt", "resume"):
    loop.CHECKPOINT_SECONDS = -1.0
code = cli.run(sys.argv[1:])
inside = [path for path in written if path.startswith(os.environ["RUNS"])]
(notes / f"rank-{rank}.json").write_text(json.dumps({"code": code, "states": states, "written": inside}))
sys.exit(code)
"""
PLAN = """
backbone: builtin/tiny
image_size: 32
device: cpu
precision: fp32
baseline: false
force: true
plan:
  - probe
  - thaw: {name: last, blocks: 1, views: 1, augment: none, epochs: 2, batch_size: 16, lr: 1e-3, gate: {on_fail: warn}}
  - thaw: {name: all, blocks: all, augment: light, epochs: 2, batch_size: 15, optimizer: sgd, lr: 1e-4,
           gate: {on_fail: warn}}
"""
PREPARING = """
backbone: {reader}
pooling: native
device: cpu
precision: fp32
baseline: false
force: true
plan:
  - mlm: {{epochs: 2, lr: 1e-2, batch_size: 9}}
  - contrastive: {{epochs: 1, lr: 1e-3, pairs: 2, batch_size: 9, gate: {{on_fail: warn}}}}
"""
Launch = Callable[..., "Outcome"]


class Outcome:
    """What the processes left behind."""

    def __init__(self, done: subprocess.CompletedProcess[str], runs: Path, notes: Path) -> None:
        self.code, self.text = done.returncode, done.stdout + done.stderr
        self.run, self.notes = Run(runs / "photos"), notes
        files = sorted(notes.glob("rank-*.json"))
        self.ranks: list[dict[str, Any]] = [json.loads(file.read_text(encoding="utf-8")) for file in files]

    def weights(self) -> dict[str, Any]:
        from safetensors.torch import load_file

        return load_file(self.run.model_folder / "model.safetensors")


@pytest.fixture
def launch(toy_photos, tmp_path) -> Launch:
    """``launch(2)`` fits with two processes and waits; ``into`` names the folder of runs, ``plan`` is YAML."""
    photos = toy_photos(3, size=32, splits={"train": 15, "val": 7, "test": 5})
    (tmp_path / "driver.py").write_text(DRIVER, encoding="utf-8")

    def start(
        processes: int, *arguments: str, into: str = "runs", fault: str = "", plan: str = PLAN, data: Path = photos
    ) -> Outcome:
        (tmp_path / "plan.yaml").write_text(plan, encoding="utf-8")
        notes = tmp_path / f"notes-{into}-{fault}"
        notes.mkdir(exist_ok=True)
        runs = tmp_path / into
        own = {
            "NOTES": str(notes),
            "RUNS": str(runs),
            "FAULT": fault,
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
        }
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(torchrun if processes > 1 else []), str(tmp_path / "driver.py")]
        command += ["fit", str(data), "--config", str(tmp_path / "plan.yaml"), "--output-dir", str(runs), *arguments]
        environment = {**os.environ, **own}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
        return Outcome(done, runs, notes)

    return start


def test_two_processes_agree_bit_for_bit_and_stay_close_to_one(launch):
    two = launch(2)
    assert two.code == 0, two.text
    first, second = two.ranks
    assert [name for name, _ in first["states"]] == ["probe", "last", "all"]
    assert first["states"] == second["states"], "the ranks have drifted apart"
    assert len({state for _, state in first["states"]}) == 3, "a stage changed nothing"
    assert first["written"]
    assert second["written"] == []
    assert two.text.count("next ") == 1, "one process speaks"

    one = launch(1, into="single")
    assert one.code == 0, one.text
    for a, b in zip(one.run.stages(), two.run.stages(), strict=True):
        assert (a["updates"], a["epochs"], a["trainable"]) == (b["updates"], b["epochs"], b["trainable"])
        folder = f"stages/{a['index']:02d}-{a['name']}/predictions.npz"
        single, both = Evaluation.load(one.run.path / folder), Evaluation.load(two.run.path / folder)
        assert (both.rows == range(21)).all()
        assert abs(single.probabilities - both.probabilities).max() < 2e-3
        for left, right in zip(a.get("history", []), b.get("history", []), strict=True):
            assert left["train_loss"] == pytest.approx(right["train_loss"], rel=0.02, abs=1e-4)
    weights, others = one.weights(), two.weights()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 2e-3
    result = two.run.read("result.json")
    assert (result["test_reads"], result["metrics"]["test"]["accuracy"]["n"]) == (1, 15)
    assert [event["event"] for event in two.run.events()].count("EpochDone") == 4


TEXTS = """
device: cpu
precision: fp32
baseline: false
force: true
name: photos
plan:
  - mlm: {epochs: 2, lr: 1e-3, batch_size: 15, gate: {on_fail: warn}}
  - probe
  - thaw: {name: last, blocks: 1, epochs: 2, batch_size: 15, lr: 1e-3, gate: {on_fail: warn}}
  - thaw: {name: all, epochs: 2, batch_size: 15, lr: 1e-3, gate: {on_fail: warn}}
"""


def test_texts_of_any_length_are_shared_with_what_lies_between_the_blocks(launch, tmp_path):
    """What is kept of a text takes a place a token, so two processes keep numbers of them that differ.

    Without dropout, which every process draws for its own rows, they do what one does.
    """
    quiet = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    network = words.network(tmp_path / "network", kind="AutoModelForMaskedLM", **quiet)
    folder = tmp_path / "reviews"
    folder.mkdir()
    for split, count in (("train", 41), ("val", 15)):
        lines = [f"{text},{label}" for text, label in zip(*words.reviews(count, longest=40), strict=True)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    own = ("--backbone", str(network))
    one, two = (launch(count, *own, into=f"by-{count}", plan=TEXTS, data=folder) for count in (1, 2))
    assert two.code == 0, two.text
    first, second = two.ranks
    assert first["states"] == second["states"], "the ranks have drifted apart"
    assert [stage["cache"] and stage["cache"]["used"] for stage in two.run.stages()] == [None, None, True, False]
    for a, b in zip(one.run.stages(), two.run.stages(), strict=True):
        for left, right in zip(a.get("history", []), b.get("history", []), strict=True):
            assert left["train_loss"] == pytest.approx(right["train_loss"], rel=1e-4)
            assert left["val_loss"] == pytest.approx(right["val_loss"], rel=1e-4)
    weights, others = one.weights(), two.weights()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < 2e-3


def test_drift_is_caught_and_the_stage_is_not_kept(launch):
    done = launch(2, fault="drift")
    assert done.code != 0
    assert "ranks 1 hold other weights than rank 0" in done.text
    assert [stage["name"] for stage in done.run.stages()] == ["probe"]


def test_a_killed_run_of_two_processes_resumes_bit_for_bit(launch):
    whole = launch(2, into="whole", fault="resume")
    assert whole.code == 0, whole.text
    broken = launch(2, fault="interrupt")
    assert broken.code != 0
    assert [stage["name"] for stage in broken.run.stages()] == ["probe", "last"]
    resumed = launch(2, "--resume", fault="resume")
    assert resumed.code == 0, resumed.text
    assert "resumed" in {event.get("kind") for event in resumed.run.events()}
    a, b = whole.weights(), resumed.weights()
    assert all((a[name] == b[name]).all() for name in a)


def test_features_that_one_process_keeps_are_computed_by_both(launch):
    """Every process has a cache of its own here; only the first writes features into it."""
    plan = PLAN[: PLAN.index("  - thaw: {name: last")]
    first = launch(2, "--name", "photos", plan=plan, fault="own cache")
    assert first.code == 0, first.text
    assert list((first.notes / "cache-0").rglob("*.safetensors"))
    assert not list((first.notes / "cache-1").rglob("*.safetensors"))
    second = launch(2, "--seed", "43", "--name", "again", plan=plan, fault="own cache")
    assert second.code == 0, second.text
    assert second.ranks[0]["states"] == second.ranks[1]["states"]


def test_fewer_rows_than_processes_are_refused_by_all(launch, toy_photos, tmp_path):
    few = toy_photos(2, size=32, splits={"train": 5, "val": 1, "test": 5}, folder=tmp_path / "few")
    done = launch(3, data=few)
    assert done.code != 0
    assert "3 processes cannot share fewer rows than that: val (2)" in done.text


def test_batchnorm_that_learns_its_statistics_has_the_same_on_all_ranks(launch):
    plan = PLAN[: PLAN.index("  - thaw: {name: all")]
    done = launch(2, plan=plan + "  - scratch: {epochs: 2, batch_size: 16, ema: 0.5, gate: {on_fail: warn}}\n")
    assert done.code == 0, done.text
    first, second = done.ranks
    assert first["states"] == second["states"]
    assert [name for name, _ in first["states"]] == ["probe", "last", "scratch"]


def test_masked_words_and_pairs_of_two_processes_are_those_of_one(launch, tmp_path):
    texts, labels = words.reviews(60, seed=4)
    lines = [f'"{text}",{label}' for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # what ranks draw by themselves
    plan = PREPARING.format(reader=words.network(tmp_path / "reader", **still))
    given = {"plan": plan, "data": tmp_path / "reviews.csv"}
    two, one = launch(2, "--name", "photos", **given), launch(1, "--name", "photos", into="single", **given)
    assert (two.code, one.code) == (0, 0), two.text + one.text
    first, second = two.ranks
    assert first["states"] == second["states"], "the ranks have drifted apart"
    assert len({state for _, state in first["states"]}) == 2, "a stage changed nothing"
    for a, b in zip(one.run.stages(), two.run.stages(), strict=True):
        assert (a["updates"], a["epochs"], a["trainable"]) == (b["updates"], b["epochs"], b["trainable"])
        assert a["metrics"]["val"].keys() == b["metrics"]["val"].keys()
        for left, right in zip(a["history"], b["history"], strict=True):
            assert left["train_loss"] == pytest.approx(right["train_loss"], rel=1e-3)
            assert left["val_loss"] == pytest.approx(right["val_loss"], rel=1e-2)
