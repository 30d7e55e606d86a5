"""Decoding ahead: the same rows as decoded at once, however far the other process came, and nobody left behind.

What forks runs in a process of its own, since one with torch does not fork.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import experiment
from headstart.core import machine
from headstart.data.modalities import image, text
from headstart.data.modalities.audio import AudioSpec
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.workflows import early

from . import corpus

pytestmark = pytest.mark.skipif(
    not hasattr(os, "memfd_create") or machine.usable_cores() < 2, reason="there is no process to fork here"
)

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

def build(ahead=None, cache="cache", **options):
    return Store.build(rows, SPEC, modality=modality, ahead=ahead, cache_dir=folder / cache, **options)

def same(left, right):
    assert left.errors == right.errors and left.facts == right.facts
    assert np.array_equal(left.sketches, right.sketches)
    assert np.array_equal(left.lengths, right.lengths)
    assert left.nbytes == right.nbytes
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

def descriptors():
    return len(os.listdir("/proc/self/fd"))

before = descriptors()
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
print(same(whole, store), store.where, descriptors() - before, seen, children())
"""


def test_rows_that_another_process_decoded_are_the_same(pictures: Path) -> None:
    assert script(pictures, ALL) == "38 memory 1 [40] None", "the map holds one"


def test_recordings_are_the_same_too(tmp_path: Path) -> None:
    for number in range(5):
        with wave.open(str(tmp_path / f"row-{number}.wav"), "wb") as file:
            file.setparams((2, 2, 22_050, 0, "NONE", ""))
            noise = np.random.default_rng(number).integers(-9000, 9000, (4000 + number, 2))
            file.writeframes(noise.astype("<i2").tobytes())
    (tmp_path / "row-5.wav").write_bytes(b"RIFF")
    assert script(tmp_path, ALL, "audio") == "5 memory 1 [6] None"


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
os.pwrite(ahead._values, b"half a canvas", os.fstat(ahead._values).st_size)
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
print(descriptors() - before, children())
"""
    assert script(pictures, code) == "0 None"


def test_what_outgrows_the_memory_goes_to_disk_and_is_found_there(pictures: Path) -> None:
    code = """
