"""What people see: progress on a terminal, plain lines in a log, nothing that a file name could smuggle in."""

from __future__ import annotations

import errno
import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headstart import results, tables, terminal
from headstart.core import events, manifest
from headstart.core.errors import ConfigError, DataError, Problem
from headstart.core.run import Run
from headstart.measure import metrics
from headstart.measure.classes import ClassScore
from headstart.measure.intervals import Measured
from headstart.report.formats import is_share
from headstart.terminal import THEME, Terminal

ESCAPE = "\x1b"


def plain(width: int = 100) -> Console:
    return Console(file=io.StringIO(), theme=THEME, width=width, force_terminal=False, no_color=True, highlight=False)


def fancy(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), theme=THEME, width=width, force_terminal=True, color_system="256", highlight=False
    )


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def measured(value: float, spread: float = 0.05, n: int = 61) -> dict[str, Any]:
    return {"accuracy": {"value": value, "low": value - spread, "high": min(1.0, value + spread), "n": n},
            "log_loss": {"value": 0.2, "low": 0.1, "high": 0.3, "n": n}}  # fmt: skip


def epoch(number: int, accuracy: float) -> events.EpochDone:
    return events.EpochDone(1, number, 3, number * 4, 0.5, 0.4, {"accuracy": accuracy}, 3e-4, 1.2, number == 1)


STORY = [
    events.Notice("warning", "unreadable", "2 files cannot be read: [red]a[/red].jpg", "remove them"),
    events.Decision("backbone", "builtin/tiny", "it is the only one here"),
    events.Progress("decode", 5, 10, "files"),
    events.Progress("decode", 10, 10, "files"),
    events.StageStarted(0, "probe", "probe", "the head"),
    events.StageDone(0, "probe", 3.2, "keep", "the first stage", measured(0.9)),
    events.StageStarted(1, "thaw-half", "thaw", "4 of 8 blocks", 3, 12),
    events.Progress("train", 4, 12, "updates", "epoch 1"),
    epoch(1, 0.91),
    epoch(2, 0.92),
    epoch(3, 0.93),
    events.StageDone(1, "thaw-half", 95.0, "revert", "a tie with probe", measured(0.9)),
    events.Phase("audit", 1.0),
]


def test_a_log_has_no_control_codes_and_one_line_an_epoch() -> None:
    console = plain(width=40)
    with Terminal(console) as shown:
        for event in STORY:
            shown(event)
    told = text(console)
    assert ESCAPE not in told
    assert "\r" not in told
    lines = told.splitlines()
    assert [line for line in lines if line.strip().startswith("epoch")] == [
        "    epoch 1/3  train loss 0.5000  val loss 0.4000  accuracy 91.0 %  lr 3.0e-04  1.2 s  best so far",
        "    epoch 2/3  train loss 0.5000  val loss 0.4000  accuracy 92.0 %  lr 3.0e-04  1.2 s",
        "    epoch 3/3  train loss 0.5000  val loss 0.4000  accuracy 93.0 %  lr 3.0e-04  1.2 s",
    ]
    assert lines[0] == "! 2 files cannot be read: [red]a[/red].jpg"
    assert "  backbone: builtin/tiny · it is the only one here" in lines
    assert "  ✓ kept  accuracy 90.0 % [85.0, 95.0], n = 61  3.2 s" in lines
    assert "  ↩ reverted  accuracy 90.0 % [85.0, 95.0], n = 61  1:35 min" in lines


def test_a_log_hears_from_long_work_now_and_then() -> None:
    now = [0.0]
    console = plain()
    shown = Terminal(console, clock=lambda: now[0])
    for done in range(0, 101, 10):
        now[0] += 4.0
        shown(events.Progress("decode", done, 100, "files"))
    assert text(console).splitlines() == ["    decode 40/100 files", "    decode 80/100 files"]


def test_a_terminal_shows_progress_and_leaves_a_short_story() -> None:
    console = fancy()
    with Terminal(console) as shown:
        for event in STORY:
            shown(event)
    told = text(console)
    assert ESCAPE in told
    assert "▁▅█" in told, "the course of the epochs"
    assert "epoch 1/3" not in told
    assert shown._tasks == {}, "no bar is left behind"


def test_every_epoch_shows_the_metric_that_it_was_judged_by() -> None:
    """Continued pretraining is judged by a loss of its own, the stages after it by what the run is."""
    console = plain()
    shown = Terminal(console, metric="auto")
    for stage, told in ((0, {"masked_loss": 4.5}), (1, {"accuracy": 0.91})):
        shown(events.EpochDone(stage, 1, 1, 4, 0.5, 0.4, told, 3e-4, 1.2, True))
    first, second = text(console).splitlines()
    assert "masked_loss 4.5" in first
    assert "accuracy 91.0 %" in second


