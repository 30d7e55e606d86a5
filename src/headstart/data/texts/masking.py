"""Hiding tokens for masked language modelling, as BERT does (Devlin et al. 2019, A.1).

Of every text a share of its tokens, one at least and never a special one, is to be restored: 80 % of them are hidden
behind the mask token, 10 % are replaced by a random token, 10 % stay.

Shapes: T tokens, M of them to be restored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from headstart.core.errors import ConfigError
from headstart.data.texts.vocabulary import reader

HIDDEN, REPLACED = 0.8, 0.1
IGNORED = -100  # a target where nothing is to be restored: what torch's cross-entropy leaves out


@dataclass(frozen=True)
class Masking:
    """How the tokens of one tokenizer are hidden; ``tokenizer`` is the content of its tokenizer.json."""

    tokenizer: str
    share: float = 0.15

    @cached_property
    def special(self) -> np.ndarray:
        """Ids that are no words."""
        return np.array(sorted(self._added.values()), np.int32)

    @cached_property
    def mask(self) -> int:
        """The id that hides a token.

        Raises:
            ConfigError: the tokenizer has none.
        """
        for name in ("[MASK]", "<mask>"):
            if name in self._added:
                return self._added[name]
        remedy = "continue from a network that was trained on masked words (BERT, RoBERTa, DeBERTa …)"
        raise ConfigError("its tokenizer has no token that hides a word", where="backbone", remedy=remedy)

    @cached_property
    def words(self) -> np.ndarray:
        """Ids to draw a replacement from."""
        return np.setdiff1d(np.arange(reader(self.tokenizer).get_vocab_size(), dtype=np.int32), self.special)

    @cached_property
    def _added(self) -> dict[str, int]:
        added = json.loads(self.tokenizer).get("added_tokens", [])
        return {token["content"]: int(token["id"]) for token in added if token.get("special")}

    def count(self, ids: np.ndarray) -> int:
        """How many tokens of a text (T,) are to be restored: none where all are special."""
        words = int((~np.isin(ids, self.special)).sum())
        return max(1, round(self.share * words)) if words else 0

    def hide(self, ids: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """What the network sees (T,), and what it has to restore (T,) int64, IGNORED elsewhere."""
        places = rng.permutation(np.flatnonzero(~np.isin(ids, self.special)))[: self.count(ids)]
        targets = np.full(len(ids), IGNORED, np.int64)
        targets[places] = ids[places]
        seen, draw = ids.copy(), rng.random(len(places))
        seen[places[draw < HIDDEN]] = self.mask
        replaced = places[(draw >= HIDDEN) & (draw < HIDDEN + REPLACED)]
        seen[replaced] = rng.choice(self.words, len(replaced))
        return seen, targets
