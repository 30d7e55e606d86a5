"""The table of words in the rows that occur: the same as the whole table bit for bit, and nothing left behind."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.data.modalities import text
from headstart.models import backbone as backbones
from headstart.models import narrowing
from headstart.models.backbone import Backbone

from .. import words

VOCABULARY = 300  # of the network; the texts name fewer than 60


def make(folder: Path, family: str = "bert", **other: int) -> Backbone:
    return backbones.load(str(words.network(folder / "net", family, vocab_size=VOCABULARY, **other))).eval()


def rows_of(backbone: Backbone, count: int = 12, seed: int = 0) -> list[np.ndarray]:
    return [text.decode(each, backbone.spec) for each in words.reviews(count, seed=seed)[0]]


def table(backbone: Backbone) -> nn.Embedding:
    return backbone.module.get_input_embeddings()


def named_by(backbone: Backbone, rows: list[np.ndarray]) -> np.ndarray:
    """Ids in these rows, the padding's (0 in batches, and the table's own) and the mask's."""
    return np.unique([0, 4, table(backbone).padding_idx, *np.concatenate([row[0] for row in rows])])


def descend(backbone: Backbone, rows: list[np.ndarray], decay: float, updates: int = 4) -> list[float]:
    """Plain torch: AdamW on batches of four rows; the losses."""
    groups = [
        {"params": [p for p in backbone.parameters() if p is not table(backbone).weight]},
        {"params": [table(backbone).weight], "weight_decay": decay},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, weight_decay=0.0)
    losses = []
    for update in range(updates):
        inputs = torch.from_numpy(text.collate(rows[update * 4 % 12 :][:4]))
        optimizer.zero_grad()
        torch.manual_seed(update)  # of dropout
        loss = (backbone.features(inputs) * torch.linspace(-1, 1, backbone.feature_dim)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("family", words.FAMILIES)
def test_training_is_that_of_the_whole_table_bit_for_bit(family: str, mode: bool, tmp_path: Path) -> None:
    narrow = make(tmp_path, family)
    whole, before = copy.deepcopy(narrow), table(narrow).weight.detach().clone()
    rows = rows_of(narrow)
    named = named_by(narrow, rows)
    parameter, names = table(narrow).weight, [name for name, _ in narrow.named_parameters()]
    with narrowing.narrowed(narrow, rows) as found:
        assert found == (len(named), VOCABULARY)
        assert table(narrow).weight.shape == (len(named), before.shape[1])
        assert [name for name, _ in narrow.named_parameters()] == names
        narrow.train(mode)
        losses = descend(narrow, rows, decay=0.0)
        narrow.eval()
        unknown = torch.from_numpy(rng_rows(narrow))
        asked = narrow.features(unknown).detach()
    whole.train(mode)
    assert losses == descend(whole, rows, decay=0.0)
    whole.eval()
    assert losses[-1] < losses[0]
    assert table(narrow).weight is parameter
    assert "forward" not in vars(table(narrow))
    for name, value in whole.state_dict().items():
        assert torch.equal(narrow.state_dict()[name], value), name
    assert torch.equal(asked, whole.features(unknown)), "words that no training text names are read wrongly"
    changed = (table(narrow).weight != before).any(1).nonzero()[:, 0].numpy()
    assert set(changed) <= set(named)
    assert len(changed) > 30


def test_the_padding_of_a_table_is_the_same_word_in_its_new_place(tmp_path: Path) -> None:
    """ModernBERT's is the last but a few of 50,000: it has no gradient, wherever its row went."""
    narrow = make(tmp_path, pad_token_id=120)
    assert table(narrow).padding_idx == 120
    rows = rows_of(narrow)
    rows[0][0, 1] = 120
    whole, before = copy.deepcopy(narrow), table(narrow).weight.detach().clone()
    with narrowing.narrowed(narrow, rows) as found:
        assert found is not None
        losses = descend(narrow, rows, decay=0.0)
    assert losses == descend(whole, rows, decay=0.0)
    assert torch.equal(table(narrow).weight, table(whole).weight)
    assert torch.equal(table(narrow).weight[120], before[120])


def rng_rows(backbone: Backbone) -> np.ndarray:
    """(3, 2, 9): any words, named or not."""
    made = np.zeros((3, 2, 9), np.int32)
    made[:, 0] = np.random.default_rng(1).integers(5, VOCABULARY, (3, 9))
    made[1, 0, 6:] = text.PAD
    return made


def test_weight_decay_leaves_the_other_words_as_pretrained(tmp_path: Path) -> None:
    backbone = make(tmp_path)
    whole, before = copy.deepcopy(backbone), table(backbone).weight.detach().clone()
    rows = rows_of(backbone)
    with narrowing.narrowed(backbone, rows):
        descend(backbone, rows, decay=0.5)
    descend(whole, rows, decay=0.5)
    named = named_by(backbone, rows)
    others = np.setdiff1d(np.arange(VOCABULARY), named)
    assert torch.equal(table(backbone).weight[others], before[others])
    assert not torch.equal(table(whole).weight[others], before[others])
    assert torch.equal(table(backbone).weight[named], table(whole).weight[named])


def test_an_error_inside_gives_the_table_back(tmp_path: Path) -> None:
    backbone = make(tmp_path)
    parameter = table(backbone).weight
    with pytest.raises(RuntimeError, match="planted"), narrowing.narrowed(backbone, rows_of(backbone)):
        raise RuntimeError("planted")
    assert table(backbone).weight is parameter
    assert "forward" not in vars(table(backbone))


def refused(backbone: Backbone, rows: list[np.ndarray]) -> bool:
    parameter = table(backbone).weight
    with narrowing.narrowed(backbone, rows) as found:
        assert (table(backbone).weight is parameter) == (found is None)
        return found is None


def test_what_is_left_as_it_is(tmp_path: Path) -> None:
    backbone = make(tmp_path)
    rows = rows_of(backbone)
    assert not refused(backbone, rows)

    every = np.zeros((2, VOCABULARY), np.int32)
    every[0] = np.arange(VOCABULARY)
    assert refused(backbone, [every]), "nothing is gained where every word is named"
    assert refused(backbone, [every[:, : round(0.75 * VOCABULARY)]])
    assert not refused(backbone, [every[:, : round(0.65 * VOCABULARY)]])
    every[0, 0] = VOCABULARY
    assert refused(backbone, [every[:, :3]]), "an id that the table does not have is the network's to refuse"
    spec = backbone.spec
    backbone.spec = replace(spec, mask=VOCABULARY)
    assert refused(backbone, rows), "a mask that was added to the tokenizer alone"
    backbone.spec = spec

    table(backbone).weight.requires_grad_(False)
    assert refused(backbone, rows), "a frozen table costs nothing"
    table(backbone).weight.requires_grad_(True)
    for name, value in {"max_norm": 1.0, "scale_grad_by_freq": True, "sparse": True}.items():
        usual = getattr(table(backbone), name)
        setattr(table(backbone), name, value)
        assert refused(backbone, rows), name
        setattr(table(backbone), name, usual)
    table(backbone).forward = lambda ids: nn.functional.embedding(ids, table(backbone).weight)
    assert refused(backbone, rows), "somebody else's forward"
    del table(backbone).forward
    backbone.module.decoder = nn.Linear(32, VOCABULARY, bias=False)
    backbone.module.decoder.weight = table(backbone).weight
    assert refused(backbone, rows), "a tied decoder needs every row"


class Reader(nn.Module):
    """A network of somebody's own; ``how`` it reads its table decides whether that can be narrowed."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.table = (Scaled if how == "subclass" else nn.Embedding)(VOCABULARY, 8)
        self.layers = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
        self.how = how

    def get_input_embeddings(self, *ids: Tensor) -> nn.Module:
        if self.how == "arguments" and not ids:
            raise TypeError("ids are missing")
        if self.how == "none":
            raise NotImplementedError
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        if self.how == "past the module":
            return self.layers(nn.functional.embedding(input_ids % 40, self.table.weight))
        return self.layers(self.table(input_ids))


class Scaled(nn.Embedding):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 3


@pytest.mark.parametrize("how", ["called", "subclass", "arguments", "none", "past the module"])
def test_a_network_of_somebodys_own(how: str) -> None:
    given = Reader(how)
    given.spec = text.TextSpec(words.tokenizer(extra=200))
    backbone = backbones.load(given).eval()
    module = backbone.module
    inputs = torch.from_numpy(rng_rows(backbone))
    wanted = backbone.features(inputs)
    parameter = module.table.weight
    with narrowing.narrowed(backbone, rows_of(backbone)) as found:
        assert (found is not None, module.table.weight is not parameter) == (how == "called", how == "called")
        assert torch.equal(backbone.features(inputs), wanted)
    assert module.table.weight is parameter


@pytest.mark.gpu
def test_a_table_that_moves_to_a_gpu_meanwhile(tmp_path: Path) -> None:
    backbone = make(tmp_path)
    rows = rows_of(backbone)
    before = table(backbone).weight.detach().clone()
    with narrowing.narrowed(backbone, rows):
        backbone.to("cuda")
        backbone.features(torch.from_numpy(rng_rows(backbone)).cuda())
        with torch.no_grad():
            table(backbone).weight += 1
    assert table(backbone).weight.device.type == "cuda"
    moved = (table(backbone).weight.cpu() - before).abs().sum(1) > 0
    assert moved.nonzero()[:, 0].tolist() == named_by(backbone, rows).tolist()


def test_other_modalities_have_no_table() -> None:
    backbone = backbones.load("builtin/tiny")
    with narrowing.narrowed(backbone, iter(())) as found:
        assert found is None
