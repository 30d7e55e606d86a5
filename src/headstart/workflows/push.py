"""``push``: a finished run to a repository of the Hugging Face Hub. To be read like a recipe.

Nothing is copied from the run but its ONNX files: the model is loaded, checked, and written anew, with noise instead of
rows of the user's as the inputs that later loads are checked with.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import manifest, registry, storage
from headstart.core.errors import ArtefactError, ConfigError, Problem
from headstart.core.events import Event, Notice
from headstart.core.plural import plural
from headstart.core.run import Run
from headstart.data.reading import hub as datasets
from headstart.deploy import contract, folder, hub
from headstart.deploy.predictor import RUNTIMES, Predictor, Variant, open_session
from headstart.report import contents, modelcard
from headstart.report.metadata import Published
from headstart.workflows.predict import load

if TYPE_CHECKING:
    from headstart.models.model import Model

Emit = Callable[[Event], None]
FOLDER = "hub"  # inside that of the run
EXPORTED = (*folder.MODELS, folder.VERDICT, folder.GOLDEN, manifest.MANIFEST)
VERDICT_KEYS = ("format", "headstart", "host", "data", "metric", "tolerance", "reference", "variants", "accepted")
SHORTEST = 6  # letters of a place that is looked for: a shorter one stands in any file by chance


@dataclass(frozen=True)
class Pushed:
    """What was prepared: its folder, the files with their bytes, and the address of the commit ("" of a dry run)."""

    repo: str
    folder: Path
    files: dict[str, int]
    address: str


@storage.reported("the push")
def push(
    path: str | Path | Run,
    repo: str,
    *,
    private: bool = True,
    update: bool = False,
    dry_run: bool = False,
    licence: str | None = None,
    allow_module: Any = False,
    on_event: Emit | None = None,
) -> Pushed:
    """Write ``RUN/hub`` and upload exactly that to ``owner/name``.

    Args:
        update: write over what the repository holds.
        dry_run: write the folder only; no network, no token.
        licence: of the model, where that of the backbone is not known or not what applies.
        allow_module: as for ``headstart.load``: a model on the user's own code.

    Raises:
        ArtefactError: the run has no model, it is damaged, or something private stands in what would leave.
        ConfigError: no token, no right to write, or the name is taken. Unreachable: the Hub does not answer.
    """
    emit = on_event or (lambda event: None)
    run = path if isinstance(path, Run) else Run.open(path)
    hub.check_name(repo)
    secret, found = "", None
    if not dry_run:  # what can be refused is refused before any work
        secret = hub.token()
        found = hub.look(repo, secret)
        hub.insist_free(repo, found, private=private, update=update)
    place = prepare(run, repo, licence=licence, allow_module=allow_module, emit=emit)
    files = listed(place)
    insist_nothing_private(run, place, list(files))
    address = ""
    if not dry_run:
        emit(Notice("info", "push", f"{plural(len(files), 'file')}, {sum(files.values()) / 1e6:.1f} MB, to {repo}"))
        told = f"Headstart model of {run.read('data.json', default={}).get('fingerprint', '')[:12]}"
        stale = [] if found is None or found.is_empty else sorted(allowed())
        address = hub.upload(place, list(files), repo, secret, private=private, stale=stale, message=told)
    return Pushed(repo, place, files, address)


def allowed() -> frozenset[str]:
    """Every file that may leave this machine."""
    from headstart.models import published

    return frozenset({*published.FILES, *(f"{folder.EXPORT}/{name}" for name in EXPORTED)})


def prepare(run: Run, repo: str, *, licence: str | None, allow_module: Any, emit: Emit) -> Path:
    """Write ``RUN/hub``: the model, the accepted ONNX files, the card, the manifests; noise as golden inputs."""
    model = load(run, allow_module=allow_module).model  # its manifest and its golden rows are checked
    if model.several:
        what = "models of rows that may have several labels are not published yet: the card would tell of one label"
        raise ConfigError(what, where=str(run.path), remedy="headstart export writes files that say what they give")
    place = model.save(run.path / FOLDER)
    onnx = _export(run, model, place / folder.EXPORT, emit)
    known = licence or model.backbone.origin.licence
    if not known:
        what = f"the licence of '{model.backbone.origin.uri}' is not known: the card names none"
        emit(Notice("warning", "licence", what, "look it up where the weights come from, and give it with --license"))
    # A built-in network is one of timm or transformers, and what is published opens there.
    library = str(model.backbone.architecture["library"]) if (place / "config.json").is_file() else "headstart"
    described = model.backbone.spec.described
    about = Published(repo, library, _dataset(run), known, described, onnx)
    manifest.write_text(place / "README.md", modelcard.card(contents.read(run), about))
    manifest.seal(place, without=folder.EXPORT)
    load(place, allow_module=allow_module)  # what leaves is what opens
    return place


def listed(place: Path) -> dict[str, int]:
    """The files of the prepared folder with their bytes.

    Raises:
        ArtefactError: one is there that may not leave, or is no plain file.
    """
    found = {file.relative_to(place).as_posix(): file for file in sorted(place.rglob("*")) if not file.is_dir()}
    strange = [name for name, file in found.items() if name not in allowed() or file.is_symlink()]
    if strange:
        what = f"not on the list of what may leave this machine: {', '.join(strange[:5])}"
        raise ArtefactError(what, where=str(place), remedy="remove what does not belong there")
    return {name: file.stat().st_size for name, file in found.items()}


def insist_nothing_private(run: Run, place: Path, files: list[str]) -> None:
    """Look through every byte that would leave for tokens, and for places on this machine.

    Raises:
        ArtefactError: something was found; it is said where and what kind, never what.
    """
    homes = {"the run's folder": run.path.resolve(), "the working folder": Path.cwd(), "the home folder": Path.home()}
    source = str(run.read("data.json", default={}).get("source") or "")
    homes |= {"the data's folder": Path(source)} if source.startswith("/") else {}
    sought = {what: f"{path}/".replace("//", "/") for what, path in homes.items()} | hub.secrets()
    problems = []
    for name in files:
        with open(place / name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for what, text in sought.items():
                if len(text) >= SHORTEST and data.find(text.encode("utf-8", "surrogateescape")) >= 0:
                    problems.append(Problem(f"nothing was uploaded: it tells {what}", where=str(place / name)))
    if problems:
        raise ArtefactError("private things stand in the files", problems=problems)


def _export(run: Run, model: Model, target: Path, emit: Emit) -> bool:
    """The accepted files of ``RUN/export`` with a verdict on them and golden noise; whether there are any.

    Raises:
        ArtefactError: the export is damaged, or that of another model.
    """
    from headstart.deploy import graph

    source = run.path / folder.EXPORT
    if not folder.is_export(source):
        emit(Notice("info", "onnx", "no ONNX files: `headstart export` writes them, each with its verdict"))
        return False
    verdict = folder.read_verdict(source)
    taken = [each for each in verdict["variants"] if each["name"] in verdict["accepted"]]
    runs_here = [each for each in taken if registry.find(RUNTIMES, each["runtime"]).version()]
    if not runs_here:
        emit(Notice("warning", "onnx", "the ONNX files stay here: none was accepted that this machine can run"))
        return False
    Predictor(source)  # its golden rows, in the variant that is quickest here
    rows = folder.Golden.read(source / folder.GOLDEN)
    names = sorted({folder.FLOAT, *(str(each["file"]) for each in runs_here)})
    strange = [name for name in names if contract.read(source / name) != graph.contract_of(model)]
    if strange or rows.gap(graph.golden(model, rows.inputs).logits) > folder.PARITY:
        raise ArtefactError("the export is not of this model", where=str(source), remedy="`headstart export` again")
    target.mkdir()
    for name in names:
        manifest.write_bytes(target / name, (source / name).read_bytes())
    noise = graph.golden(model, model.backbone.spec.noise(2))
    noise.save(target / folder.GOLDEN)
    judged = [each | {"gap": _gap(target, each, noise)} for each in runs_here]
    names = [each["name"] for each in judged]
    told = verdict | {"variants": judged, "accepted": [name for name in verdict["accepted"] if name in names]}
    manifest.write_json(target / folder.VERDICT, {key: told[key] for key in VERDICT_KEYS})
    manifest.seal(target)
    Predictor(target)
    return True


def _gap(target: Path, each: dict[str, Any], noise: folder.Golden) -> float:
    """How far a variant is from torch on the noise that is published with it."""
    session = open_session(target, Variant(each["file"], each["runtime"], each["precision"], 0.0), 1)
    return noise.gap(session(noise.inputs)[0])


def _dataset(run: Run) -> str:
    """The Hub's id of the run's data; nothing where the rows are files or values of the user's."""
    source = str(run.read("data.json", default={}).get("source") or "")
    names: list[str] = next(iter(run.read("rows.json", default={}).values()), [])
    hosted = datasets.looks_like_id(source) and all(" row " in f" {name}" for name in names)
    return source.removeprefix(datasets.PREFIX) if hosted and names and not Path(source).exists() else ""
