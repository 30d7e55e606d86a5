"""The doctor sees what is wrong: every check has a planted fault."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import socket
from pathlib import Path

import pytest

from headstart import tables
from headstart.terminal import console
from headstart.workflows import doctor

ROOT = Path(__file__).resolve().parents[1]


def named(checks: object, name: str) -> list[doctor.Check]:
    return [check for check in checks if check.name == name]  # type: ignore[attr-defined]


def test_the_machine_is_described() -> None:
    checks = {check.name: check for check in doctor.machine()}
    assert {"python", "processor", "cores", "memory", "disk"} <= set(checks)
    assert 0 < doctor.usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("threads", "status"), [("1", "warning"), ("4", None), ("64", "warning"), ("", None)])
def test_wrong_threads_are_told(monkeypatch: pytest.MonkeyPatch, threads: str, status: str | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(doctor, "usable_cores", lambda: 4.0)
    found = named(doctor.machine(), "threads")
    assert [check.status for check in found] == ([status] if status else [])
    assert all("OMP_NUM_THREADS" in check.remedy for check in found)


def test_little_memory_and_disk_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_GB", 1e9)
    monkeypatch.setattr(doctor, "LOW_MEMORY_GB", 1e9)
    checks = {check.name: check for check in doctor.machine()}
    for name in ("memory", "disk"):
        assert checks[name].status == "warning"
        assert checks[name].remedy


def test_devices_and_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PRODUCT_SIDE", 64)
    checks = {check.name: check for check in doctor.devices()}
    assert "speed" in checks
    assert "GFLOP/s" in checks["speed"].value


def test_versions_stand_beside_the_tested_and_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    tested = doctor.tested_versions()
    assert set(doctor.WATCHED) <= set(tested), "constraints.txt names every watched package"
    lowest = doctor.lowest_versions()
    assert lowest["numpy"] == "2.0"
    real = importlib.metadata.version

    def version(name: str) -> str:
        planted = {"numpy": "1.26.0", "pillow": "99.0", "timm": None}
        if name not in planted:
            return real(name)
        if planted[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return str(planted[name])

    monkeypatch.setattr(importlib.metadata, "version", version)
    checks = {check.name: check for check in doctor.packages()}
    assert (checks["numpy"].status, checks["numpy"].value) == ("error", "1.26.0 is older than 2.0")
    assert checks["pillow"].status == "info"
    assert "tested with" in checks["pillow"].value
    assert checks["timm"].remedy == "pip install 'headstart[train,data]'"


def test_a_broken_torchaudio_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not named(doctor.traps(), "torchaudio")
    (tmp_path / "torchaudio.py").write_text("raise RuntimeError('another CUDA')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (trap,) = named(doctor.traps(), "torchaudio")
    assert trap.status == "error"
    assert "pip uninstall torchaudio" in trap.remedy


def test_packages_without_bytecode_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "slow_to_start.py").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert not doctor.has_bytecode("slow_to_start")
    compiled = Path(importlib.util.cache_from_source(str(tmp_path / "slow_to_start.py")))
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    assert doctor.has_bytecode("slow_to_start")
    assert doctor.has_bytecode("not_installed_at_all")
    monkeypatch.setattr(doctor, "has_bytecode", lambda name: False)
    (trap,) = named(doctor.traps(), "bytecode")
    assert "compileall" in trap.remedy


def test_optimum_beside_transformers_5_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", {"optimum": "1.0", "transformers": "5.1"}.get)
    assert named(doctor.traps(), "optimum")
    monkeypatch.setattr(doctor, "_installed", {"optimum": "1.0", "transformers": "4.57"}.get)
    assert not named(doctor.traps(), "optimum")


def test_cache_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"12345")
    assert doctor.folder_bytes(tmp_path) == 5
    assert doctor.folder_bytes(tmp_path / "nowhere") == 0
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert "0 MB" in named(doctor.caches(), "Hub")[0].value


def test_an_unreachable_hub_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        (check,) = doctor.reach_hub()
    assert check.status == "info"
    assert "cannot be reached" in check.value
    assert check.remedy


def test_everything_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    checks = [*doctor.machine(), doctor.Check("traps", "x", "broken", "error", "repair it")]
    console().print(tables.checks(checks))
    shown = capsys.readouterr().out
    assert "repair it" in shown
    assert shown.count("machine") == 1
