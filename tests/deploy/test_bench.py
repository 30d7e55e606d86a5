"""The benchmark: every candidate beside eager torch, and shares of a peak that was measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import ArtefactError
from headstart.core.events import Notice
from headstart.core.run import Run
from headstart.deploy.timing import Timed
from headstart.engine import precision
from headstart.workflows import bench
from headstart.workflows.predict import load


def timed(*rounds: float) -> Timed:
    return Timed(float(np.median(rounds)), max(rounds), rounds, len(rounds))


def test_gains_and_shares_by_hand() -> None:
    side = 2 * bench.PEAK_SIDE**3 / 1e9  # billions of operations of a peak's product
    found = {
        bench.EAGER: timed(10.0, 40.0, 10.0),
        "onnxruntime int8": timed(2.0, 8.0, 2.0),
        "peak int8": timed(1.0, 4.0, 1.0),
        "peak fp32": timed(1.0, 4.0, 1.0),
    }
    line = bench._line("onnxruntime int8", {1: found, 16: found}, flops=1e9 * side / 10)
    assert line.gain[1] == pytest.approx(5.0), "round by round, though one round was four times as slow"
    assert line.share_of_peak[1] == pytest.approx(0.1 / 2.0)
    assert line.share_of_peak[16] == pytest.approx(16 * 0.1 / 2.0)
    del found["peak int8"]
    line = bench._line("onnxruntime int8", {1: found, 16: found}, flops=1e9 * side / 10)
    assert line.share_of_peak == {}, "no share of another peak"


def test_operations_are_those_of_the_network(toy_run: Run) -> None:
    model = load(toy_run).model
    seen: list[float] = []

    def count(module: torch.nn.Module, given: Any, output: torch.Tensor) -> None:
        kernel = module.weight[0].numel() if isinstance(module, torch.nn.Conv2d) else module.in_features
        seen.append(2.0 * output.numel() * kernel)

    for module in model.modules():
        if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
            module.register_forward_hook(count)
    inputs = np.zeros((1, 3, 32, 32), np.uint8)
    assert bench._flops(model, inputs) == pytest.approx(sum(seen))


def test_the_benchmark_names_what_it_leaves_out(toy_run: Run, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: torch.nn.Module) -> Any:
        def call(inputs: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(precision, "hopeless", lambda device, names: {"int8": "a product is slow"})
    monkeypatch.setattr(bench, "PEAK_SIDE", 64)
    monkeypatch.setattr(bench, "_slow", lambda measured, peaks: [])  # this machine may have no instructions for bf16
    said: list[Any] = []
    found = bench.bench(toy_run, threads=1, seconds=0.05, on_event=said.append)
    names = [line["name"] for line in found["lines"]]
    assert names[:2] == [bench.EAGER, "torch eager bf16"]
    assert "onnxruntime fp32" in names
    left = [event.message for event in said if isinstance(event, Notice) and " is left out: " in event.message]
    assert [text.partition(" is left out: ") for text in left] == [
        (f"torch compiled {kind}", " is left out: ", "no compiler") for kind in ("fp32", "bf16")
    ]
    assert toy_run.read(bench.BENCH)["lines"][0]["gain"] == {"1": 1.0, "16": 1.0}
    assert found["peaks"].keys() == {"peak fp32", "peak bf16"}
    monkeypatch.setattr(precision, "hopeless", lambda device, names: dict.fromkeys(names, "a product is slow"))
    said.clear()
    found = bench.bench(toy_run, threads=1, seconds=0.05, on_event=said.append)
    assert not any(line["name"].startswith("torch") and line["precision"] == "bf16" for line in found["lines"])
    left = [event.message for event in said if "as a peak" in event.message]
    assert left == [f"torch in {name} is left out, also as a peak: a product is slow" for name in ("bf16", "int8")]
    assert found["peaks"].keys() == {"peak fp32"}


def test_a_product_that_is_slower_than_in_fp32_is_no_peak() -> None:
    quick = {"peak fp32": timed(1.0, 4.0, 1.0), "peak int8": timed(0.5, 4.0, 0.5), "peak bf16": timed(1.0, 4.0, 1.0)}
    assert bench._slow({1: quick, 16: quick}, [*quick]) == []
    assert bench._slow({1: quick, 16: {**quick, "peak int8": timed(9.0, 9.0, 9.0)}}, [*quick]) == ["peak int8"]


@pytest.mark.parametrize(("slowest", "told"), [(1.2, []), (2.0, ["busy"])])
def test_other_work_on_the_machine_is_told(
    toy_run: Run, exported: Path, monkeypatch: pytest.MonkeyPatch, slowest: float, told: list[str]
) -> None:
    def interleaved(turns: dict[str, Any], **_given: Any) -> dict[str, Timed]:
        return {name: timed(1.0, slowest if name == "peak fp32" else 1.0, 1.0) for name in turns}

    monkeypatch.setattr(bench.timing, "interleaved", interleaved)
    monkeypatch.setattr(bench, "_torch", lambda *given: {bench.EAGER: lambda batch: None})
    said: list[Any] = []
    bench.bench(toy_run, threads=1, on_event=said.append)
    assert [event.kind for event in said if event.level == "warning"] == told


def test_a_run_that_was_not_exported_says_so(toy_run: Run, tmp_path: Path) -> None:
    run = Run(shutil.copytree(toy_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("export")))
    with pytest.raises(ArtefactError, match="not exported"):
        bench.bench(run)
