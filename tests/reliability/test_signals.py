"""R5: SIGTERM, SIGINT and SIGHUP end a run soon, with its exit code and a checkpoint; a second one ends it at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from nursery import Life, finished

from headstart.core import interruption

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
SOON = 5.0  # seconds


@pytest.mark.parametrize("signals", [1, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_at_a_random_instant(tmp_path: Path, whole: Path, number: int, signals: int) -> None:
    """No checkpoint is due by the clock: what is resumed from was written because of the signal."""
    longest = float(json.loads((whole / "runs/toy/result.json").read_text())["seconds"])
    rng = np.random.default_rng(number)
    hits, lives, slowest = 0, 0, 0.0
    while hits < signals and lives < 5 * signals:
        folder = tmp_path / str(lives)
        life = Life(folder, checkpoint_seconds=1e9)
        time.sleep(float(rng.uniform(0.05, 0.45 * longest)))
        begun, sent = (life.run / "events.jsonl").is_file(), time.monotonic()
        hit = life.signal(number)
        code = life.end()
        lives += 1
        if hit and code != 0:
            mine = begun and not (life.run / "report.html").is_file()  # else the default may have ended the process
            assert code == CODES[number] or (code == -number and not mine), life.log()
            slowest = max(slowest, time.monotonic() - sent)
            hits += 1
        finished(folder, whole)
    name = signal.Signals(number).name
    print(
        f"\nR5: {hits}/{signals} {name} at random instants: resumed bit for bit; the slowest end took {slowest:.2f} s"
    )
    assert hits == signals
    assert slowest < SOON


def started(life: Life, stage: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        file = life.run / "events.jsonl"
        if file.is_file() and f'"name": "{stage}"' in file.read_text():
            return
        time.sleep(0.005)
    raise AssertionError(life.log())


def test_a_signal_in_training_costs_at_most_a_step(tmp_path: Path, whole: Path) -> None:
    long = {"plan": [{"thaw": {"name": "tuned", "epochs": 100, "batch_size": 8, "blocks": "all"}}]}
    life = Life(tmp_path, checkpoint_seconds=1e9, settings=long, plants=[("trace_updates", {})])
    started(life, "tuned")
    while not (tmp_path / "updates.jsonl").is_file():
        time.sleep(0.005)
    life.signal(signal.SIGTERM)
    assert life.end() == 143, life.log()
    done = len((tmp_path / "updates.jsonl").read_text().splitlines())
    (place,) = (life.run / "stages/00-tuned/state").glob("step-*")
    assert int(place.name[-8:]) == done
    again = Life(tmp_path, checkpoint_seconds=1e9, settings=long, plants=[("trace_updates", {})])
    started(again, "tuned")
    deadline = time.monotonic() + 60
    while len((tmp_path / "updates.jsonl").read_text().splitlines()) <= done and time.monotonic() < deadline:
        time.sleep(0.005)
    again.signal(signal.SIGKILL)
    again.end()
    assert again.events("resumed")[-1]["message"].endswith(f"update {done + 1}")


def test_a_signal_in_a_long_evaluation_does_not_wait_for_its_end(tmp_path: Path, whole: Path) -> None:
    life = Life(tmp_path, checkpoint_seconds=1e9, plants=[("slow_evaluation", {"seconds": 1.0})])
    while not (tmp_path / "evaluating").is_file():
        time.sleep(0.01)
    sent = time.monotonic()
    life.signal(signal.SIGINT)
    assert life.end() == 130, life.log()
    assert time.monotonic() - sent < SOON
    assert list(life.run.glob("stages/*/state/step-*")), "nothing to resume from"
    finished(tmp_path, whole)


def test_a_closed_terminal_is_told_twice_and_costs_at_most_a_step(tmp_path: Path, whole: Path) -> None:
    """A shell tells its jobs, and the kernel those of a shell that has ended."""
    life = Life(tmp_path, checkpoint_seconds=1e9, plants=[("slow_evaluation", {"seconds": 1.0})])
    while not (tmp_path / "evaluating").is_file():
        time.sleep(0.01)
    for _ in range(3):
        life.signal(signal.SIGHUP)
        time.sleep(0.02)
    assert life.end() == CODES[signal.SIGHUP], life.log()
    assert list(life.run.glob("stages/*/state/step-*")), "nothing to resume from"
    finished(tmp_path, whole)


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    life = Life(tmp_path, checkpoint_seconds=1e9, plants=[("slow_evaluation", {"seconds": 20.0})])
    while not (tmp_path / "evaluating").is_file():
        time.sleep(0.01)
    life.signal(signal.SIGINT)
    time.sleep(0.2)
    sent = time.monotonic()
    life.signal(signal.SIGINT)
    assert life.end() == -signal.SIGINT
    assert time.monotonic() - sent < 10


# ---- signals that a process raises itself, away from the test process and from how that was started -----------------

ALONE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
from headstart.core import interruption
"""


def alone(script: str) -> list[str]:
    """What a new process prints that runs ``script``, line by line."""
    command = [sys.executable, "-c", ALONE + textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_handlers_are_given_back() -> None:
    said = alone("""
        before = [signal.getsignal(number) for number in interruption.SIGNALS]
        with interruption.watched():
            print([signal.getsignal(number) for number in interruption.SIGNALS] == before)
        print([signal.getsignal(number) for number in interruption.SIGNALS] == before)
    """)
    assert said == ["False", "True"]


def test_a_handler_of_the_embedding_program_stays() -> None:
    said = alone("""
        signal.signal(signal.SIGTERM, lambda number, frame: print("heard", number))
        with interruption.watched():
            signal.raise_signal(signal.SIGTERM)
        print("behind")
    """)
    assert said == [f"heard {signal.SIGTERM:d}", "behind"]


def test_a_deferred_signal_raises_at_the_check_and_not_before() -> None:
    said = alone("""
        @interruption.watched()
        def work():
            with interruption.deferred():
                signal.raise_signal(signal.SIGINT)
                print("inside")
            print("behind")
            interruption.check()
            print("never")

        try:
            work()
        except interruption.Interrupted as error:
            print(error.exit_code)
        interruption.check()  # forgotten with the run that it ended
        print("forgotten")
    """)
    assert said == ["inside", "behind", "130", "forgotten"]


def test_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with interruption.watched():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]
