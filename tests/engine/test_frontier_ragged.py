"""The frontier of rows that differ in length: tokens alone are kept, and what comes back is what the network gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.core.lengths import evened
from headstart.data.modalities import text
from headstart.data.modalities.text import TextSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import cache, features, streams
from headstart.engine.cache import FrontierCache
from headstart.engine.frontier import Frontiers
from headstart.engine.recorded import Wanted
from headstart.engine.runtime import Runtime
from headstart.engine.streams import CachedStream, Examples, LiveStream, Order
from headstart.models import backbone, heads, resume
from headstart.models.model import Model
from headstart.stages.base import Training
from headstart.stages.learner import POOLED, Learner
from headstart.tasks.classify import Loss

from .. import words

SPEC = TextSpec(words.tokenizer(), 64)


def examples(count: int = 40, split: str = "train", seed: int = 0) -> Examples:
    texts, labels = words.reviews(count, seed, longest=60)
    rows = Rows(texts, np.array([words.CLASSES.index(each) for each in labels]), tuple(map(str, range(count))))
    return Examples(split, rows, Store.build(rows, SPEC, modality="text"), SPEC)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Model]:
    folders: dict[str, Path] = {}

    def make(family: str = "bert", blocks: int = 1) -> Model:
        if family not in folders:
            folders[family] = words.network(tmp_path_factory.mktemp(family), family, hidden_dropout_prob=0.0)
        body = backbone.load(str(folders[family]))
        body.verify(torch.from_numpy(body.spec.noise(2)))
        made = Model(body, heads.build("linear", body.feature_dim, 3, seed=1), words.CLASSES).eval()
        torch.nn.init.normal_(made.head.last.weight)
        made.thaw(blocks)
        return made

    return make


def frontiers(net: Model, budget: int = 10**9) -> Frontiers:
    return Frontiers(net, Runtime("cpu"), lambda event: None, 7, budget)


def test_tokens_come_back_row_by_row_and_nothing_else_is_kept() -> None:
    rng = np.random.default_rng(0)
    lengths = np.array([3, 7, 1, 5])
    kept = FrontierCache(1, 4, views=2, lengths=lengths)
    whole = {view: [torch.rand(n, 6) for n in lengths] for view in (0, 1)}
    for view in (0, 1):
        for rows in (np.array([3, 1]), np.array([2, 0])):
            value = torch.full((2, lengths[rows].max(), 6), float("nan"))
            for place, row in enumerate(rows):
                value[place, : lengths[row]] = whole[view][row]
            kept.put(view, rows, {"lengths": torch.as_tensor(lengths[rows]), "value": (value, None)})
    assert kept.complete
    assert kept.nbytes == 2 * (16 * 6 * 4 + 4 * 8)
    rows, views = np.array([1, 2, 3, 1]), rng.integers(0, 2, 4)
    taken = kept.take(views, rows)
    assert taken["lengths"].tolist() == [7, 1, 5, 7]
    assert taken["value"][0].shape == (4, 7, 6)
    for place, (view, row) in enumerate(zip(views, rows, strict=True)):
        assert torch.equal(taken["value"][0][place, : lengths[row]], whole[int(view)][row])
        assert not taken["value"][0][place, lengths[row] :].any()
    short = cache.shortened({"lengths": taken["lengths"][1:3], "value": taken["value"][0][1:3]})
    assert short["value"].shape == (2, 5, 6)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "mpnet"])
def test_cached_logits_are_the_live_ones(
    family: str, model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SIDE_PLACES", 256)
    net = model(family, blocks=1)
    val = examples(24, "val", seed=1)
    found = frontiers(net).of_stage(Wanted.by(Training(augment="none"), net), examples(), val)
    assert found.decision.used, found.decision.reason
    live = features.evaluate(net, val, Runtime("cpu"), batch_size=8)
    cached = features.evaluate(net, val, Runtime("cpu"), batch_size=8, cache=found.val)
    assert np.array_equal(live.logits, cached.logits)
    assert live.logits.std() > 0.1


@pytest.mark.parametrize("done", [0, 9, 16, 40])
def test_passes_take_batches_of_as_many_tokens_wherever_they_begin(done: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SIDE_PLACES", 256)
    rows, shapes = examples(), []
    in_order = features.order(rows, Runtime("cpu"))
    into = FrontierCache(POOLED, len(rows))

    def compute(inputs: torch.Tensor) -> list[torch.Tensor]:
        shapes.append((len(inputs), inputs.shape[2]))
        return [(inputs[:, :1] != text.PAD).sum(2).float()]

    parts: Any = SimpleNamespace(done=done, note=lambda count: None, keep=lambda: None)
    if done:
        into.put(0, in_order[:done], torch.as_tensor(rows.store.lengths[in_order[:done], None]).float())
    features.fill([into], 0, rows, compute, Runtime("cpu"), emit=lambda event: None, parts=parts)
    assert into.complete
    assert np.array_equal(into.features(0)[:, 0].numpy(), rows.store.lengths)
    assert all(192 <= count * places <= 256 for count, places in shapes), shapes
    assert len({count for count, _ in shapes}) > 1 or done == 40
    assert sum(count for count, _ in shapes) < 40 - done + 64  # at most a batch too many at both ends


def test_stand_ins_hide_what_these_rows_lack(model: Callable[..., Model]) -> None:
    """Batches of the same shape, one after the other, of which the second has other lengths."""
    net = model(blocks=2).backbone
    tokens = np.random.default_rng(0).integers(5, 20, (2, 2, 38)).astype(np.int32)
    tokens[:, 1] = 0
    net.uniform = net.stand_in_rows = None
    for lengths in ((38, 33), (37, 37)):
        batch = text.collate([row[:, :length] for row, length in zip(tokens, lengths, strict=True)], SPEC)
        assert batch.shape[2] == 38
        inputs = torch.from_numpy(batch)
        with torch.no_grad():
            resumed = resume.features_from(net, 1, resume.record(net, 1, inputs), 2)
            assert torch.equal(resumed, net.features(inputs))


@pytest.mark.parametrize(
    ("shape", "places"),
    [((3, 35, 8), 35), ((3, 40, 8), 40), ((35, 36, 8), 36), ((36, 35, 8), 36), ((35, 18, 8), 36), ((3, 8, 36), 36)],
)
def test_the_places_of_a_record_are_told(shape: tuple[int, ...], places: int) -> None:
    """Of at most 35 tokens, which the loader gives 36 places: batch first, time first, halved, padded further."""
    net: Any = SimpleNamespace(spec=SPEC)
    assert resume._places((torch.zeros(3, 8), torch.zeros(shape)), 35, net) == places


def test_texts_that_change_length_are_no_views_to_keep(model: Callable[..., Model]) -> None:
    net, val = model(), examples(12, "val")

    def often(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.delete(row, 1, axis=1)

    def later(row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        late = row.shape[1] == train.store.lengths[-1] and np.array_equal(row, train.store[len(train) - 1])
        return np.repeat(row, 2, axis=1)[:, :64] if late else row

    train = examples()
    told = frontiers(net).of_stage(Wanted.by(Training(augment=often, views=2), net), train, val).decision
    assert not told.used
    assert "how many tokens" in told.reason
    with pytest.raises(ConfigError, match="how many tokens"):
        frontiers(net).of_stage(Wanted.by(Training(augment=later, views=2), net), train, val)


def test_a_rank_takes_batches_of_the_places_that_all_take() -> None:
    rows = examples()
    in_order = features.order(rows, Runtime("cpu"))
    longest = evened(int(rows.store.lengths.max()), 64)
    short = in_order[rows.store.lengths[in_order] < 20]
    found, sizes = features._whole(rows, short, 1)
    assert sizes[0] == longest // evened(int(rows.store.lengths[short[0]]), 64)
    assert sum(sizes) == len(found) >= len(short) > sizes[0]
    empty, none = features._whole(rows, in_order[:0], 4)
    assert (len(empty), none) == (0, [])


@pytest.mark.parametrize("micro", [8, 3])
def test_gradients_from_the_cache_are_the_live_ones(micro: int, model: Callable[..., Model]) -> None:
    net, train = model(blocks=2), examples()
    found = frontiers(net).of_stage(Wanted.by(Training(augment="none"), net), train, examples(12, "val"))
    order = Order(7, 0, train.rows, 8, None, train.store.lengths)
    learner = Learner(net, Loss())
    given = []
    for stream in (LiveStream(Runtime("cpu"), order, train, None), CachedStream(Runtime("cpu"), order, found.train)):
        learner.zero_grad()
        for update in stream.epoch(0):
            for part in update.parts(micro):
                learner(part.inputs, part.targets, part.total, part.frontier).backward()
        given.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
    assert given[0].keys() == given[1].keys()
    for name, gradient in given[0].items():
        assert torch.allclose(gradient, given[1][name], rtol=1e-4, atol=1e-5), name


def test_the_budget_counts_tokens(model: Callable[..., Model]) -> None:
    net, train, val = model(), examples(), examples(12, "val")
    tokens = int(train.store.lengths.sum() + val.store.lengths.sum())
    found = frontiers(net).of_stage(Wanted.by(Training(augment="none"), net), train, val)
    assert found.train.nbytes + found.val.nbytes == tokens * 32 * 4 + 52 * 8
    assert abs(found.decision.nbytes / (tokens * 32 * 4) - 1) < 0.1
    short = frontiers(net, budget=tokens * 32 * 2).of_stage(Wanted.by(Training(augment="none"), net), train, val)
    assert not short.decision.used
    assert "exceeds the budget" in short.decision.reason


def test_what_is_not_one_value_a_token_is_not_kept(
    model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, plain = model(), resume.record

    def odd(*args: Any) -> Any:
        value = plain(*args)
        return {**value, "value": (value["value"], value["value"] @ value["value"].transpose(1, 2), torch.ones(2, 4))}

    monkeypatch.setattr(resume, "record", odd)
    found = frontiers(net).of_stage(Wanted.by(Training(augment="none"), net), examples(), examples(12, "val"))
    assert not found.decision.used
    assert "not one value a token" in found.decision.reason


def test_hidden_words_are_fresh_or_views(model: Callable[..., Model]) -> None:
    spec = TextSpec(SPEC.tokenizer, 64, mask=4)
    train = examples()
    train = Examples("train", train.rows, train.store, spec)
    net = model()
    live = frontiers(net).of_stage(Wanted.by(Training(augment="light"), net), train, examples(12, "val"))
    assert not live.decision.used
    found = frontiers(net).of_stage(Wanted.by(Training(augment="strong", views=2), net), train, examples(12, "val"))
    assert found.decision.used
    plain, hidden = (found.train.take(view, np.arange(40))["value"] for view in (0, 1))
    assert not torch.equal(plain, hidden)
    again = text.decode(train.rows.items[0], spec)
    assert streams.on_device(again[None], torch.device("cpu")).shape[1] == 2