def test_the_terminal_is_given_back_when_work_fails() -> None:
    def work() -> None:
        with Terminal(console) as shown:
            shown(STORY[2])
            raise DataError("broken")

    console = fancy()
    with pytest.raises(DataError):
        work()
    assert f"{ESCAPE}[?25h" in text(console), "the cursor is shown again"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_of_several_processes_the_first_speaks(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    Terminal()(events.Notice("warning", "unreadable", "2 files cannot be read"))
    assert ("2 files cannot be read" in capsys.readouterr().out) == (rank == "0")


def test_shares_are_told_in_percent_and_losses_are_not() -> None:
    """As the report does."""
    shares = {name for name in metrics.NAMES if is_share(name)}
    assert {name for name in metrics.NAMES if terminal.number(name, 0.25) == "25.0 %"} == shares
    assert terminal.number("log_loss", 0.25) == "0.250"


@pytest.mark.parametrize("planted", ["\x1b[2J", "a\rb", "\x07", "\u202egpj.exe", "\x9b31m"])
def test_file_names_cannot_steer_the_terminal(planted: str) -> None:
    console = plain()
    shown = Terminal(console)
    shown(events.Notice("warning", "x", f"bad {planted} name", f"remove {planted}"))
    shown(events.StageDone(0, "probe", 1.0, "keep", planted, measured(0.9)))
    terminal.show_error(DataError(planted, where=planted), console)
    console.print(tables.counts({"train": {planted: 3}}, {"train": 3}))
    assert planted not in text(console)
    assert terminal.clean(planted) in text(console)


def test_a_terminal_that_lacks_characters_does_not_stop_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    made = terminal.console()
    shown = Terminal(made)
    for event in STORY:
        shown(event)
    results.show(finished(tmp_path), made)
    made.file.flush()
    assert "? kept" in raw.getvalue().decode("ascii")


@pytest.mark.parametrize(("no_color", "is_plain"), [(None, False), ("1", True), ("", True)])
def test_no_color_is_plain(monkeypatch: pytest.MonkeyPatch, no_color: str | None, is_plain: bool) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    made = terminal.console()
    assert made.is_terminal is not is_plain


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.001, "0 s"),
        (0.42, "0.42 s"),
        (3.21, "3.2 s"),
        (31, "31 s"),
        (95, "1:35 min"),
        (3599, "59:59 min"),
        (3720, "1:02 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert terminal.duration(seconds) == shown


def finished(folder: Path, **result: Any) -> Run:
    """A run folder as ``fit`` leaves it."""
    run = Run(folder / "photos")
    run.write("baseline/result.json", [{"name": "majority", "seconds": 0.0, "metrics": measured(0.5)}])
    for index, (name, decision, thawed) in enumerate([("probe", "keep", 0), ("half", "revert", 4), ("all", "keep", 8)]):
        value = {"index": index, "name": name, "method": "thaw", "trainable": 1000 + thawed, "parameters": 9_000,
                 "blocks": 8, "frozen_blocks": 8 - thawed, "seconds": 3.0,
                 "metrics": {"val": measured(0.9 + index / 50)},
                 "verdict": {"decision": decision, "reason": "", "metric": "accuracy"}}  # fmt: skip
        manifest.write_json(run.stage_folder(index, name) / "result.json", value)
        manifest.seal(run.stage_folder(index, name))
    run.write("model/x.json", {})
    (run.path / "report.html").write_text("x", encoding="utf-8")
    phases = [{"name": "all", "seconds": 90.0}, {"name": "probe", "seconds": 3.0}, {"name": "nothing", "seconds": 0.0}]
    metrics = {"val": measured(0.94), "test": measured(0.95, n=76)}
    run.write("result.json", {"best": "all", "metrics": metrics, "seconds": 95.0, "phases": phases, **result})
    return run


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_table_of_a_run(tmp_path: Path, width: int) -> None:
    run = finished(tmp_path)
    console = plain(width)
    results.show(run, console)
    told = text(console)
    lines = [line.rstrip() for line in told.splitlines()]
    assert max(len(line) for line in lines) <= width
    assert "…" not in told, "nothing is cut off"
    stages = [line.split()[0] for line in lines if re.search(r"baseline$|kept|reverted", line)]
    assert stages == ["majority", "probe", "half", "all"], "the baselines come first"
    assert re.search(r"all .*94.0 % \[89.0, 99.0\].*✓ kept ★ best", told)
    assert ("4/8 blocks" in told) == (width >= 90)
    assert ("●" in told) == (width >= 112)
    joined = re.sub(r"\s+", " ", told)
    assert "test accuracy 95.0 % [90.0, 100.0], n = 76 · log loss 0.200" in joined
    assert "1:35 min: all 1:30 min · probe 3 s" in joined
    assert "nothing" not in joined
    assert "report" in joined
    assert "headstart predict" in joined


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("accuracy", "+30.8 points [22.1, 39.0] over pixels on the same rows, which reaches 61.0 % [56.0, 66.0]"),
        ("log_loss", "+0.308 [0.221, 0.390] over pixels on the same rows, which reaches 0.200 [0.100, 0.300]"),
        ("macro_f1", None),
    ],
)
def test_the_gain_over_a_baseline_on_test_rows_is_told(tmp_path: Path, metric: str, told: str | None) -> None:
    gain = {"value": 0.308, "low": 0.221, "high": 0.39, "p": 0.001, "n": 76}
    pixels, other = ({"name": name, "metrics": measured(0.61, n=76), "gain": gain} for name in ("pixels", "majority"))
    run = finished(tmp_path, baselines=[pixels, other])
    result = run.read("result.json")
    lines = [str(line) for _, line in results._conclusion(run, result, metric) if " over " in str(line)]
    assert lines == ([told] if told else [])
    results.show(run, console := plain(140))
    assert "+30.8 points" in text(console)
    assert "over majority" not in text(console)


