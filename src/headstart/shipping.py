"""The verbs of the command line that bring a finished run to where it is used."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from headstart.options import AllowModule, RunFolder, Variant, terminal

Data = Annotated[str | None, typer.Option(help="The run's data, where it has moved.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; all cores unless told.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free one.")]
Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="On the Hugging Face Hub.")]


def export(
    run: RunFolder,
    data: Data = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="How much of the metric may be lost: 0.005 is half a point.")
    ] = 0.005,
    precision: Annotated[
        float | None,
        typer.Option(min=0, max=1, help='Say "don\'t know" as often as it takes to be right this often.'),
    ] = None,
    int8: Annotated[bool, typer.Option(help="Look for a quantised file that is quicker and as good.")] = True,
    threads: Threads = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="Judge only this one (onnxruntime, openvino), as on the machine that will use the export."),
    ] = None,
    allow_module: AllowModule = False,
) -> None:
    """Write ONNX files that run without torch, each with its verdict. Exit code 2 where none is accepted."""
    from headstart.verdicts import told

    with terminal(endures=True) as shown:
        from headstart.workflows import ship

        settings = ship.Settings(tolerance, precision, int8, threads, runtimes=tuple(runtime or ()))
        write = partial(ship.export, run, data=data, settings=settings, allow_module=allow_module, on_event=shown)
        told(shown.console, write)


def bench(run: RunFolder, threads: Threads = None, allow_module: AllowModule = False) -> None:
    """Time an exported run in torch, ONNX Runtime and OpenVINO, in turns, on this machine."""
    from headstart.verdicts import benchmark

    with terminal() as shown:
        from headstart.workflows.bench import bench as measure

        found = measure(run, threads=threads, allow_module=allow_module, on_event=shown)
    shown.console.print()
    shown.console.print(benchmark(found))


def push(
    run: RunFolder,
    repo: Repository,
    private: Annotated[bool, typer.Option("--private/--public", help="Who may see it: only you, or everyone.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only write the folder and list it; no network.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Write over what the repository holds.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="Of the model; that of the backbone's weights unless told.")
    ] = None,
    allow_module: AllowModule = False,
) -> None:
    """Publish the model with its evidence on the Hugging Face Hub: weights, ONNX files, a model card."""
    from headstart.verdicts import published

    with terminal(endures=True) as shown:
        from headstart.workflows.push import push as publish

        found = publish(
            run,
            repo,
            private=private,
            dry_run=dry_run,
            update=update,
            licence=licence,
            allow_module=allow_module,
            on_event=shown,
        )
    shown.console.print()
    shown.console.print(published(found.files))
    told = found.address or f"nothing was uploaded; this would be: {found.folder}"
    shown.console.print(told, markup=False)


def serve(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for every machine's.")] = "127.0.0.1",
    port: Port = 8000,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A name that the server may be called by; may be repeated.")
    ] = None,
    variant: Variant = None,
    threads: Threads = None,
) -> None:
    """Answer over HTTP with an export, without torch: an API, and a page for the browser."""
    from headstart.verdicts import serving

    with terminal() as shown:
        from headstart.workflows.serve import prepare

        server = prepare(
            run, host=host, port=port, names=allow_host or (), variant=variant, threads=threads, on_event=shown
        )
    answered, left = server.answer(lambda: shown.console.print(serving(server.facts, server.address), soft_wrap=True))
    shown.console.print(f"■ stopped: {answered:,} answered, {left or 'none'} left waiting")
