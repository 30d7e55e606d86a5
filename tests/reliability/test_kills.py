"""R1: killed at any instant, a run that is started again ends with the very weights of one that was not."""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from nursery import Life, finished

# (what, path, n-th time): each life dies just before that change in the file system, the next one goes on.
POINTS = {
    "before the run has its folder": ("os.rename", r"runs/toy$", 1),
    "before its choices are written": ("os.rename", r"choices\.json$", 1),
    "while features are kept for later runs": ("os.rename", r"cache/features/\w+\.safetensors$", 2),
    "in the solved stage, before its manifest": ("os.rename", r"00-probe/manifest\.json$", 1),
    "after a checkpoint's tensors": ("open", r"01-cached/.*step-00000001\.tmp-\d+/\.facts", 1),
    "before a checkpoint's manifest": ("os.rename", r"01-cached/.*step-00000002\.tmp-\d+/manifest\.json$", 1),
    "before a checkpoint's rename": ("os.rename", r"01-cached/state/step-00000003$", 1),
    "in prune": ("os.rmdir", r"01-cached/state/step-00000001$", 1),
    "while a checkpoint is replaced": ("os.rename", r"01-cached/state/\.step-00000003\.tmp-old$", 1),
    "switch of stages: not sealed": ("os.rename", r"01-cached/manifest\.json$", 1),
    "switch of stages: sealed, checkpoints still there": ("os.rmdir", r"01-cached/state/step-00000007$", 1),
    "in the next stage": ("os.rename", r"02-live/state/step-00000001$", 1),
    "switch of stages: the last": ("os.rename", r"02-live/manifest\.json$", 1),
    "in the evaluation of the test rows": ("open", r"predictions-test\.npz", 1),
    "model: written, not in place": ("os.rename", r"runs/toy/model$", 1),
    "model: in place, no result yet": ("os.rename", r"toy/result\.json$", 1),
    "in the report": ("os.rename", r"report\.html$", 1),
}


def killed(folder: Path, **spec: object) -> None:
    life = Life(folder, **spec)
    code = life.end()
    assert code == -signal.SIGKILL, f"{spec}: ended with {code}, not killed\n{life.log()}"


def test_killed_at_every_named_point_in_turn(tmp_path: Path, whole: Path) -> None:
    for point in POINTS.values():
        killed(tmp_path, die_before=[point])
    finished(tmp_path, whole, "all points in turn")
    print(f"\nR1: {len(POINTS)} named points in turn: same weights")


@pytest.mark.slow
@pytest.mark.parametrize("name", POINTS)
def test_killed_at_a_named_point(tmp_path: Path, whole: Path, name: str) -> None:
    killed(tmp_path, die_before=[POINTS[name]])
    finished(tmp_path, whole, name)


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_instants(tmp_path: Path, whole: Path, kills: int) -> None:
    """Lives that were over before the signal came do not count, and every one of them must be right all the same."""
    longest = float(json.loads((whole / "runs/toy/result.json").read_text())["seconds"])
    rng = np.random.default_rng(kills)
    hits = lives = 0
    while hits < kills and lives < 5 * kills:
        folder = tmp_path / str(lives)
        life = Life(folder)
        time.sleep(float(rng.uniform(0.02, 0.45 * longest)))
        hits += life.signal(signal.SIGKILL)
        lives += 1
        life.end()
        finished(folder, whole, f"life {lives}")
    print(f"\nR1: {hits}/{kills} random kills with the same weights ({lives} lives)")
    assert hits == kills


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a run's folder was before each of its changes: all that a kill at any instant can leave."""
    keep = tmp_path_factory.mktemp("states")
    life = Life(tmp_path_factory.mktemp("kept"), keep=str(keep))
    assert life.end() == 0, life.log()
    return sorted(keep.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stride", [5, 1])
def test_killed_before_every_change_in_the_file_system(whole: Path, states: list[Path], stride: int) -> None:
    """With stride 1 no sample: every place where a crash between two file operations can happen."""
    places = states[stride // 2 :: stride]
    for place in places:
        folder = place.with_name(f"{place.name} by {stride}")
        shutil.copytree(place, folder, symlinks=True)
        finished(folder, whole, f"state {place.name}")
        shutil.rmtree(folder)
    print(f"\nR1: {len(places)}/{len(places)} of {len(states)} states of the file system: same weights")


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ("checkpoints", "work was done twice"),
        pytest.param("stages", "1 stages were complete", marks=pytest.mark.slow),
    ],
)
def test_starting_anew_would_be_noticed(tmp_path: Path, whole: Path, of: str, said: str) -> None:
    """The weights alone do not tell: who forgets everything arrives at the same ones."""
    killed(tmp_path, die_before=[POINTS["before a checkpoint's rename"]])
    with pytest.raises(AssertionError, match=said):
        finished(tmp_path, whole, plants=[("forgetful", {"of": of})])


@pytest.mark.slow
def test_a_state_is_what_a_kill_leaves(tmp_path: Path, states: list[Path]) -> None:
    """The copies above are no other than the folders of lives that were really killed."""

    def known(folder: Path) -> list[str]:
        names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
        return sorted(re.sub(r"\.tmp-\d+|features/\.?\w+", "", name) for name in names if "life.log" not in name)

    kept = [known(state) for state in states]
    for place in (POINTS["before a checkpoint's rename"], POINTS["in the report"]):
        folder = tmp_path / place[1][:9].replace("/", "-")
        killed(folder, die_before=[place])
        assert known(folder) in kept, place


@pytest.mark.parametrize("runs", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_three_times_within_one_epoch(tmp_path: Path, whole: Path, runs: int) -> None:
    for run in range(runs):
        folder = tmp_path / str(run)
        for update in (1, 2, 3):  # of the three updates of an epoch
            stage = ("01-cached", "02-live")[run % 2]
            killed(folder, die_before=[("os.rename", rf"{stage}/state/step-{update:08d}$", 1)])
        finished(folder, whole, f"run {run}")
    print(f"\nR1: {runs}/{runs} runs killed three times within one epoch with the same weights")


def test_a_stage_that_has_to_begin_again_says_so(tmp_path: Path, whole: Path) -> None:
    life = Life(tmp_path, checkpoint_seconds=1e9, plants=[("slow_evaluation", {"seconds": 20.0})])
    while not (tmp_path / "evaluating").is_file():
        time.sleep(0.01)
    life.signal(signal.SIGKILL)
    assert life.end() == -signal.SIGKILL
    finished(tmp_path, whole)
    (said,) = life.events("begun-again")
    assert "stage cached ended before its first checkpoint" in said["message"]
