"""The family's own head that restores masked words, on a backbone's own encoder.

Its weights are those of the checkpoint where it holds them, and the decoder is tied to the embeddings where the family
ties them. Only masked places go through it: a vocabulary of 30,000 words makes it as dear as several blocks.

Shapes: B rows, T tokens, M masked places, D features, V size of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from headstart.core.errors import ConfigError
from headstart.data.texts.masking import IGNORED, Masking
from headstart.models import surgery
from headstart.models.backbone import Backbone
from headstart.models.backbones import transformers


class WordHead(nn.Module):
    """``forward``: what the encoder makes of places (M, D), to logits (M, V)."""

    def __init__(self, network: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self._network = (network,)  # not a part of this one: its encoder is the backbone's
        self._encoder = (encoder,)
        own = [child for child in network.children() if child is not encoder]
        self.parts = nn.ModuleList(own)

    def forward(self, places: Tensor) -> Tensor:
        from transformers.modeling_outputs import BaseModelOutput

        (network,), (encoder,) = self._network, self._encoder
        encoder.forward = lambda *_args, **_kwargs: BaseModelOutput(last_hidden_state=places[None])
        try:
            found = network(input_ids=torch.zeros(1, len(places), dtype=torch.long, device=places.device))
        finally:
            encoder.__dict__.pop("forward", None)
        return found.logits[0]


def encoder_of(backbone: Backbone) -> nn.Module:
    """The network without its classifier: itself, or a part of one that classifies."""
    prefix = str(getattr(backbone.module, "base_model_prefix", ""))
    inner = getattr(backbone.module, prefix, None) if prefix else None
    return inner if isinstance(inner, nn.Module) else backbone.module


def demand(backbone: Backbone) -> Any:
    """The configuration of a backbone whose family restores masked words.

    Raises:
        ConfigError: not such a network of transformers, or a tokenizer without a token that hides words.
    """
    from transformers import MODEL_FOR_MASKED_LM_MAPPING

    reads = backbone.architecture.get("library") == "transformers" and backbone.modality == "text"
    config = transformers.config_of(backbone) if reads else None
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING:
        what = f"'{backbone.origin.uri}' is of no family of transformers that restores masked words"
        raise ConfigError(what, where="backbone", remedy="leave the stage mlm out, or take BERT or a relative of it")
    Masking(backbone.spec.tokenizer).mask  # noqa: B018  raises where there is none
    return config


def head(backbone: Backbone, seed: int) -> WordHead:
    """The head of masked words for this backbone; parts that no checkpoint holds are drawn from ``seed``.

    Raises:
        ConfigError: see ``demand``.
    """
    config = demand(backbone)
    network: Any = surgery.seeded(seed, lambda: transformers.for_masked_words(backbone, config))
    network = network.float().to(backbone.device)
    encoder = encoder_of(backbone)
    setattr(network, network.base_model_prefix, encoder)
    network.tie_weights()
    return WordHead(network, encoder)


def losses(backbone: Backbone, words: WordHead, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (M,) float32 of every masked place of tokens (B, 2, T), and its row (M,); targets (B, T)."""
    given: dict[str, Any] = backbone.intake.given(inputs)
    hidden = encoder_of(backbone)(**given).last_hidden_state
    wanted = targets != IGNORED
    logits = words(hidden[wanted]).float()
    return nn.functional.cross_entropy(logits, targets[wanted], reduction="none"), wanted.nonzero()[:, 0]
