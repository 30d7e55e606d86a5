"""Several batches at once: the same features, at their rows, and the threads as they were."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core import workers
from headstart.engine import features, streams
from headstart.engine.cache import FrontierCache
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.models.model import Model
from headstart.stages.learner import POOLED

THREADS = 3


@pytest.fixture(autouse=True)
def _three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _few_rows_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SIDE_BATCH", {"fp32": 5})


def filled(examples: Examples, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    into = FrontierCache(POOLED, len(examples))
    runtime = Runtime("cpu")
    features.fill([into], 0, examples, lambda inputs: [compute(inputs)], runtime, emit=lambda event: None)
    return into.features(0)


def test_side_by_side_gives_the_same_features(
    examples: Callable[..., Examples], model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, rows, seen = model().backbone, examples(33), set()

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        seen.add((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        assert not torch.is_grad_enabled()
        return backbone.features(inputs)

    together = filled(rows, compute)
    assert seen == {(False, 1)}, "a thread a batch, and one only"
    seen.clear()
    monkeypatch.setattr(workers, "MOST", 1)
    alone = filled(rows, compute)
    assert seen == {(True, THREADS)}
    assert torch.allclose(together, alone, atol=1e-5)
    assert len(together.unique(dim=0)) == len(rows), "rows that were mixed up would show"
    assert torch.get_num_threads() == THREADS


@pytest.mark.parametrize(("count", "sizes"), [(33, [5] * 7), (3, [3]), (5, [5])])
def test_batches_are_of_one_size(
    examples: Callable[..., Examples], model: Callable[..., Model], count: int, sizes: list[int]
) -> None:
    backbone, rows, seen = model().backbone, examples(count), []

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(len(inputs))
        return backbone.features(inputs)

    with torch.no_grad():
        alone = torch.cat(
            [backbone.features(torch.from_numpy(batch.inputs)) for batch in rows.batches(range(count), batch_size=1)]
        )
    assert torch.allclose(filled(rows, compute), alone, atol=1e-5)
    assert seen == sizes


def test_views_do_not_depend_on_the_size_of_batches(
    examples: Callable[..., Examples], model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that fills the last batch up is no other view of it."""
    backbone, rows, found = model().backbone, examples(33), []
    for size in (5, 8, 33):
        monkeypatch.setattr(features, "SIDE_BATCH", {"fp32": size})
        into = FrontierCache(POOLED, len(rows))
        augment, key = streams.augmentation("standard"), (7, 1)
        options: dict[str, Any] = {"emit": lambda event: None, "augment": augment, "key": key}
        features.fill([into], 0, rows, lambda inputs: [backbone.features(inputs)], Runtime("cpu"), **options)
        found.append(into.features(0))
    assert torch.allclose(found[0], found[1], atol=1e-5)
    assert torch.allclose(found[0], found[2], atol=1e-5)


def test_of_a_row_that_comes_again_the_first_is_kept() -> None:
    into = FrontierCache(POOLED, 3)
    into.put(0, np.array([2, 0, 1, 1]), torch.arange(4.0)[:, None])
    assert into.features(0).flatten().tolist() == [1, 2, 0]


def test_a_failure_in_a_thread_is_raised_and_leaves_the_threads_as_they_were(examples: Callable[..., Examples]) -> None:
    def compute(inputs: torch.Tensor) -> torch.Tensor:
        raise ValueError("odd input")

    with pytest.raises(ValueError, match="odd input"):
        filled(examples(33), compute)
    assert torch.get_num_threads() == THREADS


def test_memory_that_runs_out_in_a_thread_halves_the_batch(
    examples: Callable[..., Examples], model: Callable[..., Model]
) -> None:
    backbone, rows = model().backbone, examples(12)

    def compute(inputs: torch.Tensor) -> torch.Tensor:
        if len(inputs) > 2:
            raise MemoryError
        return backbone.features(inputs)

    with torch.no_grad():
        wanted = filled(rows, backbone.features)
    assert torch.allclose(filled(rows, compute), wanted, atol=1e-5)
    assert torch.get_num_threads() == THREADS
