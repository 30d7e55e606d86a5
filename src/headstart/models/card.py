"""The README of a saved model: what it is and how to use it."""

from __future__ import annotations

from headstart.core.markdown import plain
from headstart.models.model import Model

KINDS = {"image": ("Image", '"picture.jpg"'), "text": ("Text", '"a text"'), "audio": ("Sound", '"sound.wav"')}


def card(model: Model, opened_by: str, notes: str) -> str:
    """Markdown; ``opened_by`` is the line of code with which the library itself opens the folder."""
    origin, spec = model.backbone.origin, model.backbone.spec
    known = ", ".join(plain(name) for name in model.classes[:20]) + (" …" if len(model.classes) > 20 else "")
    what, example = KINDS[spec.modality]
    lines = [
        f"# {what} classifier",
        "",
        f"- **Classes** ({len(model.classes)}): {known}"
        + (f"; a row may have several, given from a probability of {model.threshold:g}" if model.several else ""),
        f"- **Backbone**: `{origin.uri}` ({origin.library}), weights: {origin.weights}"
        + (f", licence: {origin.licence}" if origin.licence else ""),
        *([f"- **Trained on**: {origin.data}"] if origin.data else []),
        f"- **Input**: {spec.described}",
        f"- **Parameters**: {sum(p.numel() for p in model.parameters()):,}",
        "",
        "```python",
        "import headstart",
        'model = headstart.load("path/to/this/folder")',
        f"model.predict([{example}])",
        "```",
    ]
    if opened_by:
        lines += ["", "The library itself opens this folder too:", "", "```python", opened_by, "```"]
    else:
        lines += ["", "Only Headstart opens this folder; `headstart export` writes one for ONNX Runtime."]
    return "\n".join([*lines, "", notes.strip(), ""]).rstrip() + "\n"
