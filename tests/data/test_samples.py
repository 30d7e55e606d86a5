"""The sets that every installation has: the same rows every time, divided, and not written twice."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from headstart.core.manifest import sha256
from headstart.data import sources
from headstart.data.samples import audio, base, image, text
from headstart.data.settings import DataSettings


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PER_CLASS", 3)
    monkeypatch.setattr(audio, "PER_CLASS", 3)
    for sample in (audio, image, text):
        monkeypatch.setattr(sample, "TEST", 4)


def test_rows_are_divided_alike_and_only_once() -> None:
    labels = list("aab") * 100
    found = base.divided(labels, 50)
    assert found == base.divided(labels, 50)
    rows = [row for split in found.values() for row in split]
    assert len(rows) == len(set(rows))
    counts = {split: [[labels[row] for row in rows].count(name) for name in "ab"] for split, rows in found.items()}
    assert counts == {"train": [20, 20], "val": [20, 20], "test": [50, 50]}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(("sample", "classes"), [(image, 10), (audio, 8), (text, 6)], ids=["image", "audio", "text"])
def test_a_sample_is_what_fit_reads(sample: object, classes: int, tmp_path: Path) -> None:
    first, second = sample.write(tmp_path / "a"), sample.write(tmp_path / "b")
    files = sorted(path.relative_to(first) for path in first.rglob("*.*"))
    assert [sha256(first / file) for file in files] == [sha256(second / file) for file in files]
    splits = sources.read(str(first), DataSettings(), seed=0)
    assert f"builtin/{splits.modality}" == sample.BACKBONE
    assert {split: len(rows) for split, rows in splits.present().items()} == {
        "train": 3 * classes,
        "val": 3 * classes,
        "test": 4 * classes,
    }
    times = {file: (first / file).stat().st_mtime_ns for file in files if file.suffix != ".tsv"}
    sample.write(first)
    assert times == {file: (first / file).stat().st_mtime_ns for file in times}, "what is there is not written again"


def test_a_docstring_tells_one_topic() -> None:
    rows = text.docstrings()
    assert rows == text.docstrings()
    assert len({words for words, _ in rows}) == len(rows)
    assert {topic for _, topic in rows} == set(text.TOPICS)
    assert all(text.SHORTEST <= len(words) <= text.LONGEST for words, _ in rows)
    topics = dict(rows)
    assert topics["Return the low median of numeric data."] == "numbers"


@pytest.mark.usefixtures("few")
def test_a_library_without_sources_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.core.errors import DataError

    monkeypatch.setattr(text, "_library", lambda: tmp_path)
    with pytest.raises(DataError, match="hold too few docstrings"):
        text.write(tmp_path / "texts")


@pytest.mark.usefixtures("few")
def test_a_line_break_in_a_text_stays_in_its_row(tmp_path: Path) -> None:
    with (text.write(tmp_path) / "train.tsv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened, delimiter="\t"))
    assert rows[0] == ["text", "label"]
    assert {len(row) for row in rows} == {2}


def test_a_glide_is_heard_in_time_and_not_on_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """``ai`` and ``ia`` have the same resonances; which comes first is all that tells them."""
    monkeypatch.setattr(audio, "RATIO", (30.0, 40.0))
    rng = np.random.default_rng
    for glide, rises in (("ai", True), ("ia", False)):
        sounds = [audio.recording(glide, rng(seed)) for seed in range(12)]
        assert all(sound.dtype == np.float32 and 0.05 < np.abs(sound).max() <= 0.9 for sound in sounds)
        heights = []
        for sound in sounds:
            halves = [np.abs(np.fft.rfft(part, 8192)) ** 2 for part in np.array_split(sound, 2)]
            hertz = np.fft.rfftfreq(8192, 1 / audio.RATE)
            band = (hertz > 1600) & (hertz < 3200)
            heights.append(halves[1][band].sum() / halves[1].sum() > halves[0][band].sum() / halves[0].sum())
        assert np.mean(heights) > 0.75 if rises else np.mean(heights) < 0.25
