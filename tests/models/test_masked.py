"""Masked words: what is hidden, the family's own head on the backbone's own encoder, and its loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.core.errors import ConfigError
from headstart.data.modalities import text
from headstart.data.texts.masking import IGNORED, Masking
from headstart.models import backbone as backbones
from headstart.models import masked

from .. import words

MASKING = Masking(words.tokenizer(extra=500))


def test_words_are_hidden_as_bert_does() -> None:
    rng = np.random.default_rng(0)
    ids = np.r_[2, rng.integers(60, 500, 100), 3].astype(np.int32)
    seen = [MASKING.hide(ids, np.random.Generator(np.random.Philox(n))) for n in range(300)]
    chosen = np.stack([targets != IGNORED for _, targets in seen])
    assert (chosen.sum(1) == 15).all()
    assert MASKING.count(ids) == 15
    assert not chosen[:, [0, -1]].any(), "a special token was hidden"
    assert chosen[:, 1:-1].mean(0).min() > 0.05, "some places are never hidden"
    tokens, targets = (np.stack(each) for each in zip(*seen, strict=True))
    assert (targets[chosen] == np.broadcast_to(ids, tokens.shape)[chosen]).all()
    assert (tokens == ids)[~chosen].all()
    of_mask, same = (tokens[chosen] == 4).mean(), (tokens == ids)[chosen].mean()
    assert of_mask == pytest.approx(0.8, abs=0.03)
    assert same == pytest.approx(0.1, abs=0.03)
    assert not np.isin(tokens[chosen & (tokens != 4)], MASKING.special).any()
    assert (ids == np.r_[2, np.random.default_rng(0).integers(60, 500, 100), 3]).all(), "the text was changed"


def test_a_text_of_special_tokens_hides_nothing() -> None:
    ids = np.array([2, 1, 1, 3], np.int32)
    seen, targets = MASKING.hide(ids, np.random.default_rng(0))
    assert MASKING.count(ids) == 0
    assert (seen == ids).all()
    assert (targets == IGNORED).all()
    assert MASKING.count(np.array([2, 60, 3], np.int32)) == 1


def batch(backbone: backbones.Backbone) -> tuple[torch.Tensor, torch.Tensor]:
    texts, _ = words.reviews(5, seed=3)
    inputs = text.collate([text.decode(each, backbone.spec) for each in texts])
    targets = np.full((5, inputs.shape[2]), IGNORED, np.int64)
    masking = Masking(backbone.spec.tokenizer)
    for row, value in enumerate(inputs):
        length = int((value[0] >= 0).sum())
        hidden = masking.hide(value[0, :length], np.random.default_rng(row))
        inputs[row, 0, :length], targets[row, :length] = hidden
    return torch.from_numpy(inputs), torch.from_numpy(targets)


@pytest.mark.parametrize("pooling", ["mean", "native"])
@pytest.mark.parametrize("family", words.FAMILIES)
def test_the_loss_is_that_of_transformers(family: str, pooling: str, tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    folder = words.network(tmp_path / "net", family, kind="AutoModelForMaskedLM")
    theirs = AutoModelForMaskedLM.from_pretrained(folder).eval()
    backbone = backbones.load(str(folder), pooling=pooling).eval()
    head = masked.head(backbone, seed=0).eval()
    inputs, targets = batch(backbone)
    found, rows = masked.losses(backbone, head, inputs, targets)
    with torch.no_grad():
        logits = theirs(**backbone.intake.given(inputs)).logits
        wanted = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    assert torch.allclose(found, wanted[targets.flatten() != IGNORED], rtol=1e-4, atol=1e-5)
    assert rows.tolist() == (targets != IGNORED).nonzero()[:, 0].tolist()
    embeddings = masked.encoder_of(backbone).get_input_embeddings().weight
    assert any(each is embeddings for each in head.parameters()), "the decoder is not tied to the embeddings"
    found.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.isfinite(backbone.features(inputs)).all()
    assert "forward" not in masked.encoder_of(backbone).__dict__


def test_a_checkpoint_without_the_head_gets_one_drawn_from_the_seed(tmp_path: Path) -> None:
    backbone = backbones.load(str(words.network(tmp_path / "net")))
    first, again, other = (masked.head(backbone, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_what_cannot_restore_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="of no family of transformers"):
        masked.demand(backbones.load("builtin/tiny", pretrained=False))
    place = words.network(tmp_path / "net")
    file = place / "tokenizer.json"
    file.write_text(file.read_text().replace("[MASK]", "[HIDE]"))
    with pytest.raises(ConfigError, match="no token that hides a word"):
        masked.demand(backbones.load(str(place)))
