"""The README of a saved model: what it is and how to use it."""

from __future__ import annotations

from headstart.models.model import Model


def card(model: Model, opened_by: str, notes: str) -> str:
    """Markdown; ``opened_by`` is the line of code with which the library itself opens the folder."""
    origin, spec = model.backbone.origin, model.backbone.spec
    known = ", ".join(_plain(name) for name in model.classes[:20]) + (" …" if len(model.classes) > 20 else "")
    lines = [
        "# Image classifier",
        "",
        f"- **Classes** ({len(model.classes)}): {known}",
        f"- **Backbone**: `{origin.uri}` ({origin.library}), weights: {origin.weights}"
        + (f", licence: {origin.licence}" if origin.licence else ""),
        f"- **Input**: {spec.channels} x {spec.size[0]} x {spec.size[1]}, resized to {spec.resize} ({spec.crop})",
        f"- **Parameters**: {sum(p.numel() for p in model.parameters()):,}",
        "",
        "```python",
        "import headstart",
        'model = headstart.load("path/to/this/folder")',
        'model.predict(["picture.jpg"])',
        "```",
    ]
    if opened_by:
        lines += ["", "The library itself opens this folder too:", "", "```python", opened_by, "```"]
    return "\n".join([*lines, "", notes.strip(), ""]).rstrip() + "\n"


def _plain(name: str) -> str:
    return "".join(character if character.isprintable() and character not in "`<>[]|" else " " for character in name)
