"""What several verbs of the command line share: words, options, and the terminal that shows their events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headstart.experiment import Experiment
    from headstart.terminal import Terminal

Words = Annotated[list[str] | None, typer.Argument(metavar="[DATA] [KEY=VALUE]...", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/photos.")]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...", help="Files, folders, tables; data.input_column=NAME tells what a table holds."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...", help="data.input_column, data.label_column: those of the run unless told."
    ),
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
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file instead of the terminal.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        import headstart

        typer.echo(f"headstart {headstart.__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Show it and exit.", is_eager=True, callback=_show_version)]


def parted(words: list[str], *known: str) -> tuple[list[str], dict[str, str]]:
    """What is read, and which columns: words such as ``data.input_column=body``, by the name behind the dot.

    Raises:
        ConfigError: another setting.
    """
    from headstart.core.errors import ConfigError

    told = dict(word.removeprefix("data.").split("=", 1) for word in words if word.startswith("data.") and "=" in word)
    if unknown := [name for name in told if name not in known]:
        remedy = "known here: " + ", ".join(f"data.{name}=…" for name in known)
        raise ConfigError(f"no such setting: {', '.join(unknown)}", where="data", remedy=remedy)
    return [word for word in words if not (word.startswith("data.") and "=" in word)], told


def terminal(experiment: Experiment | None = None) -> Terminal:
    """The terminal that shows events, after the names of other tools were said aloud."""
    from headstart.core.events import Notice
    from headstart.terminal import Terminal

    metric = getattr(experiment, "metric", "auto")
    made = Terminal(metric=metric if isinstance(metric, str) else "")
    for note in experiment.notes if experiment else ():
        made(Notice("info", "alias", note))
    return made
