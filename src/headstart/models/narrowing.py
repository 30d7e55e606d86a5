"""The table of words, trained in the rows that training texts name: the others have no gradient, yet cost as much.

A table is half of a small language model and most of a multilingual one, and a few thousand texts name a tenth of its
rows. The optimizer would hold two moments for every row and move all of it through memory at every step, as would the
gradient and its norm. Inside ``narrowed`` the named rows are the parameter: the same losses, gradients and updates of
them bit for bit, while the other rows stay as pretrained (AdamW alone would shrink them by its weight decay).

Shapes: B rows, T tokens, V words of the vocabulary, W of them named, D features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.models.backbone import Backbone

WORTH = 0.7  # of the vocabulary: where more is named, narrowing gains nothing


@contextmanager
def narrowed(backbone: Backbone, rows: Iterable[np.ndarray]) -> Iterator[tuple[int, int]]:
    """Inside, the table's parameter holds the words of ``rows`` only, under its own name; yields (W, V), or (0, V).

    Left as it is, and ``rows`` unread, where the table does not train, is no plain ``nn.Embedding``, or is also a
    parameter of another layer; (0, 0) where there is none. What a network is asked beside the named words (other texts
    to judge by) has its row from the whole table. Afterwards the whole table has the trained rows.

    Args:
        rows: of the training texts, each (2, T) as the intake takes them.
    """
    table = _table(backbone)
    words = None if table is None else _named(backbone, table, rows)
    if table is None or words is None:
        yield 0, 0 if table is None else table.num_embeddings
        return
    whole = table.weight
    lookup: Any = _Lookup(table, words)
    table.weight = nn.Parameter(whole.detach()[lookup.words])
    table.forward = lookup  # type: ignore[method-assign]
    try:
        yield len(words), table.num_embeddings
    finally:
        del table.__dict__["forward"]
        with torch.no_grad():
            whole.data = whole.data.to(table.weight.device)
            whole[lookup.words.to(whole.device)] = table.weight
        table.weight = whole


def _table(backbone: Backbone) -> nn.Embedding | None:
    """The table in which a language model looks its words up, where it trains and nothing else is in its way."""
    find = getattr(backbone.module, "get_input_embeddings", None)
    if backbone.modality != "text" or find is None:
        return None
    try:
        table = find()
    except (NotImplementedError, AttributeError):  # transformers' own way to say that there is none
        return None
    plain = isinstance(table, nn.Embedding) and type(table).forward is nn.Embedding.forward
    if not plain or "forward" in vars(table) or table.max_norm is not None or table.scale_grad_by_freq or table.sparse:
        return None
    owners = sum(weight is table.weight for part in backbone.modules() for weight in part._parameters.values())
    return table if table.weight.requires_grad and owners == 1 else None


def _named(backbone: Backbone, table: nn.Embedding, rows: Iterable[np.ndarray]) -> np.ndarray | None:
    """(W,) ids in rising order; None where they are too many, or an id is none of the table's."""
    seen = np.zeros(table.num_embeddings, bool)
    extra = (0, backbone.spec.mask, table.padding_idx)  # what padding and augmentation put in
    seen[[number for number in extra if number is not None]] = True
    for row in rows:
        if row[0].max(initial=0) >= len(seen):
            return None
        seen[row[0]] = True
    words = np.flatnonzero(seen)
    return words if len(words) <= WORTH * len(seen) else None


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
        found = nn.functional.embedding(places.clamp_min(0), self.table.weight, self.padding)
        other = places < 0
        if not bool(other.any()):
            return found
        return torch.where(other[..., None], nn.functional.embedding(ids, self.whole), found)
