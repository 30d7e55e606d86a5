"""What people see while Headstart works: progress where the output is a terminal, plain lines where it is not.

Imports rich and nothing heavy. Colours are of the 256-colour cube and chosen to be readable on dark and light grounds.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from rich.theme import Theme

from headstart.core import events
from headstart.core.errors import HeadstartError

THEME = Theme(
    {
        "accent": "color(32)",
        "good": "color(34)",
        "warn": "color(172)",
        "bad": "color(160)",
        "quiet": "dim",
        "bar.complete": "color(32)",
        "bar.finished": "color(34)",
        "progress.remaining": "dim",
    }
)
SHARES = {
    *("accuracy", "top5", "macro_f1", "balanced_accuracy", "roc_auc", "sensitivity", "ece"),
    *("mAP", "micro_f1", "subset_accuracy", "hamming_loss"),
}
VERDICTS = {"keep": ("✓", "kept", "good"), "revert": ("↩", "reverted", "warn"), "stop": ("■", "stopped", "bad")}
HEARTBEAT_SECONDS = 15.0


def console(*, stderr: bool = False) -> Console:
    """A console that is plain (no control codes at all) unless it writes to a terminal that wants colours."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")  # a terminal that lacks a character shows ?, and the run goes on
    made = Console(stderr=stderr, theme=THEME, highlight=False, emoji=False)
    if made.is_terminal and "NO_COLOR" not in os.environ and not made.is_dumb_terminal:
        return made
    width = made.width if made.is_terminal or "COLUMNS" in os.environ else 100
    return Console(
        stderr=stderr, theme=THEME, highlight=False, emoji=False, force_terminal=False, no_color=True, width=width
    )


def clean(text: object) -> str:
    """Text for a terminal: a file name must not move the cursor, so what is not printable is shown as its code."""
    return "".join(ch if ch.isprintable() or ch == "\n" else f"\\x{ord(ch):02x}" for ch in str(text))


def number(metric: str, value: float) -> str:
    """A metric's value for people: shares in percent, losses with three decimals."""
    return f"{100 * value:.1f} %" if metric in SHARES else f"{value:.3f}"


def duration(seconds: float) -> str:
    """``0.42 s``, ``31 s``, ``4:05 min``, ``1:02 h``."""
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 0.01 else "0 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60) if seconds >= 3600 else seconds / 60
    if seconds >= 3600:
        return f"{int(minutes) // 60}:{int(minutes) % 60:02d} h"
    return f"{int(minutes)}:{int(seconds % 60):02d} min"


def spark(values: list[float]) -> str:
    """The course of a few numbers in one line of bars."""
    low, high = min(values), max(values)
    steps = "▁▂▃▄▅▆▇█"
    return "".join(steps[round((value - low) / (high - low) * 7) if high > low else 3] for value in values)


