"""Choices that timing or memory made: written down before first use, and replayed where others would be made now."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from nursery import Life, weights

PLENTY = 2**40
# In the cached stage, in the live one, and between the two: the choices were used, and are needed again.
POINTS = {
    "in the cached stage": ("os.rename", r"01-cached/state/step-00000003$", 1),
    "between two stages": ("os.rename", r"01-cached/manifest\.json$", 1),
    "in the live stage": ("os.rename", r"02-live/state/step-00000002$", 1),
}
POINT_CASES = [
    point if point == "in the cached stage" else pytest.param(point, marks=pytest.mark.slow) for point in POINTS
]


def quick(name: str) -> dict[str, Any]:
    """A machine on which this precision is measured to be the faster one."""
    return {"settings": {"precision": "auto"}, "plants": [("faster", {"precision": name})]}


def spacious(free: int) -> dict[str, Any]:
    return {"plants": [("free_memory", {"free": free})]}


def frontier(life: Life) -> list[str]:
    """What was decided of the frontier cache, over all lives of the run."""
    return [event["choice"] for event in life.events() if event.get("topic") == "frontier cache"]


def ended(life: Life) -> str:
    assert life.end() == 0, life.log()
    return weights(life.folder)


@pytest.fixture(scope="module")
def bf16(tmp_path_factory: pytest.TempPathFactory) -> str:
    return ended(Life(tmp_path_factory.mktemp("bf16"), **quick("bf16")))


@pytest.mark.parametrize("point", POINT_CASES)
def test_the_precision_is_replayed(tmp_path: Path, whole: Path, bf16: str, point: str) -> None:
    assert bf16 != weights(whole), "otherwise the precision would not matter and this test would show nothing"
    broken = Life(tmp_path, die_before=[POINTS[point]], **quick("bf16"))
    assert broken.end() == -9, broken.log()
    (tmp_path / "cache" / "precision.json").unlink()
    assert ended(Life(tmp_path, **quick("fp32"))) == bf16


@pytest.mark.slow
def test_a_precision_that_was_not_written_down_was_not_used(tmp_path: Path, whole: Path) -> None:
    broken = Life(tmp_path, die_before=[("os.rename", r"choices\.json$", 1)], **quick("bf16"))
    assert broken.end() == -9, broken.log()
    assert not list(broken.run.glob("stages/*")), "something was made by a choice that nobody knows any more"
    assert not list((tmp_path / "cache").glob("features/*"))
    (tmp_path / "cache" / "precision.json").unlink()
    assert ended(Life(tmp_path, **quick("fp32"))) == weights(whole)


@pytest.mark.parametrize(("then", "now"), [(PLENTY, 0), pytest.param(0, PLENTY, marks=pytest.mark.slow)])
def test_the_room_for_the_frontier_is_replayed(tmp_path: Path, whole: Path, then: int, now: int) -> None:
    broken = Life(tmp_path, die_before=[POINTS["in the cached stage"]], **spacious(then))
    assert broken.end() == -9, broken.log()
    first = frontier(broken)
    assert first == ["used" if then else "not used"]
    chosen = json.loads((broken.run / "choices.json").read_text())
    resumed = Life(tmp_path, **spacious(now))
    found = ended(resumed)
    assert frontier(resumed)[: 2 * len(first)] == 2 * first
    assert json.loads((resumed.run / "choices.json").read_text()) == chosen
    assert found == weights(whole), "cached or live, the weights are the same"


@pytest.mark.slow
def test_a_changed_choice_would_be_noticed(tmp_path: Path, bf16: str) -> None:
    """The planted fault: the file with the choices is gone, so that the resumed run measures anew."""
    broken = Life(tmp_path, die_before=[POINTS["in the live stage"]], **quick("bf16"))
    assert broken.end() == -9, broken.log()
    (tmp_path / "cache" / "precision.json").unlink()
    (broken.run / "choices.json").unlink()
    resumed = Life(tmp_path, **quick("fp32"))
    assert ended(resumed) != bf16
    assert "precision was bf16 and is fp32" in resumed.events("resume-differs")[0]["message"]
