"""A pass that is interrupted goes on where it was, to the same bits, and nothing of it is left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.events import Notice, Progress
from headstart.engine import features, parts
from headstart.engine.cache import FeatureStore, FrontierCache
from headstart.engine.frontier import Frontiers
from headstart.engine.parts import Parts
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.models.model import Model
from headstart.stages.learner import POOLED

SIZE, ROWS = 4, 22


@pytest.fixture(autouse=True)
def _few_rows_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "SIDE_BATCH", {"fp32": SIZE})


class Pass:
    """A pass over 22 rows, which ends with Ctrl-C after so many, and counts what the network was given."""

    def __init__(self, model: Model, kept: FeatureStore, stop: int | None = None) -> None:
        self.said: list[Any] = []
        self.seen: list[int] = []
        self.stop = stop
        self.frontiers = Frontiers(model, Runtime("cpu"), self._emit, 7, 10**9, kept)

    def _emit(self, event: Any) -> None:
        self.said.append(event)
        if isinstance(event, Progress) and self.stop is not None and event.done >= self.stop:
            raise KeyboardInterrupt

    def run(self, rows: Examples, **options: Any) -> torch.Tensor:
        fast, _ = self.frontiers.copies(rows).of(torch.float32)
        fast.register_forward_pre_hook(lambda _module, given: self.seen.append(len(given[0])))
        return self.frontiers.pooled(rows, **options)

    @property
    def told(self) -> list[str]:
        return [event.message for event in self.said if isinstance(event, Notice)]


@pytest.fixture
def make(model: Callable[..., Model], tmp_path: Path) -> Iterator[Callable[..., Pass]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # batches one by one: what is seen is what was asked for
    yield lambda stop=None, folder="kept": Pass(model(), FeatureStore(tmp_path / folder, 10**9), stop)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("stop", [1, 8, 12, 21])
@pytest.mark.parametrize("view", [0, 1])
def test_an_interrupted_pass_goes_on_where_it_was(
    make: Callable[..., Pass], examples: Callable[..., Examples], tmp_path: Path, stop: int, view: int
) -> None:
    rows, options = examples(ROWS), {"view": view, "augment": "standard"}
    whole = make(folder="other").run(rows, **options)
    with pytest.raises(KeyboardInterrupt):
        make(stop).run(rows, **options)
    assert [file.name.endswith("-begun.safetensors") for file in (tmp_path / "kept").iterdir()] == [True]
    again = make()
    assert torch.equal(again.run(rows, **options), whole)
    done = min(ROWS, -(-stop // SIZE) * SIZE)
    assert sum(again.seen) == ROWS + 2 - done // SIZE * SIZE, "whole batches, of which the last is filled up"
    assert again.told == [f"{done} of {ROWS} rows of train are kept from an interrupted pass"]
    assert [each.rows for each in again.frontiers.passed] == [ROWS - done]
    (left,) = (tmp_path / "kept").iterdir()
    assert not left.name.endswith("-begun.safetensors")
    assert make().run(rows, **options).equal(whole)


def test_what_is_damaged_or_of_other_rows_is_not_taken(
    make: Callable[..., Pass], examples: Callable[..., Examples], tmp_path: Path
) -> None:
    rows = examples(ROWS)
    with pytest.raises(KeyboardInterrupt):
        make(8).run(rows)
    other = make()
    other.run(examples(ROWS, seed=5))
    assert sum(other.seen) == ROWS + 2
    (begun,) = (tmp_path / "kept").glob("*-begun.safetensors")
    content = bytearray(begun.read_bytes())
    content[-9] ^= 1
    begun.write_bytes(content)
    again = make()
    again.run(rows)
    assert sum(again.seen) == ROWS + 2
    assert again.told == []


def test_after_smaller_batches_it_goes_on_with_whole_ones(
    make: Callable[..., Pass], examples: Callable[..., Examples], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = examples(ROWS)
    whole = make(folder="other").run(rows)
    monkeypatch.setattr(features, "SIDE_BATCH", {"fp32": 2})
    with pytest.raises(KeyboardInterrupt):
        make(10).run(rows)
    monkeypatch.setattr(features, "SIDE_BATCH", {"fp32": SIZE})
    again = make()
    assert torch.allclose(again.run(rows), whole, atol=1e-5)
    assert again.seen == [SIZE] * 4, "from row 8, where a batch begins"


def test_it_is_written_now_and_then_and_never_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, cost = [0.0], [1.0]
    kept, written = FeatureStore(tmp_path, 10**9), []

    def write(key: str, values: torch.Tensor) -> None:
        now[0] += cost[0]
        written.append(len(values))

    monkeypatch.setattr(kept, "write", write)
    into = FrontierCache(POOLED, 1000)
    begun = Parts(kept, "key", np.arange(1000), into, clock=lambda: now[0])
    for row in range(1000):
        into.put(0, np.array([row]), torch.full((1, 2), float(row)))
        now[0] += 1.0
        begun.note(row + 1)
    assert written[0] == parts.SECONDS
    assert len(written) == pytest.approx(1000 / 50, abs=1), "2 % of the time"
    begun.keep()
    assert len(written) < 25, "all of it is for the whole file"
    assert not list(tmp_path.iterdir())
