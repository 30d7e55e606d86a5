"""Texts: ids and mask to the network's own arguments, its tokens pooled to features.

Shapes: B rows, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.core.registry import suggest
from headstart.data.modalities.text import PAD, TextSpec
from headstart.models.intakes.output import mean_over, tensor_of

POOLINGS = ("mean", "cls", "native")


class Intake(nn.Module):
    """``pooling``: "mean" over real tokens, "cls" the first token, "native" what the network's own classifier saw.

    ``types`` says whether the network takes ``token_type_ids``.
    """

    CALL = "module(input_ids=…, attention_mask=…), int64 (B, T), with T up to max_length and any id of the tokenizer"
    ragged = True

    def __init__(self, spec: TextSpec, pooling: str = "mean", types: bool = False) -> None:
        super().__init__()
        if pooling not in POOLINGS:
            what = f"unknown pooling '{pooling}'{suggest(pooling, POOLINGS)}"
            raise ConfigError(what, where="pooling", remedy=f"known: {', '.join(POOLINGS)}")
        self.pooling, self.types = pooling, types

    def lengths(self, inputs: Tensor) -> Tensor:
        """Tokens of every row, (B,)."""
        return (inputs[:, 0] != PAD).sum(dim=1)

    def stand_in(self, lengths: Tensor, places: int | None = None) -> Tensor:
        """Rows of the first token with these lengths, int32 (B, 2, T), in so many places or as few as hold them."""
        places = int(lengths.max()) if places is None else places
        made = torch.zeros(len(lengths), 2, places, dtype=torch.int32, device=lengths.device)
        made[:, 0].masked_fill_(torch.arange(places, device=lengths.device) >= lengths[:, None], PAD)
        return made

    def forward(
        self,
        module: nn.Module,
        inputs: Tensor,
        call: Mapping[str, Any],
        *,
        lengths: Tensor | None = None,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> Tensor:
        """Features (B, D) of tokens (B, 2, T)."""
        output = module(**self.given(inputs), **call)
        if self.pooling == "native":
            return tensor_of(output).float()
        hidden = getattr(output, "last_hidden_state", None)
        sequence = hidden if isinstance(hidden, Tensor) else tensor_of(output)
        if sequence.dim() == 2:
            return sequence.float()
        return sequence[:, 0].float() if self.pooling == "cls" else mean_over(sequence, inputs[:, 0] != PAD)

    def given(self, inputs: Tensor) -> dict[str, Tensor]:
        """The network's arguments for tokens (B, 2, T)."""
        ids = inputs[:, 0]
        given = {"input_ids": ids.clamp_min(0).long(), "attention_mask": (ids != PAD).long()}
        return given | ({"token_type_ids": inputs[:, 1].long()} if self.types else {})
