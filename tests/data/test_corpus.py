"""Seventy kinds of hostile files: each gets its own outcome, nothing hangs, nothing of the user's changes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.data import files
from headstart.data.modalities.base import DecodeError
from headstart.data.modalities.image import ImageSpec
from headstart.data.pictures import decoding
from headstart.data.splits import Rows
from headstart.data.store import Store

from . import corpus

SPEC = ImageSpec(size=(32, 32), resize=36)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return corpus.build(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def _obstacles(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test cannot make with files alone: root may read everything, and no file grows at the right instant."""
    real_open, real_stat, asked = os.open, os.fstat, {"growing": 0}
    watched: set[int] = set()

    def opened(path: str, flags: int, *rest: int) -> int:
        if str(path).endswith("secret.jpg"):
            raise PermissionError(13, "Permission denied")
        handle = real_open(path, flags, *rest)
        watched.add(handle) if str(path).endswith("growing.jpg") else watched.discard(handle)
        return handle

    def stated(handle: int) -> os.stat_result:
        found = real_stat(handle)
        if handle not in watched:
            return found
        asked["growing"] += 1
        return os.stat_result((*found[:6], found.st_size + asked["growing"], *found[7:]))

    monkeypatch.setattr(files.os, "open", opened)
    monkeypatch.setattr(files.os, "fstat", stated)


def test_there_are_seventy_kinds() -> None:
    assert len(corpus.CASES) >= 70
    assert len({case.kind for case in corpus.CASES}) == len({case.file for case in corpus.CASES}) == len(corpus.CASES)


@pytest.mark.parametrize("case", corpus.CASES, ids=lambda case: case.kind)
def test_each_kind_has_its_outcome(case: corpus.Case, built: dict[str, Path]) -> None:
    path = str(built[case.kind])
    if case.expected == "ok":
        value, facts = decoding.decode(path, 3, SPEC.resize)
        assert value.dtype == np.uint8
        assert value.shape == (facts.height, facts.width, 3)
        assert facts.sha256 == hashlib.sha256(built[case.kind].read_bytes()).hexdigest()
    else:
        with pytest.raises(DecodeError) as caught:
            decoding.decode(path, 3, SPEC.resize)
        assert caught.value.reason.code == case.expected
        assert path in str(caught.value) or repr(path) in str(caught.value)


def test_a_store_names_every_one_and_changes_none(built: dict[str, Path]) -> None:
    regular = [path for path in built.values() if path.is_file()]
    before = {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in regular}
    items = [str(built[case.kind]) for case in corpus.CASES]
    rows = Rows(items, np.zeros(len(items), np.int64), tuple(case.kind for case in corpus.CASES))
    store = Store.build(rows, SPEC)
    got = {case.kind: store.errors[row].code if row in store.errors else "ok" for row, case in enumerate(corpus.CASES)}
    assert got == {case.kind: case.expected for case in corpus.CASES}
    assert len(store.usable) + len(store.errors) == len(corpus.CASES)
    after = {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in regular}
    assert after == before


def test_the_file_system_refuses_by_name(tmp_path: Path) -> None:
    for name, code in (("x" * 300, "name-too-long"), ("a\0b", "bad-name"), ("no/such/folder.jpg", "vanished")):
        with pytest.raises(DecodeError) as caught:
            decoding.decode(str(tmp_path / name))
        assert caught.value.reason.code == code
    (tmp_path / "large").write_bytes(b"12345")
    with pytest.raises(DecodeError, match="file-too-large"):
        files.read_bytes(tmp_path / "large", limit=4)


@pytest.mark.parametrize("item", ["text", 7, None, [["a"]], np.zeros(3), np.array(["a"]), {"bytes": None}])
def test_what_is_no_picture_at_all_is_refused_by_code(item: object) -> None:
    with pytest.raises(DecodeError):
        decoding.decode(item)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_mutated_files_are_read_or_refused_by_code(form: str) -> None:
    """Random bytes, cuts and insertions: a picture of the announced size, or a reason; nothing else is ever raised."""
    rng = np.random.default_rng(0)
    whole = corpus.encoded(corpus.picture("P" if form == "GIF" else "RGB"), form)
    codes = set()
    for _ in range(120):
        data = bytearray(whole)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else 60, rng.integers(1, 6)):
            data[place] = rng.integers(256)
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        try:
            value, facts = decoding.decode(bytes(data))
            assert value.shape == (facts.height, facts.width, 3)
        except DecodeError as error:
            codes.add(error.reason.code)
    assert codes
    assert codes <= {
        "corrupt", "truncated", "not-an-image", "unsupported-format", "unsupported-mode", "too-many-pixels",
        "empty-file",
    }  # fmt: skip


CHILD = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import corpus
from headstart.data.pictures import decoding
bombs = {"144": corpus.png_bomb(12000, 12000), "900": corpus.png_bomb(30000, 30000), **corpus.headers_of_bombs()}
decoding.decode(corpus.encoded(corpus.picture())); decoding.decode(corpus.encoded(corpus.picture(), "WEBP"))
def peak():
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return grown / 2**20 if sys.platform == "darwin" else grown / 2**10
before = peak()
for name, bomb in bombs.items():
    try:
        decoding.decode(bomb)
        print(name, "was decoded")
    except decoding.DecodeError as error:
        print(name, error.reason.code)
print("grown", round(peak() - before))
"""


def test_bombs_cost_no_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD, str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    *told, grown = done.stdout.splitlines()
    assert len(told) == 8
    assert all(line.endswith(" too-many-pixels") for line in told), told
    assert int(grown.split()[1]) < 50, grown
    assert done.stderr == ""


def test_the_cap_is_read_from_the_header_not_from_the_pixels() -> None:
    """The planted fault: with a larger cap the same bytes are refused only when the pixels are missing."""
    bomb = corpus.headers_of_bombs()["ppm"]
    original = decoding.MAX_PIXELS
    try:
        decoding.MAX_PIXELS = 10**7
        small = b"P6 4000 2000 255\n" + bytes(10)
        with pytest.raises(DecodeError, match="truncated"):
            decoding.decode(small)
        with pytest.raises(DecodeError, match="too-many-pixels"):
            decoding.decode(bomb)
    finally:
        decoding.MAX_PIXELS = original


def test_the_cap_leaves_room_for_large_cameras_and_says_what_to_do() -> None:
    decoding._demand_size(9000, 6000)
    decoding._demand_size(10000, 10000)
    with pytest.raises(DecodeError, match=r"12000x12000 is 144 million pixels, the limit is 100 million: shrink it"):
        decoding.decode(corpus.png_bomb(12000, 12000))
