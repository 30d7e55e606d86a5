"""R7: memory that runs out, in training or outside it, early or late: the run completes, the same, and says so."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nursery import Life, weights


def plan_of(epochs: int, **own: Any) -> list[Any]:
    """A live stage of three updates an epoch."""
    stage = {"name": "tuned", "epochs": epochs, "batch_size": 8, "lr": 1e-3, "blocks": "all", "augment": "none"}
    return [{"thaw": {**stage, **own}}]


PLAN = plan_of(4)
CASES = list(itertools.product(("train", "evaluation", "features"), ("cuda", "cpu", "python"), (1, 37)))
CASES += [("precision", kind, 1) for kind in ("cuda", "cpu", "python")]
QUICK = {("evaluation", "cpu", 1), ("features", "cuda", 1)}
PROBE = ["probe", {"thaw": {"name": "tuned", "epochs": 2, "batch_size": 8, "blocks": 2, "views": 1, "augment": "none"}}]


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool, int], str]:
    """The weights of the same runs where nothing runs out, each made once."""

    @functools.cache
    def made(probe: bool, epochs: int) -> str:
        folder = tmp_path_factory.mktemp("roomy")
        life = Life(folder, settings={"plan": PROBE if probe else plan_of(epochs)}, checkpoint_seconds=1e9)
        assert life.end() == 0, life.log()
        assert not life.events("memory")
        return weights(folder)

    return made


@pytest.mark.parametrize(
    ("where", "kind", "call"),
    [case if case in QUICK else pytest.param(*case, marks=pytest.mark.slow) for case in CASES],
)
def test_it_completes_and_says_so(
    tmp_path: Path, roomy: Callable[[bool, int], str], where: str, kind: str, call: int
) -> None:
    if where == "features" and call > 1:
        call = 3  # a pass over 24 rows takes few calls
    epochs = (40 if where == "evaluation" else 14) if call > 3 else 2  # one call an epoch to judge, three to train
    plan = PROBE if where == "features" else plan_of(epochs)
    timed = where == "precision"  # four rows, where it is not fp32
    plants = [("exhausted", {"where": where, "limit": 2 if timed else 4, "kind": kind, "call": call})]
    settings = {"plan": plan, "precision": "bf16" if timed else "fp32"}
    life = Life(tmp_path, settings=settings, plants=plants, checkpoint_seconds=1e9)
    assert life.end() == 0, life.log()
    told = [int(re.search(r"parts of (\d+) rows", event["message"])[1]) for event in life.events("memory")]
    assert told, "nothing was said"
    assert min(told) >= 2, "smaller parts than memory asks for"
    stage = json.loads(next(life.run.glob("stages/*-tuned/result.json")).read_text())
    assert stage["updates"] == (6 if where == "features" else 3 * epochs), "the effective batch has changed"
    if where not in ("train", "precision"):  # dropout sees in which parts a batch is trained: see below; and bf16
        assert weights(tmp_path) == roomy(where == "features", epochs), "smaller parts gave other numbers"


def test_the_weights_are_those_of_a_run_with_smaller_parts(tmp_path: Path, roomy: Callable[[bool, int], str]) -> None:
    small = Life(tmp_path / "small", settings={"plan": plan_of(4, accumulate=2)})
    tight = Life(
        tmp_path / "tight",
        settings={"plan": PLAN},
        plants=[("exhausted", {"where": "train", "limit": 4, "kind": "cuda"})],
    )
    assert (small.end(), tight.end()) == (0, 0), small.log() + tight.log()
    a, b = (tensors(folder) for folder in (tmp_path / "small", tmp_path / "tight"))
    assert a.keys() == b.keys()
    assert all((a[name] == b[name]).all() for name in a)
    assert weights(tmp_path / "tight") != roomy(False, 4), "without a difference this test would show nothing"


def tensors(folder: Path) -> dict:
    from safetensors.numpy import load_file

    return load_file(folder / "runs/toy/model/model.safetensors")


def test_a_split_is_written_down_before_it_is_used(tmp_path: Path, roomy: Callable[[bool, int], str]) -> None:
    """Killed after memory ran out, and resumed where there is enough: the same parts, so the same weights."""
    plants = [("exhausted", {"where": "train", "limit": 4, "kind": "cpu", "call": 5})]
    whole = Life(tmp_path / "whole", settings={"plan": PLAN}, plants=plants, checkpoint_seconds=1e9)
    assert whole.end() == 0, whole.log()
    assert weights(tmp_path / "whole") != roomy(False, 4), "without a difference this test would show nothing"
    point = ("os.rename", r"00-tuned/manifest\.json$", 1)  # the stage is done, but does not count yet
    broken = Life(
        tmp_path / "broken", settings={"plan": PLAN}, plants=plants, checkpoint_seconds=1e9, die_before=[point]
    )
    assert broken.end() == -9
    places = sorted(path.name for path in (tmp_path / "broken").rglob("step-*"))
    assert places == ["step-00000004"], "the moment when memory ran out; the clock has not asked for another"
    resumed = Life(tmp_path / "broken", settings={"plan": PLAN}, checkpoint_seconds=1e9)
    assert resumed.end() == 0, resumed.log()
    assert weights(tmp_path / "whole") == weights(tmp_path / "broken")


def test_one_row_that_does_not_fit_is_a_clear_error(tmp_path: Path) -> None:
    life = Life(
        tmp_path,
        settings={"plan": PLAN},
        plants=[("exhausted", {"where": "train", "limit": 0, "kind": "cuda"})],
    )
    assert life.end() == 1
    assert "memory is exhausted by a single row" in life.log()


@pytest.mark.parametrize("kind", ["cuda", "cpu", "python"])
def test_prediction_goes_on_in_smaller_parts(whole: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import torch
    from nursery import pictures

    import headstart

    errors = {
        "cuda": torch.OutOfMemoryError("CUDA out of memory (planted)"),
        "cpu": RuntimeError("std::bad_alloc"),
        "python": MemoryError(),
    }
    model = headstart.load(whole / "runs/toy")
    rows = pictures(40, 5)[0]
    before = model.predict(rows)
    forward, sizes, said = model.model.forward, [], []

    def narrow(inputs: torch.Tensor) -> torch.Tensor:
        sizes.append(len(inputs))
        if len(inputs) > 5:
            raise errors[kind]
        return forward(inputs)

    monkeypatch.setattr(model.model, "forward", narrow)
    after = model.predict(rows, on_event=said.append)
    assert [row.label for row in after] == [row.label for row in before]
    assert np.allclose([row.score for row in after], [row.score for row in before], atol=1e-5)
    assert sizes[:4] == [32, 16, 8, 4]
    assert any(getattr(event, "kind", "") == "memory" for event in said)
