"""What several verbs of the command line share: words, options, and the terminal that shows their events."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headstart.experiment import Experiment
    from headstart.terminal import Terminal

Words = Annotated[list[str] | None, typer.Argument(metavar="[DATA] [KEY=VALUE]...", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/photos.")]
Sources = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="Files, folders, tables; input_column=NAME tells what a table holds."),
]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="A YAML file with settings; the line wins.")]
Backbone = Annotated[str | None, typer.Option(help="timm/…, torchvision/…, builtin/…, a path, a Hub id, or my.net.")]
Weights = Annotated[str | None, typer.Option(help="A file of weights for the backbone (safetensors or a state dict).")]
Plan = Annotated[str | None, typer.Option(help="probe, gradual, full, scratch, auto, or one method.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random; 42 unless told.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is on this machine.")]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k",
        "-k",
        min=1,
        help="How many labels a file, with probabilities: 1 unless told, or those it has where they may be several; "
        "with --output all where at most 20.",
    ),
]
Variant = Annotated[
    str | None,
    typer.Option(help="Of the export, such as 'onnxruntime fp32', whatever its verdict; the best unless told."),
]
AllowModule = Annotated[
    bool, typer.Option("--allow-module", help="Import the module of your own that the model stands on.")
]
Answers = Annotated[
    Path | None, typer.Option("--output", "-o", help="Also write the answer for every row: a .csv or .jsonl file.")
]
Features = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="A .npz file: features and names; features.npz, or the next that is not there."
    ),
]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")]


def _only_settings(words: list[str] | None) -> list[str] | None:
    if left := [word for word in words or () if not _is_setting(word)]:
        raise typer.BadParameter(f"what is '{left[0]}'? Labelled data are given with --data")
    return words


Columns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="input_column=…, label_column=…: those of the run unless told.",
        callback=_only_settings,
    ),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        import headstart

        typer.echo(f"headstart {headstart.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Show it and exit.", is_eager=True, callback=_show_version)]


def places(words: list[str]) -> str | list[str | Path]:
    """What is to be read: one place, or several; what is there is a place, whatever it is called."""
    found = [word for word in words if not _is_setting(word)]
    return found[0] if len(found) == 1 else [Path(word) if os.path.exists(word) else word for word in found]


def columns(words: list[str] | None, *known: str) -> dict[str, Any]:
    """The columns that words such as ``data.input_column=body`` name, by the name behind the dot.

    Raises:
        ConfigError: another setting, or no name.
    """
    from headstart.core import registry, settings
    from headstart.core.errors import ConfigError, Problem

    problems, told = [], dict[str, Any]()
    for word in filter(_is_setting, words or ()):
        name, _, text = word.removeprefix("data.").partition("=")
        if name not in known:
            remedy = "known here: " + ", ".join(f"{each}=…" for each in known)
            problems.append(Problem(f"unknown setting{registry.suggest(name, known)}", word, remedy))
        elif not text:
            problems.append(Problem("names no column", word))
        else:
            value = settings.value(text)
            told[name] = tuple(map(str, value)) if isinstance(value, list) else text
    if problems:
        raise ConfigError("the settings cannot be used", problems=problems)
    return told


def _is_setting(word: str) -> bool:
    """With or without the ``data.``, as in ``fit``; anything else with a = is the name of a file, as is what exists."""
    name, equals, _ = word.partition("=")
    named = name.startswith("data.") or name in ("input_column", "label_column")
    return bool(equals) and named and not os.path.exists(word)


def terminal(experiment: Experiment | None = None, *, endures: bool = False) -> Terminal:
    """The terminal that shows events, after the names of other tools were said aloud."""
    from headstart.core.events import Notice
    from headstart.terminal import Terminal

    metric = getattr(experiment, "metric", "auto")
    made = Terminal(metric=metric if isinstance(metric, str) else "", endures=endures)
    for note in experiment.notes if experiment else ():
        made(Notice("info", "alias", note))
    return made