whole = build()
for most in (whole.nbytes // 3, 0):
    ahead = Ahead(rows, SPEC, modality, most)
    os.waitid(os.P_PID, ahead._child, os.WEXITED | os.WNOWAIT)
    assert os.fstat(ahead._values).st_size <= most
    options = {"budget_bytes": whole.nbytes // 2, "cache": f"cache-{most}"}
    store = build(ahead, **options)
    assert same(whole, store) == 38 and store.where == "disk"
    assert "headstart-values" not in Path("/proc/self/maps").read_text(), "it lies on disk, and in memory too"
    found = build(**options)
    assert same(whole, found) == 38 and "earlier run" in found.explain, found.explain
assert descriptors() - before <= 4, "two files for each of four stores"
print("found")
"""
    assert script(pictures, code) == "found"


SLOW = """
real = kind.decode_with_facts
kind.decode_with_facts = lambda item, spec: time.sleep(0.4) or real(item, spec)
ahead = Ahead(rows, SPEC, modality, 10**9)
"""


def test_it_ends_with_its_parent(pictures: Path) -> None:
    code = f"{SLOW}print(ahead._child, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT + code, str(pictures), "image"], stdout=subprocess.PIPE, text=True, check=False
    )
    status, deadline = Path(f"/proc/{done.stdout.strip()}/stat"), time.monotonic() + 8
    while status.exists() and " Z " not in status.read_text():  # whoever is process 1 may not care for it
        assert time.monotonic() < deadline, "all rows would take 16 seconds"
        time.sleep(0.05)


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_while_it_is_waited_for_is_told_and_leaves_nothing(pictures: Path, number: str) -> None:
    code = f"""
from headstart.core import interruption
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored
{SLOW}
try:
    with interruption.watched():
        both = [ahead._child, os.getpid()]  # as Ctrl-C reaches both
        signal.signal(signal.SIGALRM, lambda *_: [os.kill(each, signal.{number}) for each in both])
        time.sleep(0.15)  # it is at a row now
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            ahead.taken(SPEC)
        finally:
            ahead.stop()
except interruption.Interrupted as error:
    print(error, descriptors() - before, children())
"""
    assert script(pictures, code) == f"{number} 0 None"


def test_where_the_system_allows_none_all_is_decoded_here(pictures: Path) -> None:
    code = """
from types import SimpleNamespace
from headstart.core import process
from headstart.workflows import early
from headstart import experiment

settings = experiment.load(data=str(folder), backbone="builtin/gap-s")
collection = SimpleNamespace(modality="image", rows=rows)
def refuse(*_):
    raise OSError(11, "no more processes")
for name in ("fork", "memfd_create", "pipe"):
    kept = getattr(os, name)
    setattr(os, name, refuse)
    with early.begun(settings, collection) as working:
        assert working is None
    setattr(os, name, kept)
    assert descriptors() == before, name
for other in ({"threads": 1}, {"limits": True}):
    with early.begun(replace(settings, **other), collection) as working:
        assert working is None
os.environ["WORLD_SIZE"] = "2"
with early.begun(settings, collection) as working:
    assert working is None
del os.environ["WORLD_SIZE"]
with early.begun(settings, SimpleNamespace(modality="text", rows=rows)) as working:
    assert working is None
with early.begun(settings, collection) as working:
    assert working is not None
from headstart.data import store
store.KEPT_SECONDS = 0.0
os.environ["HEADSTART_CACHE"] = str(folder / "kept")
assert "kept for later runs" in build(cache="kept", keep=True).explain
with early.begun(settings, collection) as working:
    assert working is None, "an earlier run kept what it would decode"
print(descriptors() - before, children())
"""
    assert script(pictures, code) == "0 None"


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
from rich.progress import Progress
with Progress():
    assert threading.active_count() > 1
    assert is_possible(rows), "its thread only draws"
sys.modules["torch"] = sys
assert not is_possible(rows)
print("no")
"""
    assert script(pictures, code) == "no"


RUN = """
import json, sys
from headstart.data.ahead import Ahead
from headstart import cli
own, log = Ahead.taken, sys.argv.pop()
def spied(self, spec):
    found = own(self, spec)
    with open(log, "a") as file:
        file.write(json.dumps([self.spec.resize, spec.resize, found is not None]) + "\\n")
    return found
Ahead.taken = spied
cli.main()
"""


def at_a_terminal(arguments: list[str], cache: Path) -> None:
    """Run a command whose standard streams are a terminal."""
    master, slave = pty.openpty()
    environment = os.environ | {"HEADSTART_CACHE": str(cache), "TERM": "xterm"}
    child = subprocess.Popen(arguments, stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    told = b""
    try:
        while piece := os.read(master, 4096):
            told += piece
    except OSError:  # how Linux tells that nobody writes there any more
        pass
    os.close(master)
    assert child.wait() in (0, 2), told.decode(errors="replace")


def test_a_run_takes_them_and_remembers_what_its_backbone_wants(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        for number in range(8):
            file = tmp_path / "data" / label / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(corpus.encoded(corpus.picture(seed=number + 50 * (label == "dog"), size=(90, 80))))
    log = tmp_path / "log"
    fit = ["fit", str(tmp_path / "data"), "--plan", "probe", "--output-dir", str(tmp_path / "runs")]
    fit += ["--offline", "normalisation_check=false", "baseline=false"]
    headstart = [sys.executable, "-c", RUN]
    at_a_terminal([*headstart, "audit", str(tmp_path / "data"), str(log)], tmp_path / "cache")
    for name in ("first", "second"):
        at_a_terminal([*headstart, *fit, "--name", name, str(log)], tmp_path / "cache")
    (guessed, wanted, kept), (known, again, kept_now) = map(json.loads, log.read_text().splitlines())
    assert (guessed == wanted) == kept
    assert known == again == wanted
    assert kept_now


def test_a_damaged_memory_of_specs_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    settings = experiment.load(data="photos", backbone="timm/resnet18")
    sound = replace(settings, data=replace(settings.data, channels=1))
    early.remember(settings, ImageSpec((64, 64), 72))
    early.remember(sound, AudioSpec(8_000))
    assert early._remembered(settings, "image") == ImageSpec((64, 64), 72)
    assert early._remembered(settings, "audio") is None
    assert early._remembered(sound, "audio") == AudioSpec(8_000)
    early.remember(settings, ImageSpec((64, 64), 72, mean=(0.5,) * 3))
    assert early._remembered(settings, "image").mean == ImageSpec().mean, "other canvases only"
    for content in ('{"size": 3}', "[1]", '"image"'):
        stored = json.loads((tmp_path / "specs.json").read_text())
        (tmp_path / "specs.json").write_text(json.dumps(dict.fromkeys(stored, json.loads(content))))
        assert early._remembered(settings, "image") is None
        early.remember(settings, ImageSpec((64, 64), 72))
        assert early._remembered(settings, "image") == ImageSpec((64, 64), 72)


IMAGES: list[tuple[ImageSpec, dict[str, Any], bool]] = [
    (ImageSpec(), {"resize": 300}, True),
    (ImageSpec(), {"crop": "pad"}, True),
    (ImageSpec(), {"interpolation": "bicubic"}, True),
    (ImageSpec(), {"channels": 1, "mean": (0.5,), "std": (0.5,)}, True),
    (ImageSpec(crop="squash"), {"size": (224, 112)}, True),
    (ImageSpec(), {"size": (200, 200)}, False),
    (ImageSpec(), {"mean": (0.5,) * 3, "std": (0.1,) * 3}, False),
]


@pytest.mark.parametrize(("spec", "change", "differs"), IMAGES)
def test_pictures_are_kept_by_all_that_makes_them(spec: ImageSpec, change: dict[str, Any], differs: bool) -> None:
    other = replace(spec, **change)
    item = corpus.encoded(corpus.picture(size=(500, 700)))
    left, right = (image.canvas(image.decode(item, each), each) for each in (spec, other))
    assert (left.shape != right.shape or not np.array_equal(left, right)) == differs
    assert (spec.kept_by != other.kept_by) == differs


def test_sounds_are_kept_by_their_rate() -> None:
    usual = AudioSpec()
    assert usual.kept_by != replace(usual, rate=8_000).kept_by
    assert usual.kept_by == replace(usual, seconds=3.0, form="int16").kept_by


@pytest.mark.parametrize(("change", "differs"), [({"max_length": 9}, True), ({"texts": 2}, True), ({"mask": 3}, False)])
def test_texts_are_kept_by_their_tokenizer_and_length(change: dict[str, Any], differs: bool) -> None:
    rows = Rows(["a few words", "and some others"], np.zeros(2, np.int64), ("a", "b"))
    spec = text.plain(rows, 3)
    assert (spec.kept_by != replace(spec, **change).kept_by) == differs
    other = Rows(["something else"], np.zeros(1, np.int64), ("a",))
    assert text.plain(other, 3).kept_by != spec.kept_by
