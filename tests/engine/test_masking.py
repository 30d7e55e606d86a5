"""The updates of continued pretraining: what an epoch hides, what ranks share, and how its cost is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.data.splits import UNLABELLED, Rows
from headstart.data.store import Store
from headstart.data.texts.masking import IGNORED, Masking
from headstart.engine.masking import MaskedStream, restoring
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, Order
from headstart.models import backbone as backbones
from headstart.models import heads
from headstart.models.model import Model
from headstart.stages.restoring import Restorer

from .. import words


@pytest.fixture
def learner(tmp_path: Path) -> Restorer:
    body = backbones.load(str(words.network(tmp_path / "net", kind="AutoModelForMaskedLM")))
    return Restorer(Model(body, heads.build("linear", body.feature_dim, 3), words.CLASSES), seed=0)


def texts_of(learner: Restorer, *more: str) -> Examples:
    texts = [*words.reviews(11, seed=2)[0], *more]
    rows = Rows(texts, np.full(len(texts), UNLABELLED), tuple(f"text {n}" for n in range(len(texts))))
    spec = learner.model.backbone.spec
    return Examples("texts", rows, Store.build(rows, spec, modality="text"), spec)


def masking_of(learner: Restorer, share: float = 0.4) -> Masking:
    return Masking(learner.model.backbone.spec.tokenizer, share)


def seen(learner: Restorer, epoch: int, world: int = 1, size: int = 4) -> tuple[dict[int, Any], list[int]]:
    """Of every text its targets without the padding, and the totals of the updates, rank after rank."""
    examples, found, totals = texts_of(learner), {}, []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(world):
            patch.setenv("RANK", str(rank))
            runtime = Runtime("cpu")
            runtime.world = world
            order = Order(7, 0, examples.rows, size, None, examples.store.lengths)
            for update in MaskedStream(runtime, order, examples, masking_of(learner)).epoch(epoch):
                totals.append(update.total)
                for row, tokens, targets in zip(update.rows, update.inputs, update.targets, strict=True):
                    found[int(row)] = targets[: int((tokens[0] >= 0).sum())].tolist()
    return found, totals


def test_every_epoch_hides_other_words_and_an_epoch_again_the_same(learner: Restorer) -> None:
    first, second, again = seen(learner, 0), seen(learner, 1), seen(learner, 0)
    assert sorted(first[0]) == list(range(11))
    assert first == again
    assert sum(first[0][row] != second[0][row] for row in range(11)) > 5


def test_two_ranks_hide_the_words_of_one_process_and_divide_by_all_of_them(learner: Restorer) -> None:
    (alone, once), (together, twice) = seen(learner, 0), seen(learner, 0, world=2)
    assert alone == together
    assert twice == once * 2
    assert sum(once) == sum(target != IGNORED for targets in alone.values() for target in targets)
    with pytest.raises(ConfigError, match="2 ranks cannot share batches of 1 text"):
        seen(learner, 0, world=2, size=1)


def test_the_cost_of_restoring_is_each_texts_own_mean_without_dropout(learner: Restorer) -> None:
    examples, masking = texts_of(learner, "zzz"), masking_of(learner)
    learner.train()
    found = restoring(learner, examples, masking, Runtime("cpu"), batch_size=5).losses
    assert len(found) == 11, "a text of unknown words has nothing to restore"
    assert (restoring(learner, examples, masking, Runtime("cpu"), batch_size=5).losses == found).all()
    one = restoring(learner, examples, masking, Runtime("cpu"), batch_size=1).losses
    assert found == pytest.approx(one, rel=1e-5)
    assert not learner.training
    assert len(set(found.round(4))) > 5


@pytest.mark.parametrize("pooling", ["mean", "native"])
def test_what_restoring_does_not_reach_does_not_train(pooling: str, tmp_path: Path) -> None:
    """Ranks would wait for its gradient: with a pooler for features, restoring words goes past it."""
    body = backbones.load(str(words.network(tmp_path / "net")), pooling=pooling)
    learner = Restorer(Model(body, heads.build("linear", body.feature_dim, 3), words.CLASSES), seed=0).eval()
    learner.model.thaw("all")
    learner.model.head.requires_grad_(False)
    learner.spare()
    spared = [name for name, each in body.module.named_parameters() if not each.requires_grad]
    assert [name.rpartition(".")[0] for name in spared] == (["bert.pooler.dense"] * 2 if pooling == "native" else [])
    assert all(each.requires_grad for each in learner.words.parameters())
    tokens = torch.from_numpy(body.spec.noise(3))
    targets = torch.where(tokens[:, 0] >= 0, tokens[:, 0], IGNORED).long()
    loss = learner(tokens, targets, 10.0)
    assert loss.item() == pytest.approx(learner.losses(tokens, targets)[0].sum().item() / 10), "of the effective batch"
    loss.backward()
    assert all(each.grad is not None for each in learner.parameters() if each.requires_grad)
    assert not learner.train().finish().training
