"""The table of words, trained in the rows that training texts name: the others have no gradient, yet cost as much.

A table is half of a small language model and most of a multilingual one, and a few thousand texts name a tenth of its
rows. The optimizer would hold two moments for every row and move all of it through memory at every step, as would the
gradient and its norm. Inside ``narrowed`` the named rows are the parameter: the same losses, gradients and updates of
them (but for the rounding of the gradients' norm, where that clips), while the other rows stay as pretrained; AdamW
alone would shrink them by its weight decay.

Shapes: B rows, T tokens, V words of the vocabulary, W of them named, D features.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.models import resume
from headstart.models.backbone import Backbone

WORTH = 0.7  # of the vocabulary: where more is named, narrowing gains nothing


@contextmanager
def narrowed(backbone: Backbone, rows: Iterable[np.ndarray]) -> Iterator[tuple[int, int] | None]:
    """Inside, the table's parameter holds the words of ``rows`` only, under its own name; yields (W, V).

    Left as it is (None) where there is no table, or it does not train, is no plain ``nn.Embedding``, or is a parameter
    of another layer too; where ``rows`` name most of it or what it does not have; and where the features of the noise
    would not be the same bit for bit, since a network may read its table by another way than calling it. Afterwards
    the whole table has the trained rows.

    Args:
        rows: of all texts that are trained on, each (2, T) as the intake takes them. Other texts may be asked in eval
            mode: words that none of ``rows`` names have their row of the whole table.
    """
    table = _table(backbone)
    words = None if table is None else _named(backbone, table, rows)
    if table is None or words is None:
        yield None
        return
    whole, wanted = table.weight, _features(backbone)
    lookup: Any = _Lookup(table, words)
    table.weight = nn.Parameter(whole.detach()[lookup.words])
    table.forward = lookup  # type: ignore[method-assign]
    try:
        if _is_same(backbone, wanted):
            yield len(words), table.num_embeddings
            with torch.no_grad():
                whole.data = whole.data.to(table.weight.device)
                whole[lookup.words.to(whole.device)] = table.weight
            return
    finally:
        del table.__dict__["forward"]
        table.weight = whole
    yield None


def _table(backbone: Backbone) -> nn.Embedding | None:
    """The table in which a language model looks its words up, where it trains and nothing else is in its way."""
    if backbone.modality != "text":
        return None
    table: object = None
    with suppress(Exception):  # a user's module may mean something else by this name, or raise that it has none
        table = backbone.module.get_input_embeddings()  # type: ignore[operator]
    if not isinstance(table, nn.Embedding) or type(table).forward is not nn.Embedding.forward:
        return None
    if "forward" in vars(table) or table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        return None
    owners = sum(weight is table.weight for part in backbone.modules() for weight in part._parameters.values())
    return table if table.weight.requires_grad and owners == 1 else None


def _named(backbone: Backbone, table: nn.Embedding, rows: Iterable[np.ndarray]) -> np.ndarray | None:
    """(W,) ids in rising order; None where they are too many, or an id is none of the table's."""
    seen = np.zeros(table.num_embeddings, bool)
    extra = (0, backbone.spec.mask, table.padding_idx)  # what padding and augmentation put in
    for row in itertools.chain([np.array([[number for number in extra if number is not None]])], rows):
        if row[0].max(initial=0) >= len(seen):
            return None
        seen[row[0]] = True
    words = np.flatnonzero(seen)
    return words if len(words) <= WORTH * len(seen) else None


def _features(backbone: Backbone) -> Tensor:
    """Of the noise, in which all of the vocabulary may come."""
    with resume.evaluating(backbone), torch.no_grad():
        return backbone.features(torch.from_numpy(backbone.spec.noise(8)).to(backbone.device))


def _is_same(backbone: Backbone, wanted: Tensor) -> bool:
    with suppress(IndexError, RuntimeError):
        return resume.same(_features(backbone), wanted)
    return False


class _Lookup:
    """The forward of a table whose parameter holds the rows of ``words`` only."""

    def __init__(self, table: nn.Embedding, words: np.ndarray) -> None:
        self.table, self.whole = table, table.weight.detach()
        self.words = torch.from_numpy(words).to(self.whole.device)
        self.places = torch.full((table.num_embeddings,), -1, device=self.whole.device)  # (V,) row of a word, or -1
        self.places[self.words] = torch.arange(len(words), device=self.whole.device)
        at = table.padding_idx
        self.padding = None if at is None else int(self.places[at])

    def __call__(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        if self.places.device != ids.device:
            self.places, self.whole = self.places.to(ids.device), self.whole.to(ids.device)
        places = self.places[ids]
        if self.table.training:
            return nn.functional.embedding(places, self.table.weight, self.padding)
        found = nn.functional.embedding(places.clamp_min(0), self.table.weight, self.padding)
        return torch.where(places[..., None] < 0, nn.functional.embedding(ids, self.whole), found)
