"""What the audit finds in recordings: copies at another gain, rate or format, and what is silent, clipped or cut.

Each check with a planted fault that it must find, and a set without one where it must find nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from headstart.data import audit, sources
from headstart.data.audit import Audit
from headstart.data.checks import duplicates
from headstart.data.checks.near import audio as near
from headstart.data.modalities.audio import AudioSpec
from headstart.data.settings import DataSettings, SplitSettings
from headstart.data.splits import Rows, Splits
from headstart.data.store import Store

from .grammar import disagrees

RATE = 16_000
SPEC = AudioSpec(RATE)


def word(seed: int, seconds: float = 0.8, rate: int = RATE) -> np.ndarray:
    """(T,) float32: a few gliding tones with noise, another for every seed, as words are."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    sound = 0.003 * rng.standard_normal(len(t))
    for _ in range(5):
        start, end = rng.uniform(150, 3500, 2)
        middle, width = rng.uniform(0.1, seconds - 0.1), rng.uniform(0.05, 0.2)
        phase = 2 * np.pi * np.cumsum(np.linspace(start, end, len(t))) / rate
        sound += 0.12 * np.sin(phase) * np.exp(-(((t - middle) / width) ** 2))
    return sound.astype(np.float32)


def store_of(items: list[Any]) -> Store:
    return Store.build(rows_of(items), SPEC, modality="audio")


def rows_of(items: list[Any]) -> Rows:
    return Rows(items, np.arange(len(items)) % 2, tuple(f"r{index}.wav" for index in range(len(items))))


def audited(items: list[Any], test: list[Any] | None = None) -> Audit:
    parts = {"train": rows_of(items), "val": rows_of(test or clean(30)[-6:])}
    splits = Splits(classes=("a", "b"), modality="audio", source="here", **parts)
    stores = {name: Store.build(rows, SPEC, modality="audio") for name, rows in parts.items()}
    return audit.audit(splits, stores, max_unreadable=0.9)


def kinds(found: Audit) -> set[str]:
    return {finding.kind for finding in found.findings}


def clean(count: int = 12) -> list[Any]:
    return [(word(seed), RATE) for seed in range(count)]


def test_sounds_without_a_fault_have_no_finding() -> None:
    assert kinds(audited(clean())) == set()


COPIES: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "6 dB softer": lambda sound, _: (0.5 * sound, RATE),
    "at 22 kHz": lambda sound, _: (soxr.resample(sound, RATE, 22_050), 22_050),
    "at 44 kHz, louder": lambda sound, _: (1.4 * soxr.resample(sound, RATE, 44_100), 44_100),
    "in stereo": lambda sound, _: (np.stack([sound, sound], 1), RATE),
    "with 8 bits fewer": lambda sound, _: ((sound * 127).round().astype(np.int8), RATE),
    "as OGG": lambda sound, path: written(path.with_suffix(".ogg"), sound),
    "as MP3": lambda sound, path: written(path.with_suffix(".mp3"), sound),
    "with a little noise": lambda sound, _: (
        sound + 0.001 * np.random.default_rng(9).standard_normal(len(sound)).astype(np.float32),
        RATE,
    ),
}


def written(path: Path, sound: np.ndarray) -> Path:
    soundfile.write(path, sound, RATE)
    return path


@pytest.mark.parametrize("how", COPIES)
def test_copies_are_found_and_others_are_not(how: str, tmp_path: Path) -> None:
    sounds = [word(seed) for seed in range(40)]
    items = [(sound, RATE) for sound in sounds]
    copies = [COPIES[how](sound, tmp_path / f"{index}.wav") for index, sound in enumerate(sounds[:5])]
    found = duplicates.duplicates(store_of([*items, *copies]))
    pairs = {(a, b) for a, b, _ in found.near}
    assert {(index, 40 + index) for index in range(5)} <= pairs
    assert len(pairs) == 5, "sounds that are no copies were taken for some"
    assert all(found.groups[index] == found.groups[40 + index] for index in range(5))


def test_exact_copies_are_exact() -> None:
    items = clean()
    found = duplicates.duplicates(store_of([*items, items[3]]))
    assert found.exact == ((3, 12),)


def test_silences_are_no_copies_of_each_other() -> None:
    silences = [(np.zeros(RATE + index, np.float32), RATE) for index in range(4)]
    found = duplicates.duplicates(store_of([*clean(), *silences]))
    assert not found.near


def test_sounds_of_one_machine_are_no_copies_of_each_other() -> None:
    """Alike as a whole, since they hardly move; a copy of one of them is still found."""
    rng = np.random.default_rng(0)
    t = np.arange(2 * RATE) / RATE
    hums = [
        (0.2 * np.sin(2 * np.pi * 200 * t + rng.uniform(0, 6)) + 0.01 * rng.standard_normal(len(t))).astype(np.float32)
        for _ in range(30)
    ]
    found = duplicates.duplicates(store_of([*((hum, RATE) for hum in hums), (0.5 * hums[7], RATE)]))
    assert {(a, b) for a, b, _ in found.near} == {(7, 30)}


