"""The demo's pictures: the same every time, and told apart by no single pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.core.manifest import sha256
from headstart.workflows import demo


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "PER_CLASS", 3)


@pytest.mark.usefixtures("few")
def test_pictures_are_drawn_alike_and_never_again(tmp_path: Path) -> None:
    first, second = demo.pictures(tmp_path / "a"), demo.pictures(tmp_path / "b")
    files = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert len(files) == 3 * len(demo.PATTERNS)
    assert [sha256(first / file) for file in files] == [sha256(second / file) for file in files]
    assert len({sha256(first / file) for file in files}) == len(files)
    times = [(first / file).stat().st_mtime_ns for file in files]
    demo.pictures(first)
    assert times == [(first / file).stat().st_mtime_ns for file in files], "what is there is not written again"


def test_colour_does_not_tell_the_class() -> None:
    rng = np.random.default_rng(0)
    drawn = {name: np.stack([demo.draw(name, rng).mean((0, 1)) for _ in range(80)]) for name in demo.PATTERNS}
    spread = np.concatenate(list(drawn.values())).std(0).mean()
    centres = np.stack([colours.mean(0) for name, colours in drawn.items() if name != "dots"])
    assert np.abs(centres - centres.mean(0)).max() < spread
