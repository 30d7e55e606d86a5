"""The benchmark of exports: its tables by hand, and all of it on a toy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def deploy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of the folder beside the tests."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.deploy")


@pytest.fixture
def deployed(deploy: ModuleType) -> ModuleType:
    import importlib

    return importlib.import_module("benchmarks.deployed")


def rounds(*values: float) -> dict[str, Any]:
    return {"p50_ms": sorted(values)[len(values) // 2], "rounds_ms": list(values)}


def measured(**accepted: Any) -> dict[str, Any]:
    """One network; everything took four times as long in the second round, which no ratio may show."""
    difference = {"value": -0.002, "low": -0.011, "high": 0.007}
    variant = {"difference": difference, "too_few": True, "accepted": True, "refused": "", "batches": True}
    times = {
        "torch eager fp32": rounds(20, 80, 20),
        "torch compiled bf16": rounds(6, 24, 6),
        "onnxruntime int8": rounds(4, 16, 4),
        "openvino bf16": rounds(5, 20, 5),
    }
    run = {
        "key": {"model": "resnet18-photo"},
        "metric": "accuracy",
        "reference": {"value": 0.5, "n": 210},
        "bytes": 44_800_000,
        "accepted": ["openvino bf16", "onnxruntime int8"],
        "base": ["onnxruntime int8"],
        "variants": {
            "onnxruntime int8": {**variant, "bytes": 11_200_000},
            "openvino bf16": {
                **variant,
                "bytes": 44_800_000,
                "accepted": False,
                "refused": "takes long",
                "batches": False,
            },
        },
        "peers": {},
        "times": {"1": times, "16": times},
        "machine": "m",
        "threads": 2,
        "reference_ms": [10.0, 10.0],
    }
    machine = {"cpu": "Test", "cores": 2, "flags": ["amx_int8"], "python": "3.11", "packages": {"torch": "2"}}
    return {"machines": {"m": machine}, "runs": [run | accepted]}


def test_gains_by_hand(deployed: ModuleType) -> None:
    text = deployed.deploy_table(measured())
    assert "| ResNet-18, PACS photo | 1 | 20.0 ms | onnxruntime int8: 5.0x (5.0 … 5.0) | 4.5x |" in text
    assert "| openvino bf16: 4.0x (4.0 … 4.0) | 10x | 1.20x, torch compiled bf16 |" in text
    assert "2 threads." in text
    nothing = deployed.deploy_table(measured(accepted=[], base=[]))
    assert "| none | 4.5x | none | 10x | – |" in nothing


def test_losses_by_hand(deployed: ModuleType) -> None:
    text = deployed.deploy_losses(measured())
    assert "| onnxruntime int8 | 11.20 MB, 0.250x | -0.2 (-1.1 … +0.7) | accepted; too few rows to tell |" in text
    assert "| takes long; too few rows to tell; rows by themselves |" in text
    assert ".500 (n = 210)" in text


def test_what_the_jobs_train_on(deploy: ModuleType) -> None:
    from headstart import experiment

    for name, job in deploy.JOBS.items():
        settings = {key: value for key, value in job.settings.items() if key not in ("weights", "limit")}
        settled = experiment.load(backbone=job.backbone or "some/reader", name=name, **settings)
        assert settled.plan in ("probe", "scratch")
        assert (settled.plan == "scratch") != settled.pretrained


@pytest.mark.slow
def test_a_toy_from_end_to_end(deploy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["deploy", "--quick", "--threads", "1", "--seconds", "0.1", "--output", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", line)
    deploy.main()
    (run,) = json.loads((tmp_path / "out.json").read_text())["runs"]
    assert run["variants"]["onnxruntime fp32"]["difference"]["value"] == 0
    assert set(run["peers"]) == {"onnxruntime's own fp32", "onnxruntime's default int8"}
    for times in run["times"].values():
        assert set(run["variants"]) | set(run["peers"]) | {deploy.EAGER} == set(times)
        assert {len(each["rounds_ms"]) for each in times.values()} == {7}
    monkeypatch.setattr(deploy.record, "measured", None)  # nothing is measured twice
    deploy.main()