def test_copies_are_found_across_the_blocks_that_are_compared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    items: list[Any] = [(word(seed), RATE) for seed in range(30, 41)]
    store = store_of([*items, (0.5 * items[2][0], RATE), (0.5 * items[9][0], RATE)])
    whole = near.near(store.sketches)[0].tolist()
    assert whole == [[2, 11], [9, 12]]
    monkeypatch.setattr(near, "BLOCK", 4)
    assert near.near(store.sketches)[0].tolist() == whole


def test_a_copy_in_the_test_split_is_a_leak() -> None:
    items = clean()
    found = audited(items, [(0.6 * items[2][0], RATE), *((word(seed), RATE) for seed in range(50, 58))])
    assert "near-duplicates-across" in kinds(found)
    assert "near-duplicates-across" not in kinds(audited(items, [(word(seed), RATE) for seed in range(50, 58)]))


def cut_short(path: Path) -> Path:
    soundfile.write(path, word(77), RATE)
    path.write_bytes(path.read_bytes()[:9_000])
    return path


def lying(path: Path) -> Path:
    """A WAV that claims more samples than it holds."""
    soundfile.write(path, word(78), RATE)
    data = bytearray(path.read_bytes())
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", 10**8)
    path.write_bytes(data)
    return path


FAULTS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "silence": ("silent", lambda path: (np.zeros(RATE, np.float32), RATE)),
    "clipping": ("clipped", lambda path: ((word(70) * 40).clip(-1, 1), RATE)),
    "half a file": ("cut-short", cut_short),
    "a lying header": ("cut-short", lying),
    "a long one": ("long", lambda path: (np.tile(word(71), 80), RATE)),
    "a click": ("short", lambda path: (word(72)[:800], RATE)),
    "another rate": ("mixed-rates", lambda path: (soxr.resample(word(73), RATE, 8_000), 8_000)),
    "a length unlike the others": ("odd-length", lambda path: (np.tile(word(74), 12), RATE)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found_in_its_row_alone(fault: str, tmp_path: Path) -> None:
    kind, make = FAULTS[fault]
    found = audited([*clean(), make(tmp_path / "x.wav")])
    (finding,) = [each for each in found.findings if each.kind == kind]
    assert finding.rows == (12,)
    assert "r12.wav" in finding.message
    assert not disagrees(finding.message)
    assert len(found.usable["train"]) == 13, "what can be heard is used"


@pytest.mark.parametrize(
    ("kind", "other"),
    [("rate", lambda sound: (soxr.resample(sound, RATE, 8_000), 8_000)),
     ("channels", lambda sound: (np.stack([sound, sound * 0.5], 1), RATE)),
     ("length", lambda sound: (np.concatenate([sound, sound]), RATE))],
)  # fmt: skip
def test_what_gives_a_class_away_is_found(kind: str, other: Callable[[np.ndarray], Any]) -> None:
    items = [other(word(seed)) if seed % 2 else (word(seed), RATE) for seed in range(40)]
    told = [finding.message for finding in audited(items).findings if finding.kind == "shortcut"]
    assert len(told) == 1
    assert kind in told[0] or "Hz" in told[0] or "about" in told[0]


@pytest.mark.real
def test_takes_of_one_word_are_no_copies(shared_data: Path) -> None:
    """1,500 spoken digits: every take by one speaker is like the others, and none is a copy."""
    files = sorted((shared_data / "fsdd" / "recordings").glob("*.wav"))
    planted = [files[index] for index in range(0, len(files), 100)]
    copies = [(0.7 * soundfile.read(file, dtype="float32")[0], 8_000) for file in planted]
    found = duplicates.duplicates(store_of([*files, *copies]))
    pairs = {(a, b) for a, b, _ in found.near}
    wanted = {(files.index(file), len(files) + index) for index, file in enumerate(planted)}
    assert len(wanted & pairs) == len(wanted)
    assert len(pairs - wanted) <= 1  # of a million pairs


@pytest.mark.real
def test_speakers_stay_on_one_side(shared_data: Path) -> None:
    folder = shared_data / "fsdd" / "recordings"
    table = [(str(path), path.name.split("_")[0]) for path in sorted(folder.glob("*.wav"))]
    settings = DataSettings(split=SplitSettings(val=0.2, test=0.2, group_by=r"^\d_([a-z]+)_"))
    collection = sources.collect(table, settings, seed=0)
    splits = sources.arranged(collection, sources.divide(collection, settings, seed=0))
    speakers = {name: {Path(item).name.split("_")[1] for item in rows.items} for name, rows in splits.present().items()}
    assert collection.modality == "audio"
    assert set(speakers) == {"train", "val", "test"}
    assert sum(map(len, speakers.values())) == len(set().union(*speakers.values())) == 6
    settings = DataSettings(split=SplitSettings(val=0.2, test=0.2))
    collection = sources.collect(table, settings, seed=0)  # planted: without groups
    mixed = sources.arranged(collection, sources.divide(collection, settings, seed=0))
    assert len({Path(item).name.split("_")[1] for item in mixed.val.items}) == 6
