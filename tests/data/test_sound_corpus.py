"""Sixty kinds of hostile recordings: each gets its own outcome, nothing hangs, nothing of the user's changes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from headstart.data.modalities.audio import AudioSpec
from headstart.data.modalities.base import DecodeError
from headstart.data.sounds import decoding
from headstart.data.splits import Rows
from headstart.data.store import Store

from . import sound_corpus as corpus

CODES = {"not-sound", "unknown-format", "corrupt", "no-samples", "rate", "channels", "not-finite"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return corpus.build(tmp_path_factory.mktemp("corpus"))


def test_there_are_forty_kinds_and_more() -> None:
    assert len(corpus.CASES) >= 60
    assert len({case.kind for case in corpus.CASES}) == len({case.file for case in corpus.CASES}) == len(corpus.CASES)
    assert {case.expected for case in corpus.CASES} >= CODES


@pytest.mark.parametrize("case", corpus.CASES, ids=lambda case: case.kind)
def test_each_kind_has_its_outcome(case: corpus.Case, built: dict[str, Path]) -> None:
    path = str(built[case.kind])
    if case.expected != "ok":
        with pytest.raises(DecodeError) as caught:
            decoding.decode(path, 16_000, 60.0)
        assert caught.value.reason.code == case.expected
        assert path in str(caught.value) or repr(path) in str(caught.value)
        return
    samples, facts = decoding.decode(path, 16_000, 60.0)
    assert samples.dtype == np.int16
    assert 1 <= len(samples) <= 60 * 16_000
    assert samples.min() >= -32767
    assert facts.sha256 == hashlib.sha256(built[case.kind].read_bytes()).hexdigest()
    seen = {"silent": facts.silent, "cut": facts.cut, "clipped": facts.clipped > 0.01}
    seen["long"] = facts.seconds > facts.kept + 0.01
    assert {name for name, true in seen.items() if true} == set(case.seen)


def test_a_store_names_every_one_and_changes_none(built: dict[str, Path]) -> None:
    regular = [path for path in built.values() if path.is_file()]
    before = {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in regular}
    items = [str(built[case.kind]) for case in corpus.CASES]
    rows = Rows(items, np.zeros(len(items), np.int64), tuple(case.kind for case in corpus.CASES))
    store = Store.build(rows, AudioSpec(), modality="audio")
    got = {case.kind: store.errors[row].code if row in store.errors else "ok" for row, case in enumerate(corpus.CASES)}
    assert got == {case.kind: case.expected for case in corpus.CASES}
    after = {path: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in regular}
    assert after == before


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "W64", "CAF"])
def test_mutated_files_are_read_or_refused_by_code(kind: str) -> None:
    """Random bytes, cuts and insertions: samples, or a reason; nothing else is ever raised."""
    rng = np.random.default_rng(0)
    whole = corpus.encoded(corpus.tone(0.2), kind=kind)
    refused = set()
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data) if rng.random() < 0.5 else 60, rng.integers(1, 6)):
            data[place] = rng.integers(256)
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        try:
            samples, _ = decoding.decode(bytes(data), 16_000, 60.0)
            assert samples.min() >= -32767
        except DecodeError as error:
            refused.add(error.reason.code)
    assert refused
    assert refused <= CODES


def test_files_that_are_too_large_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "large.wav"
    path.write_bytes(corpus.wav(b"", claims=2**30))
    with path.open("r+b") as file:
        file.truncate(2**30)  # sparse
    with pytest.raises(DecodeError, match="file-too-large"):
        decoding.decode(path, 16_000, 60.0)