class Terminal:
    """Shows events; give it to ``fit(on_event=…)`` and use it as a context, so that the progress ends with the work.

    ``endures`` is for work that leaves more than what is shown: a closed terminal, a reader that went away or a full
    disk under a log must not cost hours of training, and silence it alone.
    """

    def __init__(
        self,
        to: Console | None = None,
        *,
        metric: str = "accuracy",
        endures: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = to or console()
        if to is None:  # under torchrun one process speaks
            self.console.quiet = os.environ.get("RANK", "0") != "0"
        self.metric, self.endures = metric, endures
        self._clock = clock
        self._live = self._progress() if self.console.is_terminal else None
        self._tasks: dict[str, TaskID] = {}
        self._heard: dict[str, float] = {}
        self._course: list[float] = []
        self._last = ""
        self._gone = False  # nothing that is said arrives any more

    def __enter__(self) -> Terminal:
        if self._live:
            self._live.start()
            self._tasks["starting"] = self._live.add_task("starting", total=None, note="", count="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self.tell(self._live.stop)

    def __call__(self, event: events.Event) -> None:
        self.tell(lambda: self._show(event))

    def tell(self, say: Callable[[], None]) -> None:
        """Say something, where anything arrives."""
        if self._gone:
            return
        try:
            say()
        except (OSError, SystemExit) as error:  # rich ends a process whose reader has gone by a SystemExit
            if not self.endures:
                raise
            self._fall_silent(error)

    def _fall_silent(self, error: BaseException) -> None:
        self._gone = True
        if self._live:  # before anything is said: until then the errors go where the progress goes
            with contextlib.suppress(OSError, SystemExit):
                self._live.stop()
        self.console.quiet = True
        with contextlib.suppress(OSError):
            why = f" ({error.strerror})" if isinstance(error, OSError) else ""
            print(f"what is shown here arrives nowhere any more{why}; the work goes on", file=sys.stderr, flush=True)

    def _show(self, event: events.Event) -> None:
        if "starting" in self._tasks:  # libraries were loaded, work has begun
            self._end_tasks()
        match event:
            case events.Notice():
                self._notice(event)
            case events.Decision():
                self.say(Text(f"  {event.topic}: {clean(event.choice)} · {clean(event.reason)}", style="quiet"))
            case events.Progress():
                self._advance(event)
            case events.StageStarted():
                self._stage_started(event)
            case events.EpochDone():
                self._epoch_done(event)
            case events.StageDone():
                self._stage_done(event)

    def say(self, text: Text, indent: int = 4) -> None:
        """One paragraph, wrapped with a hanging indent."""
        if self._live is None:  # a log: one line stays one line
            self.console.print(text, soft_wrap=True)
            return
        first, *rest = text.wrap(self.console, max(20, self.console.width - indent)) or [text]
        self.console.print(first)
        for line in rest:
            self.console.print(Padding(line, (0, 0, 0, indent)))

    def _notice(self, event: events.Notice) -> None:
        if event.level == "info":
            self.say(Text(f"  {clean(event.message)}", style="quiet"))
            return
        self.say(Text.assemble(("! ", "warn"), (clean(event.message), "warn")))
        if event.remedy:
            self.say(Text(f"    {clean(event.remedy)}", style="quiet"))

    def _stage_started(self, event: events.StageStarted) -> None:
        self._course, self._last = [], ""
        facts = [event.summary]
        if event.epochs:
            facts.append(f"{event.epochs} epoch{'s' * (event.epochs > 1)}, {event.updates} updates")
        title = Text.assemble(("▸ ", "accent"), (f"{event.stage + 1} {clean(event.name)}", "bold"))
        self.say(Text.assemble(title, "  ", (clean(" · ".join(facts)), "quiet")))

    def _epoch_done(self, event: events.EpochDone) -> None:
        name = self.metric if self.metric in event.val_metrics else next(iter(event.val_metrics), "")
        score = event.val_metrics.get(name)
        self._course.append(-event.val_loss if score is None else score)
        shown = "" if score is None else f"{name} {number(name, score)}"
        if self._live:
            self._last = f"loss {event.val_loss:.3f} · {shown}" if shown else f"loss {event.val_loss:.3f}"
            return
        best = "  best so far" if event.improved else ""
        self.say(
            Text(
                f"    epoch {event.epoch}/{event.epochs}  train loss {event.train_loss:.4f}"
                f"  val loss {event.val_loss:.4f}  {shown}  lr {event.lr:.1e}  {duration(event.seconds)}{best}"
            ),
            indent=6,
        )

    def _stage_done(self, event: events.StageDone) -> None:
        self._end_tasks()
        mark, word, style = VERDICTS.get(event.decision, ("·", event.decision, "quiet"))
        name = self.metric if self.metric in event.metrics else next(iter(event.metrics), "")
        score = interval_text(name, event.metrics[name]) if name else ""
        course = f"  {spark(self._course)}" if len(self._course) > 1 and self._live else ""
        head = Text.assemble((f"  {mark} {word}", style), "  ", (score, "bold"), f"  {duration(event.seconds)}", course)
        self.say(head)
        self.say(Text(f"    {clean(event.reason)}", style="quiet"))

    def _advance(self, event: events.Progress) -> None:
        if self._live is None:
            self._heartbeat(event)
            return
        task = self._tasks.get(event.task)
        if task is None:
            task = self._tasks[event.task] = self._live.add_task(
                clean(event.task), total=event.total, note="", count=""
            )
        narrow = self.console.width < 100
        count = f"{event.done}/{event.total}" + ("" if narrow else f" {event.unit}")
        note = " · ".join(part for part in (clean(event.note), self._last if event.task == "train" else "") if part)
        self._live.update(task, completed=event.done, total=event.total, note=note, count=count)
        if event.done >= event.total:
            self._live.remove_task(task)
            del self._tasks[event.task]

    def _heartbeat(self, event: events.Progress) -> None:
        """In a log: one line now and then, and one at the end of what took that long."""
        now = self._clock()
        began = self._heard.setdefault(event.task, now)
        if now - began >= HEARTBEAT_SECONDS:
            self.say(Text(f"    {clean(event.task)} {event.done}/{event.total} {event.unit}"))
            self._heard[event.task] = now
        if event.done >= event.total:
            del self._heard[event.task]

    def _end_tasks(self) -> None:
        for task in self._tasks.values():
            assert self._live is not None
            self._live.remove_task(task)
        self._tasks.clear()

    def _progress(self) -> Progress:
        narrow = self.console.width < 100
        return Progress(
            SpinnerColumn(style="accent"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=14 if narrow else 30),
            TextColumn("{task.fields[count]}", style="quiet"),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=self.console,
            transient=True,
        )


def interval_text(metric: str, measured: Mapping[str, Any]) -> str:
    """``accuracy 94.1 % [91.8, 96.0], n = 61``."""
    low, high = (number(metric, measured[side]).removesuffix(" %") for side in ("low", "high"))
    return f"{metric} {number(metric, measured['value'])} [{low}, {high}], n = {measured['n']}"


def show_interrupted(arguments: list[str]) -> None:
    """How a command that a signal has ended goes on, where the terminal is still there."""
    with contextlib.suppress(OSError):
        print("\ninterrupted", file=sys.stderr)
        if arguments[:1] == ["fit"]:
            again = [word for word in arguments if word != "--resume"]  # nothing may be there to resume yet
            print(f"the same command goes on: {shlex.join(['headstart', *again])}", file=sys.stderr, flush=True)


def show_error(error: HeadstartError, to: Console | None = None) -> None:
    """Every problem with its place and remedy, without a traceback."""
    to = to or console(stderr=True)
    body = Text()
    for index, problem in enumerate(error.problems):
        body.append("\n" if index else "")
        if problem.where:
            body.append(f"{clean(problem.where)}: ", style="bold")
        body.append(clean(problem.what))
        if problem.remedy:
            body.append(f"\n  {clean(problem.remedy)}", style="quiet")
    title = clean(error.summary) if len(error.problems) > 1 else "error"
    if to.is_terminal:
        to.print(Panel(body, title=Text(title, style="bad"), title_align="left", border_style="bad", padding=(0, 1)))
    else:
        to.print(Text.assemble(f"{title}: " if len(error.problems) == 1 else f"{title}:\n", body), soft_wrap=True)
