"""What the command does with its process, what is remembered between runs, and imports without a search for garbage."""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from headstart.core import process, remembered
from headstart.core.remembered import Remembered

CODE = """
import atexit, os, sys
from headstart.core import process

class Loud:
    def __del__(self):
        os.write(2, b"taken apart ")

kept = Loud()
process.prepare()
atexit.register(lambda: os.write(2, b"cleaned up "))
print(*(os.environ[name] for name in {names}))
{end}
"""


NAMES = ("THP_MEM_ALLOC_ENABLE", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")


def ended(end: str, **variables: str) -> subprocess.CompletedProcess[str]:
    own = (*NAMES, "MALLOC_", "GLIBC_TUNABLES")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(own)}
    code = CODE.replace("{end}", end).replace("{names}", str(NAMES))
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | variables, check=False
    )


@pytest.mark.parametrize("code", [0, 1, 2, 130])
def test_a_process_that_is_done_cleans_up_and_is_not_taken_apart(code: int) -> None:
    done = ended(f"process.leave({code})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "1 PASSIVE 30000 4096\n", "cleaned up ")


def test_closed_streams_are_no_reason_to_take_it_apart() -> None:
    code = CODE.replace("{end}", "sys.stdout = None; process.leave(2)").replace("{names}", "()")
    done = subprocess.run([sys.executable, "-c", "import sys" + code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "cleaned up ")


def test_an_exception_ends_a_process_as_ever() -> None:
    done = ended("raise ValueError('odd')")
    assert done.returncode == 1
    assert "ValueError: odd" in done.stderr
    assert "taken apart" in done.stderr


def test_what_the_user_has_set_stays() -> None:
    own = dict(zip(NAMES, ("0", "ACTIVE", "7", "9"), strict=True))
    assert ended("process.leave(0)", **own).stdout == "0 ACTIVE 7 9\n"


LOADING = """
import gc
before = gc.get_freeze_count()
with process.importing():
    assert not gc.isenabled()
    loaded = [[] for _ in range(100_000)]
assert gc.isenabled()
print(gc.get_freeze_count() - before > 100_000)
process.leave(0)
"""


def test_what_the_command_has_loaded_is_never_searched_for_garbage() -> None:
    assert ended(LOADING).stdout.endswith("True\n")
    assert ended(LOADING.replace("process.leave(0)", "raise ValueError")).stderr.endswith("taken apart ")


HEAPS = """
import ctypes, threading
with process.importing():
    pass
together = threading.Barrier(4)
def work():
    together.wait()
    blocks = [bytearray(100_000) for _ in range(100)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(4)]
for each in threads: each.start()
for each in threads: each.join()
ctypes.CDLL(None).malloc_stats()
process.leave(0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heaps of glibc")
def test_threads_share_one_heap_unless_the_user_has_set_it_up() -> None:
    assert ended(HEAPS).stderr.count("Arena ") == 1
    assert ended(HEAPS, MALLOC_PERTURB_="0").stderr.count("Arena ") > 1


def test_in_a_process_of_others_the_collector_is_left_as_it_was() -> None:
    @process.importing()
    def load() -> bool:
        return gc.isenabled()

    frozen = gc.get_freeze_count()
    assert not load()
    assert gc.isenabled()
    with pytest.raises(ImportError), process.importing():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        load()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert gc.get_freeze_count() == frozen


def test_answers_are_remembered_and_the_oldest_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    answers = Remembered(tmp_path / "cache" / "answers.json")
    assert answers.get("a") is None
    for key in "abcad":
        answers.put(key, [key])
    assert json.loads(answers.file.read_text()) == {"c": ["c"], "a": ["a"], "d": ["d"]}
    assert Remembered(answers.file).get("a") == ["a"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_damaged_file_of_answers_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    answers = Remembered(tmp_path / "answers.json")
    answers.file.write_bytes(content)
    assert answers.get("a") is None
    answers.put("a", 1)
    assert answers.get("a") == 1


def test_answers_that_cannot_be_written_cost_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    answers = Remembered(tmp_path / "taken" / "answers.json")
    answers.put("a", 1)
    assert answers.get("a") is None
