"""The demo: four strategies on the same rows, one table, one report."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from headstart import cli, results
from headstart.core import events
from headstart.core.errors import ConfigError
from headstart.core.events import Event
from headstart.data.samples import audio, base, image, text
from headstart.models import shipped
from headstart.terminal import THEME
from headstart.workflows import demo
from tests import standins


@pytest.fixture(autouse=True)
def _small(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "FOLDER", standins.write(tmp_path_factory.mktemp("builtin")))
    monkeypatch.setattr(base, "PER_CLASS", 2)
    monkeypatch.setattr(audio, "PER_CLASS", 2)
    for sample in (audio, image, text):
        monkeypatch.setattr(sample, "TEST", 3)
    tuning = {modality: {**told, "epochs": 1} for modality, told in demo.TUNING.items()}
    monkeypatch.setattr(demo, "TUNING", tuning)
    plan = demo.Strategy.plan

    def short(self: demo.Strategy, modality: str) -> Any:
        return [{"scratch": {"epochs": 1}}] if self.method == "scratch" else plan(self, modality)

    monkeypatch.setattr(demo.Strategy, "plan", short)
    monkeypatch.setattr(demo, "OTHER", {"force": True})


@pytest.mark.parametrize("sample", [image, *(pytest.param(each, marks=pytest.mark.slow) for each in (text, audio))])
def test_all_strategies_answer_for_the_same_rows(sample: ModuleType, tmp_path: Path) -> None:
    said: list[Event] = []
    modality = sample.__name__.rpartition(".")[2]
    found = demo.demo(modality, tmp_path, on_event=said.append)
    assert [line.strategy.title for line in found.lines] == ["from scratch", "frozen random", "probe", "fine-tuned"]
    assert {line.accuracy["n"] for line in found.lines} == {found.rows["test"]}
    kinds = [line.run.read("model/headstart.json")["origin"]["weights"] for line in found.lines]
    assert kinds == ["random", "random", "pretrained", "pretrained"]
    sizes = {line.strategy.title: line.trained for line in found.lines}
    assert sizes["from scratch"] > sizes["probe"] == sizes["frozen random"]
    assert found.gains["probe"].value == pytest.approx(
        found.lines[2].accuracy["value"] - found.lines[1].accuracy["value"]
    )
    assert (found.run.path / "report.html").is_file()
    assert found.run.path == tmp_path / "demo" / modality / "fine-tuned"
    assert {type(event) for event in said} == {events.Notice, events.Progress}, "the report tells the rest"
    open_tasks = {event.task for event in said if isinstance(event, events.Progress)}
    for event in said:
        if isinstance(event, events.Progress) and event.done >= event.total:
            open_tasks.discard(event.task)
    assert not open_tasks
    console = Console(file=io.StringIO(), width=100, theme=THEME)
    results.demonstration(found, console)
    shown = console.file.getvalue()
    for told in (sample.TITLE, "from scratch", f"n = {found.rows['test']}", "points ["):
        assert told in shown
    stages = found.run.stages()
    kept = "was not better than the probe" in shown
    assert kept == (found.run.read("result.json")["best"] == "probe") == (stages[1]["verdict"]["decision"] != "keep")
    assert "report.html" in shown.replace("\n", ""), "a long path is wrapped"
    assert max(map(len, shown.splitlines())) <= 100
    again = demo.demo(modality, tmp_path)
    assert [line.accuracy for line in again.lines] == [line.accuracy for line in found.lines], "complete runs stand"


def test_of_an_unknown_kind_the_nearest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'image'"):
        demo.demo("images", tmp_path)
    assert cli.run(["demo", "images", "--output-dir", str(tmp_path)]) == 1
    assert "did you mean 'image'" in capsys.readouterr().err
