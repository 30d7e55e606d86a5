"""The page at ``/``: one document without any outside reference, allowed by the hashes of its style and script."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from headstart.deploy.serving.facts import Facts
from headstart.deploy.serving.limits import Limits

HERE = Path(__file__).parent


def render(facts: Facts, limits: Limits, noun: tuple[str, str]) -> tuple[str, str]:
    """The page for what people call ``noun`` (one, several), and the content security policy that it needs.

    Names are escaped by the template engine.
    """
    style, script = (Markup((HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; connect-src 'self'; "
        "img-src blob: data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.get_template("page.html")
    return template.render(style=style, script=script, facts=facts, limits=limits, noun=noun[0], nouns=noun[1]), policy


def _digest(text: str) -> str:
    """What a content security policy allows by its hash."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
