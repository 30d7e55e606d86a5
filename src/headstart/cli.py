"""The command line: verbs only. Everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import errno
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart import options, shipping
from headstart.core import process

if TYPE_CHECKING:
    from headstart.experiment import Experiment

EXAMPLES = """
[bold]headstart fit photos/[/] trains; runs/photos/ then holds the model, the report and the evidence.\n
[bold]headstart fit photos/ --backbone timm/resnet18.a1_in1k --plan full lr=3e-4 mixup=0.2[/]\n
[bold]headstart predict runs/photos new/ --output predictions.csv[/]
"""
NOWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EPIPE)  # of an output that takes no more
INTERRUPTED = (129, 130, 143)  # by SIGHUP, by SIGINT (what typer makes of Ctrl-C), by SIGTERM
EPILOG = (
    "Exit codes: 0 done, 1 error, 2 nothing acceptable came out. --traceback, with any verb, shows where an error rose."
)
app = typer.Typer(
    help="Transfer learning in measured stages: from a folder to a model one can trust.\n\n" + EXAMPLES,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(version: options.Version = False) -> None:
    """Options of the program itself."""


@app.command()
def fit(
    words: options.Words = None,
    config: options.Config = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    plan: options.Plan = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; that of the data unless told.")] = None,
    output_dir: Annotated[str | None, typer.Option(help="Where runs go; runs/ unless told.")] = None,
    seed: options.Seed = None,
    device: options.Device = None,
    offline: options.Offline = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the interrupted run of these settings.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show every setting and its origin; run nothing.")] = False,
) -> None:
    """Train in measured stages: the run folder holds the model, the report and the evidence.

    Exit code 2 where no stage beat the baseline.
    """
    flags = {"weights": weights, "name": name, "output_dir": output_dir, "seed": seed, "device": device}
    experiment = _experiment(words, config, backbone=backbone, plan=plan, offline=offline, **flags)
    from headstart import results, tables
    from headstart.core.interruption import Interrupted

    with options.terminal(experiment, endures=True) as terminal:
        if explain:
            from headstart.data import sources

            terminal.console.print(tables.explained(experiment.explain(sources.modality_of(experiment.data))))
            return
        from headstart.workflows.fit import fit as run_fit

        try:
            run = run_fit(experiment, on_event=terminal, resume=resume)
        except Interrupted as error:
            raise typer.Exit(error.exit_code) from error
        terminal.tell(lambda: results.show(run, terminal.console))
    if run.beaten_by:
        raise typer.Exit(2)


@app.command()
def predict(
    run: options.RunFolder,
    source: options.Sources,
    output: options.Output = None,
    top_k: options.TopK = None,
    variant: options.Variant = None,
    device: options.Device = None,
    allow_module: options.AllowModule = False,
) -> None:
    """Label new files: a table, or --output predictions.csv or .jsonl."""
    from headstart import predictions, tables

    columns = options.columns(source, "input_column")
    if output:
        predictions.check(output, predictions.TEXTS, source)
    with options.terminal(endures=output is not None) as terminal:
        from headstart.workflows.predict import answerer

        model = answerer(run, variant=variant, device=device or "cpu", allow_module=allow_module, on_event=terminal)
        whole = output is not None
        top = predictions.labels_a_file(top_k, len(model.classes), whole=whole, several=model.several)
        found = model.predict(options.places(source), top_k=top, **columns, on_event=terminal)
    if output:
        quoted = predictions.write(output, found, top)
        terminal.console.print(f"{predictions.summary(found, output)}\n{quoted}".strip(), markup=False)
    else:
        terminal.console.print(tables.predictions(found, predictions.most_labels(found, top)))
    if all(row.problem and not row.scores for row in found):
        raise typer.Exit(1)


@app.command()
def evaluate(
    run: options.RunFolder,
    columns: options.Columns = None,
    data: Annotated[str | None, typer.Option(help="Labelled data; the run's own test rows unless told.")] = None,
    output: options.Answers = None,
    allow_module: options.AllowModule = False,
) -> None:
    """Measure a run's model, each number with its 95 % interval."""
    from headstart import predictions, results

    named = options.columns(columns, "input_column", "label_column")
    if output:
        predictions.check(output, predictions.TEXTS, [data] if data else [])
    with options.terminal(endures=output is not None) as terminal:
        from headstart.workflows.evaluate import evaluate as evaluate_run

        found = evaluate_run(run, data, **named, allow_module=allow_module, on_event=terminal)
    quoted = predictions.write_answers(output, found) if output else ""  # first: a reader may go away
    terminal.console.print(results.evaluation(found.metrics(), data or "test rows of the run"))
    terminal.console.print()
    terminal.console.print(results.classes(found.per_class()))
    if output:
        terminal.console.print(f"\n{len(found)} answers in {output}\n{quoted}".rstrip(), markup=False)


@app.command()
def report(run: options.RunFolder) -> None:
    """Write the run's report.html again, from what the folder holds."""
    from headstart.core.run import Run

    opened = Run.open(run)
    from headstart.report import page

    page.write(opened)
    typer.echo(opened.path / "report.html")


