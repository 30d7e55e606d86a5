"""What the Hugging Face Hub reads of a model card: its YAML head, with the results as ``model-index``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import yaml

from headstart.report.contents import Contents
from headstart.report.formats import interval, metric_title

# The Hub's names of licences (its documentation, "Licenses"); any other is written as `other` with its name.
LICENCES = {
    *("apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "isc", "unlicense", "wtfpl"),
    *("openrail", "creativeml-openrail-m", "bigscience-openrail-m", "bigscience-bloom-rail-1.0", "openmdw-1.0"),
    *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "afl-3.0", "artistic-2.0", "bsl-1.0", "ecl-2.0"),
    *("gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "agpl-3.0", "mpl-2.0", "epl-2.0"),
    *("eupl-1.1", "eupl-1.2", "ncsa", "osl-3.0", "postgresql", "ms-pl", "ofl-1.1", "pddl", "odc-by", "odbl", "zlib"),
    *("llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "apple-amlr", "apple-ascl", "h-research"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "c-uda", "etalab-2.0", "deepfloyd-if-license"),
}
TASKS = {"image": "image-classification", "text": "text-classification", "audio": "audio-classification"}
METRICS = {  # ours: the Hub's type, and its arguments
    "accuracy": ("accuracy", {}),
    "macro_f1": ("f1", {"average": "macro"}),
    "balanced_accuracy": ("balanced_accuracy", {}),
    "top5": ("top_5_accuracy", {}),
    "log_loss": ("log_loss", {}),
    "roc_auc": ("roc_auc", {}),
}
IDENTIFIER = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Published:
    """What the card must know besides the run: where the model goes, and who opens it.

    ``library`` is timm or transformers where head and pooling are native to it, else headstart; ``dataset`` is a Hub
    id, or nothing where the rows are the user's own; ``licence`` is nothing where it is not known.
    """

    repo: str
    library: str
    dataset: str
    licence: str
    input: str  # in words
    onnx: bool

    @property
    def title(self) -> str:
        return self.repo.partition("/")[2]


def head(contents: Contents, published: Published) -> str:
    """The YAML block between its two rulers."""
    task = TASKS.get(contents.modality)
    base = base_model(contents.origin)
    told: dict[str, Any] = {"library_name": published.library}
    told |= {"pipeline_tag": task} if task else {}
    told |= _licence(published.licence)
    told |= {"base_model": [base], "base_model_relation": "finetune"} if base else {}
    told |= {"datasets": [published.dataset]} if published.dataset else {}
    told["tags"] = ["headstart", *(["transfer-learning"] if base else []), *(["onnx"] if published.onnx else [])]
    scores = _scores(contents)
    if scores:
        told["metrics"] = [score["type"] for score in scores]
        result = {"task": {"type": task or "other"}, "dataset": _dataset(contents, published), "metrics": scores}
        told["model-index"] = [{"name": published.title, "results": [result]}]
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=False, width=1000)}---\n"


def split_of(contents: Contents) -> str:
    """Whose rows the published scores are of: "test", or "val" where no test rows were kept aside."""
    return "test" if ((contents.result or {}).get("metrics") or {}).get("test") else "val"


def base_model(origin: dict[str, Any]) -> str:
    """The Hub's id of the weights that training started from; nothing where they have none, or were random."""
    uri = str(origin.get("uri", "")).partition(" (")[0].partition("@")[0]
    kind, _, tag = str(origin.get("weights", "")).partition(":")
    if uri.startswith("timm/") and "." not in uri:
        uri = f"{uri}.{tag}" if tag else ""  # timm's repositories are named with the tag of their weights
    hosted = kind in ("pretrained", "fine-tuned") and origin.get("library") in ("timm", "transformers")
    return uri if hosted and IDENTIFIER.fullmatch(uri) else ""


def _licence(name: str) -> dict[str, str]:
    """The Hub's name of a licence; one that it does not list is ``other``, with its own name beside."""
    known = name.strip().lower()
    if not known:
        return {}
    if known in LICENCES:
        return {"license": known}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", known)[:60].strip("-.") or "other"}


def _dataset(contents: Contents, published: Published) -> dict[str, str]:
    """A Hub id, or the fingerprint of rows that nobody else can see: never their name or place."""
    split = {"test": "test", "val": "validation"}[split_of(contents)]
    if published.dataset:
        return {"type": published.dataset, "name": published.dataset, "split": split}
    mark = str(contents.data.get("fingerprint", ""))[:12]
    return {"type": "private", "name": f"own data (fingerprint {mark})", "split": split}


def _scores(contents: Contents) -> list[dict[str, Any]]:
    """The measured metrics, each with its interval and n in its name, so that they travel with the number."""
    measured = (((contents.result or {}).get("metrics") or {}).get(split_of(contents))) or {}
    found = []
    for name, (kind, arguments) in METRICS.items():
        value = measured.get(name)
        if not isinstance(value, dict) or not math.isfinite(value.get("value", math.nan)):
            continue
        span = interval(value, name)
        told = f"{metric_title(name)} (95 % interval {span}, n = {value['n']})" if span else metric_title(name)
        score = {"type": kind, "value": round(float(value["value"]), 6), "name": told}
        found.append(score | ({"args": arguments} if arguments else {}))
    return found
