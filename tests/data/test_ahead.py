"""Decoding ahead: the same rows as decoded at once, however far the other process came, and nobody left behind.

What forks runs in a process of its own, since one with torch does not fork.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import corpus

# Rows: the files of the folder that argv[1] names.
SCRIPT = """
import os, signal, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from headstart.core import registry
from headstart.data.ahead import Ahead, is_possible
from headstart.data.splits import Rows
from headstart.data.store import Store

folder, modality = Path(sys.argv[1]), sys.argv[2]
kind = registry.find("headstart.data.modalities", modality)
paths = sorted(map(str, folder.glob("row-*")))
rows = Rows(paths, np.zeros(len(paths), np.int64), tuple(map(os.path.basename, paths)))
SPEC = kind.plain(rows, 3)

def build(ahead=None, **options):
    return Store.build(rows, SPEC, modality=modality, ahead=ahead, cache_dir=folder / "cache", **options)

def same(left, right):
    assert left.errors == right.errors and left.facts == right.facts
    assert np.array_equal(left.sketches, right.sketches)
    assert np.array_equal(left.lengths, right.lengths)
    for row in left.usable:
        assert np.array_equal(left[row], right[row])
        assert not right[row].flags.writeable
    return len(left.usable)

def children():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None

def settled(ahead, count):
    "Wait until so many rows are done."
    deadline = time.monotonic() + 60
    while os.pread(ahead._records, 10**6, 0).count(b"\\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)

assert is_possible(rows)
"""


def script(folder: Path, code: str, modality: str = "image") -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + code, str(folder), modality], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pictures, of which one is empty and one no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(40):
        content = {7: b"", 21: b"no picture"}.get(number, corpus.encoded(corpus.picture(seed=number)))
        (folder / f"row-{number:02d}.jpg").write_bytes(content)
    return folder


ALL = """
whole = build()
ahead = Ahead(rows, SPEC, modality, 10**9)
settled(ahead, len(rows))
seen = []
store = build(ahead, progress=lambda done, total: seen.append(done))
print(same(whole, store), store.where, store.nbytes == whole.nbytes, seen, children())
"""


def test_rows_that_another_process_decoded_are_the_same(pictures: Path) -> None:
    assert script(pictures, ALL) == "38 memory True [40] None"


def test_recordings_are_the_same_too(tmp_path: Path) -> None:
    for number in range(5):
        with wave.open(str(tmp_path / f"row-{number}.wav"), "wb") as file:
            file.setparams((2, 2, 22_050, 0, "NONE", ""))
            noise = np.random.default_rng(number).integers(-9000, 9000, (4000 + number, 2))
            file.writeframes(noise.astype("<i2").tobytes())
    (tmp_path / "row-5.wav").write_bytes(b"RIFF")
    assert script(tmp_path, ALL, "audio") == "5 memory True [6] None"


def test_wherever_it_is_stopped_the_rest_is_decoded_here(pictures: Path) -> None:
    code = """
whole, counts = build(), set()
for count in (0, 1, 9, 30):
    ahead = Ahead(rows, SPEC, modality, 10**9)
    settled(ahead, count)
    seen = []
    same(whole, build(ahead, progress=lambda done, total: seen.append(done)))
    assert seen[-1] == 40 and seen == list(range(seen[0], 41)) and seen[0] >= count
    counts.add(seen[0])
print(len(counts) > 1, children())
"""
    assert script(pictures, code) == "True None"


def test_one_that_dies_has_done_what_it_has_written(pictures: Path) -> None:
    code = """
whole = build()
ahead = Ahead(rows, SPEC, modality, 10**9)
settled(ahead, 3)
os.kill(ahead._child, signal.SIGKILL)
os.waitid(os.P_PID, ahead._child, os.WEXITED | os.WNOWAIT)
with open(os.dup(ahead._records), "a") as file:
    file.write('[[1, 2')
print(same(whole, build(ahead)), children())
"""
    assert script(pictures, code) == "38 None"


def test_other_canvases_are_not_taken(pictures: Path) -> None:
    code = """
for other, kept in ({"mean": (0.1,) * 3}, True), ({"resize": 99}, False), ({"crop": "pad"}, False):
    ahead = Ahead(rows, replace(SPEC, **other), modality, 10**9)
    settled(ahead, 2)
    assert (ahead.taken(SPEC) is not None) == kept
    assert ahead.taken(SPEC) is None, "it is gone"
    ahead.stop()
print(children())
"""
    assert script(pictures, code) == "None"


def test_what_outgrows_the_memory_goes_to_disk_and_is_found_there(pictures: Path) -> None:
    code = """
whole = build()
for most in (whole.nbytes // 3, 0):
    ahead = Ahead(rows, SPEC, modality, most)
    os.waitid(os.P_PID, ahead._child, os.WEXITED | os.WNOWAIT)
    store = build(ahead, budget_bytes=whole.nbytes // 2)
    assert same(whole, store) == 38 and store.where == "disk"
    found = build(budget_bytes=whole.nbytes // 2)
    assert same(whole, found) == 38 and "found" in found.explain, found.explain
print("found")
"""
    assert script(pictures, code) == "found"


def test_it_ends_with_its_parent(pictures: Path) -> None:
    code = """
kind.decode_with_facts = lambda item, spec: time.sleep(0.2)
ahead = Ahead(rows, SPEC, modality, 10**9)
print(ahead._child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + code, str(pictures), "image"], stdout=subprocess.PIPE, text=True, check=False
    )
    deadline = time.monotonic() + 20
    while Path(f"/proc/{done.stdout.strip()}").exists():
        assert time.monotonic() < deadline, "it goes on alone"
        time.sleep(0.05)


def test_where_nothing_can_be_forked(pictures: Path) -> None:
    code = """
import threading
assert not is_possible(replace(rows, items=[np.zeros((3, 3, 3), np.uint8)]))
waiting = threading.Event()
thread = threading.Thread(target=waiting.wait)
thread.start()
assert not is_possible(rows)
waiting.set()
thread.join()
assert is_possible(rows)
cores = os.sched_getaffinity(0)
os.sched_setaffinity(0, {min(cores)})
assert not is_possible(rows)
os.sched_setaffinity(0, cores)
sys.modules["torch"] = sys
assert not is_possible(rows)
print("no")
"""
    assert script(pictures, code) == "no"


def test_a_run_takes_them_and_remembers_what_its_backbone_wants(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(8):
            file = tmp_path / "data" / label / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(corpus.encoded(corpus.picture(seed=number + 50 * (label == "dog"), size=(90, 80))))
    code = """
import json, sys
from headstart import experiment
from headstart.data.ahead import Ahead
from headstart.workflows.fit import fit
own, told = Ahead.taken, []
def spied(self, spec):
    found = own(self, spec)
    told.append([self.spec.resize, spec.resize, found is not None])
    return found
Ahead.taken = spied
settings = {"plan": "probe", "offline": True, "normalisation_check": False, "baseline": False}
fit(experiment.load(data=sys.argv[1], output_dir=sys.argv[2], name=sys.argv[3], **settings))
print(json.dumps(told))
"""
    told: list[list[Any]] = []
    for name in ("first", "second"):
        arguments = [str(tmp_path / "data"), str(tmp_path / "runs"), name]
        environment = os.environ | {"HEADSTART_CACHE": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        told += json.loads(done.stdout.splitlines()[-1])
    (guessed, wanted, kept), (known, again, kept_now) = told
    assert (guessed == wanted) == kept
    assert known == again == wanted
    assert kept_now