@app.command()
def audit(words: options.Words = None, config: options.Config = None, offline: options.Offline = False) -> None:
    """Look for what is wrong with the data; nothing is changed. Exit code 2 where no training should start."""
    experiment = _experiment(words, config, offline=offline)
    from headstart import tables

    with options.terminal(experiment) as terminal:
        from headstart.workflows.audit import audit as check

        splits, found = check(experiment, on_event=terminal)
    rows = {name: len(part) for name, part in splits.present().items()}
    terminal.console.print(tables.counts(splits.counts(), rows))
    terminal.console.print(tables.findings(found.findings, found.checked))
    if found.errors:
        raise typer.Exit(2)


@app.command()
def plan(
    words: options.Words = None,
    config: options.Config = None,
    backbone: options.Backbone = None,
    weights: options.Weights = None,
    plan: options.Plan = None,
    device: options.Device = None,
    offline: options.Offline = False,
) -> None:
    """Show what fit would do: stages, blocks, rates, updates, time and memory. Exit code 2 where it would refuse."""
    flags = {"weights": weights, "device": device}
    experiment = _experiment(words, config, backbone=backbone, plan=plan, offline=offline, **flags)
    from headstart import tables

    with options.terminal(experiment) as terminal:
        from headstart.workflows.plan import plan as lay_out

        table = lay_out(experiment, on_event=terminal)
    tables.plan(table, terminal.console)
    if table.problems:
        raise typer.Exit(2)


@app.command()
def embed(
    run: options.RunFolder,
    source: options.Sources,
    output: options.Features = None,
    allow_module: options.AllowModule = False,
) -> None:
    """Write the features that the head sees, one row a file."""
    from headstart import predictions
    from headstart.core import storage

    columns = options.columns(source, "input_column")
    output = output or storage.unused(Path("features"), ".npz")
    predictions.check(output, predictions.ARRAYS, source)
    with options.terminal(endures=True) as terminal:
        from headstart.workflows.predict import embed as embed_with

        given = options.places(source)
        features, names = embed_with(run, given, **columns, allow_module=allow_module, on_event=terminal)
    predictions.write_features(output, features, names)
    terminal.console.print(f"{features.shape[0]} rows of {features.shape[1]} features in {output}", markup=False)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'timm/resnet*'.")] = "",
) -> None:
    """List backbones by name."""
    from headstart import tables, terminal
    from headstart.models.catalogue import catalogue, missing

    found = catalogue(pattern)
    if not found:
        raise missing(pattern)
    tables.models(found, terminal.console())


@app.command()
def doctor(
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask whether the Hub can be reached.")] = False,
) -> None:
    """Look at this machine: what it can do, what is installed, and known traps with their remedies."""
    from headstart import tables, terminal
    from headstart.workflows import doctor as examine

    checks = examine.examine(hub=not offline)
    terminal.console().print(tables.checks(checks))
    if any(check.status == "error" for check in checks):
        raise typer.Exit(1)


@app.command()
def demo(
    kinds: Annotated[list[str] | None, typer.Argument(help="image, text or audio; all three unless told.")] = None,
    output_dir: Annotated[str, typer.Option(help="Where the runs go.")] = "runs",
) -> None:
    """What pretraining is worth, on data and backbones that ship: from scratch, frozen, probed, fine-tuned."""
    from headstart import results
    from headstart.workflows import demo as workflow

    with options.terminal(endures=True) as terminal:
        for kind in kinds or workflow.MODALITIES:
            found = workflow.demo(kind, Path(output_dir), on_event=terminal)
            terminal.tell(partial(results.demonstration, found, terminal.console))


for _verb in (shipping.export, shipping.bench, shipping.push, shipping.serve):
    app.command()(_verb)


def main() -> None:
    """The entry point: errors become one clear message and an exit code."""
    process.prepare()
    traceback = "--traceback" in sys.argv or "HEADSTART_TRACEBACK" in os.environ
    arguments = [word for word in sys.argv[1:] if word != "--traceback"]
    process.leave(run(arguments, traceback=traceback))


def run(arguments: list[str], *, traceback: bool = False) -> int:
    """Run one command line; the exit code."""
    from headstart.core.errors import HeadstartError

    try:
        code = int(app(arguments, prog_name="headstart", standalone_mode=False) or 0)
    except HeadstartError as error:
        if traceback:
            raise
        from headstart import terminal

        terminal.show_error(error)
        return error.exit_code
    except Exception as error:
        show = getattr(error, "show", None)  # a mistake on the command line
        if show is not None:
            show()
            return 1
        if traceback:
            raise
        if isinstance(error, OSError) and (error.filename or error.errno in NOWHERE):  # the machine's, not ours
            place = error.filename or "the disk, or what this command shows"
            typer.echo(f"error: {place}: {error.strerror}", err=True)
            return 1
        typer.echo(f"error: {type(error).__name__}: {error}", err=True)
        typer.echo("this should not happen; the same command with --traceback shows where", err=True)
        return 1
    if code in INTERRUPTED:
        from headstart import terminal

        terminal.show_interrupted(arguments)
    return code


def _experiment(words: list[str] | None, config: Path | None, *, offline: bool, **flags: Any) -> Experiment:
    """The settings of a command line. Its first word is the data; ``key=value`` is only where that path exists."""
    overrides = list(words or [])
    data = None
    if overrides and ("=" not in overrides[0] or Path(overrides[0]).exists()):
        data = overrides.pop(0)
    from headstart.experiment import load

    experiment = load(config, overrides, origin="command line", data=data, offline=offline or None, **flags)
    if experiment.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the Hub's client is imported
    return experiment
