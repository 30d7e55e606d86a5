"""Heads: what turns features into logits, and how they start.

Shapes: B rows, D features, K classes, S classes of the source task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.core.registry import suggest
from headstart.models.backbone import SourceHead
from headstart.models.surgery import seeded

KINDS = ("linear", "mlp", "cosine")
INITS = ("default", "xavier", "zero", "source")


def build(
    kind: str,
    feature_dim: int,
    num_classes: int,
    *,
    hidden: int = 256,
    dropout: float = 0.0,
    init: str = "default",
    source: SourceHead | None = None,
    classes: Sequence[str] = (),
    seed: int = 0,
) -> Head:
    """A head (B, D) -> (B, K), the same for the same seed.

    Args:
        kind: "linear"; "mlp" (D -> hidden -> K with ReLU and dropout); "cosine" (cosines times a learnable scale).
        dropout: applied to the features ("linear", "cosine") or to the hidden layer ("mlp").
        init: of the last layer: "default" is torch's, "xavier" uniform with zero bias, "zero" (every class starts
            equally likely), "source" (rows of the source classifier where class names match, see ``source_rows``).

    Raises:
        ConfigError: unknown kind or init, or one that does not go with the other.
    """
    for value, known, what in ((kind, KINDS, "head"), (init, INITS, "init")):
        if value not in known:
            raise ConfigError(f"unknown {what} '{value}'{suggest(value, known)}", remedy=f"known: {', '.join(known)}")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be in 0 .. 1, got {dropout}")
    head = seeded(seed, lambda: create(kind, feature_dim, num_classes, hidden=hidden, dropout=dropout))
    last = head.last
    if init == "source":
        if kind == "mlp":
            raise ConfigError(
                "init 'source' needs a head without a hidden layer", remedy="use the linear or cosine head"
            )
        _start_from(last, source, classes)
    elif init != "default":
        _start(last, init, seed)
    return head


class Head(nn.Module):
    """What all heads share: dropout, and their last linear layer (``last.weight`` is (K, width))."""

    kind: str
    dropout: nn.Dropout
    last: nn.Linear

    def settings(self) -> dict[str, Any]:
        """JSON values from which ``create`` makes the same head."""
        hidden = self.last.in_features
        feature_dim = self.hidden.in_features if isinstance(self, Mlp) else hidden
        return {
            "kind": self.kind,
            "feature_dim": feature_dim,
            "num_classes": self.last.out_features,
            "hidden": hidden,
            "dropout": self.dropout.p,
        }


class Linear(Head):
    """Dropout and one linear layer."""

    kind = "linear"

    def __init__(self, feature_dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(feature_dim, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.dropout(features))


class Mlp(Head):
    """One hidden layer with ReLU and dropout."""

    kind = "mlp"

    def __init__(self, feature_dim: int, num_classes: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(feature_dim, hidden)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.last(self.dropout(nn.functional.relu(self.hidden(features))))


class Cosine(Head):
    """Cosines between features and one direction a class, times a learnable scale (Gidaris & Komodakis 2018)."""

    kind = "cosine"

    def __init__(self, feature_dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(feature_dim, num_classes, bias=False)
        self.scale = nn.Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The scale as it starts; the directions are reset by their own layer."""
        nn.init.constant_(self.scale, 10.0)

    def forward(self, features: Tensor) -> Tensor:
        directions = nn.functional.normalize(self.last.weight, dim=1)
        return self.scale * nn.functional.linear(nn.functional.normalize(self.dropout(features), dim=1), directions)


def matches(classes: Sequence[str], labels: Sequence[str]) -> dict[str, int]:
    """Index of the source label that names the same thing, for every class that has one.

    Names are compared in lower case without punctuation; a label's synonyms ("hotdog, hot dog, red hot") count each,
    and a plural matches its singular ("ants" and "ant"). The first label wins where two share a name.
    """
    places: dict[str, int] = {}
    for index, label in enumerate(labels):
        for synonym in label.split(","):
            places.setdefault(_normal(synonym), index)
    found = {}
    for name in classes:
        plain = _normal(name)
        forms = [plain, plain.removesuffix("s"), plain.removesuffix("es"), re.sub("ies$", "y", plain)]
        hit = next((places[form] for form in forms if form and form in places), None)
        if hit is not None:
            found[name] = hit
    return found


def source_rows(source: SourceHead, classes: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) that start from the source classifier.

    Rows are taken relative to the mean row, which leaves the softmax as it was; a class without a match gets zeros,
    that is the logit of an average source class.
    """
    weight = torch.zeros(len(classes), source.weight.shape[1])
    bias = torch.zeros(len(classes))
    places = matches(classes, source.labels)
    for row, name in enumerate(classes):
        if name in places:
            weight[row] = source.weight[places[name]] - source.weight.mean(dim=0)
            bias[row] = source.bias[places[name]] - source.bias.mean()
    return weight, bias


def create(kind: str, feature_dim: int, num_classes: int, *, hidden: int, dropout: float) -> Head:
    """A head as torch initialises it: what a saved model is rebuilt from."""
    if kind == "linear":
        return Linear(feature_dim, num_classes, dropout)
    if kind == "mlp":
        return Mlp(feature_dim, num_classes, hidden, dropout)
    return Cosine(feature_dim, num_classes, dropout)


def _start(last: nn.Linear, init: str, seed: int) -> None:
    with torch.no_grad():
        if init == "zero":
            last.weight.zero_()
        else:
            nn.init.xavier_uniform_(last.weight, generator=torch.Generator().manual_seed(seed))
        if last.bias is not None:
            last.bias.zero_()


def _start_from(last: nn.Linear, source: SourceHead | None, classes: Sequence[str]) -> None:
    if source is None or not source.labels:
        raise ConfigError(
            "init 'source' needs the backbone's own classifier with its class names, which these weights do not have",
            remedy="choose another init (default, xavier, zero), or pretrained weights with their classifier",
        )
    if not matches(classes, source.labels):
        raise ConfigError(
            f"init 'source': none of the classes ({', '.join(list(classes)[:5])}) is a class of the source task",
            remedy="choose another init, or rename the class folders to the source's names",
        )
    weight, bias = source_rows(source, classes)
    with torch.no_grad():
        last.weight.copy_(weight)
        if last.bias is not None:
            last.bias.copy_(bias)


def _normal(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", re.sub(r"^n\d{8}", "", name.strip().lower()))
