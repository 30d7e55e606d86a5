"""Limits: the FLOPs are those that are published, the formulas are derived again, and a wrong share is noticed."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from headstart import results, terminal
from headstart.data.modalities.image import ImageSpec
from headstart.engine import limits
from headstart.engine.limits import Counts, Peaks
from headstart.engine.recorded import Passed
from headstart.models import backbone as backbones
from headstart.models import heads, resume
from headstart.models.model import Model
from headstart.stages.learner import POOLED

PEAKS = Peaks({"fp32": 1e9, "bf16": 4e9}, copy=1e9)


class Rows:
    """Just enough of ``Examples``: blank pictures."""

    def __init__(self, spec: ImageSpec, count: int = 8) -> None:
        self.spec, self.count = spec, count

    def __len__(self) -> int:
        return self.count

    def batches(self, order: np.ndarray, *, batch_size: int) -> Any:
        for _ in order:
            yield SimpleNamespace(inputs=self.spec.blank(batch_size))


def counted(name: str, classes: int = 1000) -> tuple[Model, Counts]:
    backbone = backbones.load(name, pretrained=False)
    model = Model(
        backbone, heads.build("linear", backbone.feature_dim, classes), [str(index) for index in range(classes)]
    )
    return model, limits.count(model, Rows(backbone.spec))  # type: ignore[arg-type]


def test_flops_are_those_that_torchvision_publishes() -> None:
    from torchvision.models import ResNet18_Weights

    _, counts = counted("torchvision/resnet18")
    published = ResNet18_Weights.DEFAULT.meta
    assert counts.flops[-1] / 2 / 1e9 == pytest.approx(published["_ops"], abs=1e-3)  # multiply-adds: 1.814 G
    assert counts.flops[-1] == pytest.approx(3.64e9, rel=0.005), "what fvcore and timm tell (1.82 GMACs)"
    assert counts.written[-1] == pytest.approx(2.48e6, rel=0.005), "timm: 2.48 M activations"


def derived(model: Model) -> list[float]:
    """FLOPs until every point, from the shapes of the convolutions alone."""
    backbone, seen, ends = model.backbone, [0.0], [0.0]

    def convolved(module: Any, _args: Any, out: torch.Tensor) -> None:
        kernel = module.weight[0].numel()  # input channels of a group times the window
        seen[0] += 2.0 * kernel * out.numel()

    hooks = [m.register_forward_hook(convolved) for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    for index in range(len(backbone.blocks)):
        hooks.append(backbone.block(index).register_forward_hook(lambda *_: ends.append(seen[0])))
    with resume.evaluating(model), torch.no_grad():
        backbone.features(torch.from_numpy(backbone.spec.blank(1)))
    for hook in hooks:
        hook.remove()
    return [*ends, seen[0], seen[0] + 2.0 * len(model.classes) * backbone.feature_dim]


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/mobilenet_v2"])
def test_flops_of_a_block_are_those_of_its_convolutions(name: str) -> None:
    """The frozen share of every depth is exact."""
    model, counts = counted(name, classes=7)
    assert list(counts.flops) == derived(model)
    assert model.training, "counting changes no mode"


def test_a_share_that_is_one_block_off_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def before_blocks(backbone: Any, note: Callable[[], Any]) -> Iterator[None]:
        def hook(_module: Any, _args: Any) -> None:
            note()

        handles = [backbone.block(index).register_forward_pre_hook(hook) for index in range(len(backbone.blocks))]
        yield
        for handle in handles:
            handle.remove()

    monkeypatch.setattr(limits, "_after_blocks", before_blocks)
    model, counts = counted("torchvision/mobilenet_v2", classes=7)
    assert counts.flops[-1] == derived(model)[-1]
    assert list(counts.flops) != derived(model)


def test_a_row_costs_what_the_formula_says() -> None:
    counts = Counts((0.0, 6e8, 8e8, 1e9, 1e9), (0.0, 1e6, 2e6, 3e6, 3e6))
    share = 0.2  # of the FLOPs lies above block 2
    forward = counts.seconds(PEAKS, "fp32", 0)
    assert forward == pytest.approx(1.0)  # 1e9 FLOPs at 1e9 a second
    assert counts.seconds(PEAKS, "fp32", 0, thawed=2) == pytest.approx(forward * (1 + 2 * share))  # frozen, not cached
    assert counts.seconds(PEAKS, "fp32", 2, thawed=2) == pytest.approx(forward * 3 * share)  # from the cache
    assert counts.seconds(PEAKS, "fp32", 0, thawed=0) == pytest.approx(3 * forward)  # all
    assert counts.seconds(PEAKS, "fp32", 0, 1) == pytest.approx(0.6)
    assert counts.seconds(PEAKS, "bf16", 0) == pytest.approx(0.25)
    assert counts.seconds(PEAKS, "fp32", counts.point(POOLED)) == 0
    slow = Peaks({"fp32": 1e12}, copy=1e6)  # the traffic decides: every number once written, once read
    assert counts.seconds(slow, "fp32", 0) == pytest.approx(2 * 3e6 * 4 / 1e6)


def test_the_passes_below_a_frontier_are_counted_as_they_were() -> None:
    counts = Counts((0.0, 6e8, 8e8, 1e9, 1e9), (0.0,) * 5)
    passed = [Passed(10, 1, "fp32"), Passed(3, POOLED, "bf16")]
    assert limits.passes_limit(counts, PEAKS, passed) == pytest.approx(10 * 0.6 + 3 * 0.25)
    assert limits.passes_limit(counts, PEAKS, []) == 0, "features of an earlier run cost nothing"


def test_rows_that_differ_in_length_are_counted_by_their_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = np.random.default_rng(0).lognormal(4, 0.6, 2000).astype(int)
    lengths[np.linspace(0, 1999, 8).astype(int)] = 400  # wherever one looks without looking at the lengths

    class Texts:
        def __len__(self) -> int:
            return len(lengths)

        def by_length(self, order: np.ndarray) -> np.ndarray:
            return order[np.argsort(-lengths[order], kind="stable")]

        def batches(self, rows: np.ndarray, *, batch_size: int) -> Iterator[SimpleNamespace]:
            assert batch_size == 1
            yield from (SimpleNamespace(inputs=np.zeros((1, lengths[row]))) for row in rows)

    backbone = SimpleNamespace(intake=SimpleNamespace(ragged=True), device=torch.device("cpu"))
    monkeypatch.setattr(limits, "_counted", lambda model, inputs: ([0, inputs.shape[1]], [0, 0]))
    counts = limits.count(SimpleNamespace(backbone=backbone), Texts())  # type: ignore[arg-type]
    assert counts.flops[-1] == pytest.approx(lengths.mean(), rel=0.05)


def test_the_head_costs_its_gram_matrix_and_its_iterations() -> None:
    rows, dims, classes = 1000, 50, 3
    frame = (2 * rows * dims**2 + 9 * dims**3 + 2 * rows * dims**2) / 1e9
    assert limits.head_limit(PEAKS, rows, dims, classes, 0) == pytest.approx(frame)
    step = max(4 * rows * dims * classes / 1e9, 2 * rows * dims * 4 / 1e9)
    assert limits.head_limit(PEAKS, rows, dims, classes, 7) == pytest.approx(frame + 7 * step)


def test_peaks_are_measured_and_the_better_counts() -> None:
    found = limits.measure(torch.device("cpu"), {"fp32"})
    assert found.flops["fp32"] > 1e9
    assert found.copy > 1e8
    best = Peaks({"fp32": 1.0}, 5.0).best(Peaks({"fp32": 2.0}, 3.0))
    assert best == Peaks({"fp32": 2.0}, 5.0)


LIVE = [{"thaw": {"blocks": "all", "epochs": 2, "views": "live"}}]


@pytest.mark.parametrize("plan", ["probe", LIVE, [{"probe": {}}, {"thaw": {"blocks": 1, "epochs": 2, "views": 1}}]])
def test_a_run_tells_the_limit_of_every_stage(
    plan: Any, toy_photos: Callable[..., Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import headstart

    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(limits, "SIDE", {"cpu": 64})
    monkeypatch.setattr(limits, "COPIED", {"cpu": 2**16})
    monkeypatch.setattr(limits, "measure", lambda device, precisions: Peaks(dict.fromkeys(precisions, 1e15), 1e15))
    monkeypatch.setattr(limits.RowCost, "of", lambda examples: limits.RowCost(decode=1e-9, finish=1e-6))
    folder = toy_photos(classes=2, size=32, splits={"train": 12, "val": 6})
    quick = {"backbone": "builtin/tiny", "image_size": 32, "baseline": False, "precision": "fp32", "force": True}
    run = headstart.fit(folder, plan=plan, limits=True, output_dir=str(tmp_path / "runs"), **quick)
    stages = run.stages()
    assert len(stages) == (1 if plan in ("probe", LIVE) else 2)
    splits = json.loads((run.path / "data.json").read_text())["counts"]
    rows, val = (sum(splits[split].values()) for split in ("train", "val"))
    read = (2 if plan == LIVE else 1) * (rows + val)  # in every epoch, or once
    assert stages[0]["limit"]["terms"]["inputs"] == pytest.approx(1e-6 * read)
    assert stages[0]["limit"]["terms"]["decode"] == pytest.approx(
        1e-9 * sum(sum(of_class.values()) for of_class in splits.values())
    )
    for index, stage in enumerate(stages):
        told = stage["limit"]
        assert told["seconds"] == pytest.approx(sum(told["terms"].values()))
        assert 0 < told["share"] == pytest.approx(told["seconds"] / told["of"])
        assert told["share"] < 1
        assert ("decode" in told["terms"]) == (index == 0)
    model = Model.load(run.model_folder)
    counts = limits.count(model, Rows(model.backbone.spec))  # type: ignore[arg-type]
    if len(stages) == 2:  # cached: forward and backward above the frontier alone
        frontier = stages[1]["frozen_blocks"]
        row = 3 * max(
            (counts.flops[-1] - counts.flops[frontier]) / 1e15,
            2 * 4 * (counts.written[-1] - counts.written[frontier]) / 1e15,
        )
        assert stages[1]["limit"]["terms"]["updates"] == pytest.approx(2 * rows * row)
    out = io.StringIO()
    results.show(run, Console(file=out, width=120, theme=terminal.THEME))
    assert "of limit" in out.getvalue()
    page = (run.path / "report.html").read_text()
    assert "Of the limit" in page
    assert "at least" in page


def test_a_row_costs_its_decoding_and_its_resizing() -> None:
    clock = {"decode": 0.0, "canvas": 0.0, "finish": 0.0}

    def spend(name: str, seconds: float) -> Callable[..., int]:
        def work(*_: Any) -> int:
            clock[name] += seconds
            time.sleep(seconds)
            return 0

        return work

    kind = SimpleNamespace(decode=spend("decode", 0.004), canvas=spend("canvas", 0.002), finish=spend("finish", 0.003))
    rows = SimpleNamespace(items=list(range(40)))
    examples = SimpleNamespace(store=SimpleNamespace(kind=kind), spec=None, rows=rows)
    count, cores = limits.DECODED, os.cpu_count() or 1

    class Forty(SimpleNamespace):
        def __len__(self) -> int:
            return 40

    cost = limits.RowCost.of(Forty(**vars(examples)))  # type: ignore[arg-type]
    assert cost.decode >= (clock["decode"] + clock["canvas"]) / count / cores
    assert cost.finish >= clock["finish"] / count / cores > 0
