"""The network and its two losses: hidden words, and texts of one meaning.

Shapes: B texts, T tokens, D features, M hidden words, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import ElectraConfig, ElectraModel

from pretraining.writing.batches import Alike, Masked


class Writing(nn.Module):
    """An encoder with what it needs to be trained; ``encoder`` is all that is kept.

    The encoder is ELECTRA's network (Clark et al., 2020): BERT's, with an embedding narrower than its blocks. It is
    trained by BERT's objective (Devlin et al., 2019) and by contrast between means over tokens (Gao et al., 2021,
    "SimCSE": in-batch negatives, and opposites as hard ones).
    """

    def __init__(self, config: ElectraConfig, temperature: float = 0.05, contrast: float = 1.0) -> None:
        super().__init__()
        self.encoder = ElectraModel(config)
        self.back = nn.Sequential(
            nn.Linear(config.hidden_size, config.embedding_size), nn.GELU(), nn.LayerNorm(config.embedding_size)
        )
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.temperature, self.contrast = temperature, contrast

    def forward(self, masked: Masked, alike: Alike) -> tuple[Tensor, Tensor]:
        """Both losses."""
        return self.hidden_words(masked), self.contrast * self.meanings(alike)

    def hidden_words(self, batch: Masked) -> Tensor:
        """Cross-entropy of the hidden words, over the whole vocabulary, at their places only."""
        states = self.encoder(batch.ids, attention_mask=batch.attention, position_ids=batch.positions)[0]
        found = self.back(states.flatten(0, 1)[batch.places])  # (M, E)
        scores = functional.linear(found, self.encoder.embeddings.word_embeddings.weight, self.bias)  # (M, V)
        return functional.cross_entropy(scores.float(), batch.targets)

    def meanings(self, batch: Alike) -> Tensor:
        """Each text is to find its fellow among all fellows and opposites of the batch."""
        means = torch.cat([self.means(*chunk) for chunk in batch.chunks])[batch.order]
        first, second, opposite = means.split([batch.rows, batch.rows, len(batch.opposite_of)])
        there, back = first @ second.T, second @ first.T  # (B, B)
        against = (first @ opposite.T).masked_fill(batch.opposite_of < 0, -1e4)
        labels = torch.arange(batch.rows, device=means.device)
        found = functional.cross_entropy(torch.cat([there, against], dim=1) / self.temperature, labels)
        return (found + functional.cross_entropy(back / self.temperature, labels)) / 2

    def means(self, ids: Tensor, attention: Tensor) -> Tensor:
        """Unit vectors (B, D): the mean over real tokens."""
        states = self.encoder(ids, attention_mask=attention)[0].float()
        weights = attention[..., None].float()
        return functional.normalize((states * weights).sum(1) / weights.sum(1).clamp(min=1), dim=-1)
