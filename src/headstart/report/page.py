"""One self-contained page out of a run folder: no other file, no other host, nothing of the user's run as code."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from headstart.core import manifest
from headstart.core.errors import ArtefactError
from headstart.core.run import Run
from headstart.report import answers, contents, curves, evidence, exports, stages, story
from headstart.report.contents import Contents
from headstart.report.exhibits import exhibit
from headstart.report.formats import clean

HERE = Path(__file__).parent


def write(run: Run) -> Path:
    """Write ``report.html`` into the run folder from what the folder holds, and say where it is.

    Parts that are missing (no test split, no baseline, an interrupted run, a damaged file) are named on the page.

    Raises:
        ArtefactError: of a cross-validated run, every fold of which has its own.
    """
    if (run.path / "folds.json").is_file():
        remedy = f"such as headstart report {run.path / 'fold-1'}; folds.json holds the scores of all"
        raise ArtefactError("of a cross-validated run every fold has its report", where=str(run.path), remedy=remedy)
    path = run.path / "report.html"
    manifest.write_text(path, render(contents.read(run)))
    return path


def render(found: Contents) -> str:
    """The page. Every text of the user's is cleaned of control characters and escaped by the template engine."""
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; media-src data:; style-src '{_digest(style)}'; "
        f"script-src '{_digest(script)}'; base-uri 'none'; form-action 'none'"
    )
    return _template().render(style=style, script=script, policy=policy, **_view(found))


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _view(found: Contents) -> dict[str, Any]:
    evaluation = found.shown if found.shown is not None and len(found.shown) else None
    return {
        "contents": found,
        "split": {"test": "test", "val": "validation"}.get(evaluation.split, evaluation.split) if evaluation else "",
        "headline": story.headline(found),
        "stages": stages.stage_table(found),
        "curves": [*curves.curves(found), *([probe] if (probe := curves.probe_curve(found)) else [])],
        "matrix": answers.matrix(evaluation) if evaluation and not evaluation.several else None,
        "several": bool(evaluation and evaluation.several),
        "classes": answers.class_table(evaluation) if evaluation else None,
        "pairs": answers.pairs(found, evaluation) if evaluation and not evaluation.several else [],
        "worst": answers.worst(found, evaluation) if evaluation else [],
        "network": [exhibit(file, f"a {found.noun} as the network gets it") for file in found.network[:8]],
        "calibration": answers.calibration(found, evaluation) if evaluation else None,
        "data": evidence.data_view(found),
        "layers": stages.layer_table(found),
        "exports": exports.export_table(found),
        "phases": evidence.phases(found),
        "decisions": evidence.decisions(found),
        "environment": evidence.environment(found),
        "identity": evidence.identity(found),
        "command": evidence.command(found),
    }


def _asset(name: str) -> Markup:
    """A file of ours, inserted as it is."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _digest(text: str) -> str:
    """What a content security policy allows by its hash."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