def test_the_table_says_what_to_distrust(tmp_path: Path) -> None:
    run = finished(tmp_path, optimistic=True, beaten_by="majority", metrics={"val": measured(0.94), "test": None})
    console = plain()
    results.show(run, console)
    assert "selected on these rows, optimistic" in text(console)
    assert "no stage beat the baseline 'majority'" in text(console)
    assert "\ntest" not in text(console)
    assert "headstart predict" not in text(console), "what was not accepted is not recommended"


def test_the_next_line_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    console = plain(200)
    results.show(finished(tmp_path / "my runs"), console)
    assert f"headstart predict '{tmp_path}/my runs/photos' new/" in text(console)
    run = finished(tmp_path / "texts")
    manifest.write_json(run.path / "data.json", {**run.read("data.json", default={}), "modality": "text"})
    results.show(run, console)
    assert f"headstart predict {tmp_path}/texts/photos new.csv" in text(console)


def test_a_run_without_any_stage_yet_can_be_shown(tmp_path: Path) -> None:
    run = Run(tmp_path / "empty")
    run.path.mkdir()
    console = plain()
    results.show(run, console)
    assert "stage" in text(console)


def test_of_many_classes_the_worst_come_first_and_the_others_are_counted() -> None:
    def share(value: float, n: int = 9) -> Measured:
        return Measured(value, value - 0.1, value + 0.1, n)

    f1 = {"fair": 0.6, "empty": 0.0, "good": 0.9, "bad": 0.2, "best": 0.95}
    scores = [
        ClassScore(name, share(value, 9 * (name != "empty")), share(value, 9 * (name != "empty")), share(value))
        for name, value in f1.items()
    ]
    console = plain()
    console.print(results.classes(scores, limit=3))
    lines = [line.split()[0] for line in text(console).splitlines()[2:]]
    assert lines == ["bad", "fair", "good", "and"]
    assert "and 1 better one and 1 without rows" in text(console)


def test_the_whisker_is_on_one_scale() -> None:
    scale = tables._scale([measured(0.5, 0.1)["accuracy"], measured(0.9, 0.1)["accuracy"]])
    low = tables._whisker(measured(0.5, 0.1)["accuracy"], scale, 24).plain
    high = tables._whisker(measured(0.9, 0.1)["accuracy"], scale, 24).plain
    assert low.startswith("─")
    assert high.endswith("─")
    assert low.index("●") < high.index("●")
    whole = {"value": 1.0, "low": 0.5, "high": 1.0, "n": 12}
    assert tables._whisker(whole, (0.5, 1.0), 24).plain == "─" * 23 + "●", "all right: the end is the last place"


def test_errors_are_panels_on_a_terminal_and_lines_in_a_log() -> None:
    error = ConfigError(
        "the settings cannot be used", problems=[Problem("one", "a", "do this"), Problem("two [b]", "c")]
    )
    console = plain()
    terminal.show_error(error, console)
    assert text(console) == "the settings cannot be used:\na: one\n  do this\nc: two [b]\n"
    console = fancy()
    terminal.show_error(error, console)
    assert "╭" in text(console)
    assert "two [b]" in text(console)


class Full(io.StringIO):
    """Takes a few writes, then none."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("writes", [0, 1, 4])
@pytest.mark.parametrize("make", [plain, fancy])
def test_work_goes_on_where_nothing_can_be_shown(make: Any, writes: int, capsys: pytest.CaptureFixture[str]) -> None:
    to = make()
    shown = Terminal(to, endures=True)
    if shown._live:
        shown._live.live.auto_refresh = False  # a thread of its own would meet the full disk first, now and then
    with shown:
        to.file = Full(writes)
        for event in STORY:
            shown(event)
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "what is shown here arrives nowhere any more (No space left on device); the work goes on"
    assert to.quiet


@pytest.mark.parametrize("make", [plain, fancy])
def test_what_only_shows_something_fails_where_it_cannot(make: Any) -> None:
    to = make()
    shown = Terminal(to)
    to.file = Full(0)
    with pytest.raises(OSError, match="No space left"):
        shown(STORY[0])
    assert not to.quiet
