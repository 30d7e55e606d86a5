"""The store: decoded once, the same pixels from memory and from disk, found again, bounded, never in the way."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.errors import ArtefactError, DataError
from headstart.data import canvases
from headstart.data.loaders import batches
from headstart.data.modalities import image
from headstart.data.modalities.audio import AudioSpec
from headstart.data.modalities.image import ImageSpec
from headstart.data.modalities.text import TextSpec
from headstart.data.splits import LazyItems, Rows
from headstart.data.store import Store, is_kept

from .. import words
from . import corpus

SPEC = ImageSpec((32, 32), 36)


def odd_pictures() -> dict[str, bytes]:
    """48 pictures that decoders disagree about."""
    odd = {f"{form} {n}": corpus.oriented(n, form) for form in ("JPEG", "PNG", "WEBP") for n in range(1, 9)}
    odd |= {f"tiff {n}": corpus.oriented(n, "TIFF") for n in (3, 6, 8)}
    for mode in ("CMYK", "L"):
        odd[f"{mode} jpeg"] = corpus.encoded(corpus.picture(mode))
    for mode, form in (("CMYK", "TIFF"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("L", "PNG"), ("L", "BMP")):
        odd[f"{mode} {form}"] = corpus.encoded(corpus.picture(mode), form)
    odd["P tRNS"], odd["I;16"] = corpus.palette(True), corpus.encoded(corpus.sixteen_bit(), "PNG")
    odd["I;16 tiff"], odd["F"] = (corpus.encoded(i, "TIFF") for i in (corpus.sixteen_bit(), corpus.floating()))
    for mode in ("L", "RGB"):
        odd[f"{mode} alpha"] = corpus.encoded(corpus.with_alpha(mode), "PNG")
        odd[f"{mode} alpha webp"] = corpus.encoded(corpus.with_alpha(mode), "WEBP")
    odd |= {f"moving {form}": corpus.animated(form) for form in ("GIF", "WEBP", "PNG")}
    odd["progressive"] = corpus.encoded(corpus.picture(), progressive=True)
    odd["shrunk while decoded"] = corpus.encoded(corpus.picture(size=(801, 603)))
    odd["long"] = corpus.encoded(corpus.picture(size=(600, 9)), "PNG")
    return odd


def rows_of(items: list[Any]) -> Rows:
    return Rows(items, np.arange(len(items)) % 2, tuple(f"row {n}" for n in range(len(items))))


def test_every_path_prepares_the_same_bytes(tmp_path: Path) -> None:
    """prepare(path), prepare(bytes), the store in memory, on disk, found again, and batches: 48 of 48 bit-equal."""
    odd = odd_pictures()
    assert len(odd) >= 48
    paths = []
    for number, data in enumerate(odd.values()):
        paths.append(str(tmp_path / f"{number}.bin"))
        Path(paths[-1]).write_bytes(data)
    stores = [
        Store.build(rows_of(paths), SPEC),
        Store.build(rows_of(list(odd.values())), SPEC, budget_bytes=0, cache_dir=tmp_path / "cache"),
        Store.build(rows_of(paths), SPEC, budget_bytes=0, cache_dir=tmp_path / "cache"),
    ]
    assert [store.where for store in stores] == ["memory", "disk", "disk"]
    order = np.arange(len(odd))[::-1]
    batched = {
        int(row): batch.inputs[place]
        for batch in batches(stores[0], np.zeros(len(odd)), SPEC, batch_size=7, order=order)
        for place, row in enumerate(batch.rows)
    }
    for number, (kind, data) in enumerate(odd.items()):
        expected = image.prepare(paths[number], SPEC)
        assert np.array_equal(image.prepare(data, SPEC), expected), kind
        assert np.array_equal(image.prepare({"bytes": data, "path": "x"}, SPEC), expected), kind
        for store in stores:
            assert np.array_equal(image.finish(store[number], SPEC), expected), kind
        assert np.array_equal(batched[number].transpose(1, 2, 0), expected), kind


def test_in_memory_then_over_the_budget_then_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(9)] + [b"junk"]
    plain = Store.build(rows_of(items), SPEC)
    assert plain.where == "memory"
    assert "memory" in plain.explain
    half = plain.nbytes // 2
    monkeypatch.setattr("headstart.data.store._estimate", lambda *_: 0.0)  # misjudged: it moves while it is written
    moved = Store.build(rows_of(items), SPEC, budget_bytes=half, cache_dir=tmp_path)
    assert moved.where == "disk"
    calls: list[int] = []
    monkeypatch.setattr("headstart.data.store._estimate", lambda *_: 1e9)
    monkeypatch.setattr(image, "decode_with_facts", lambda *_: calls.append(1))
    seen: list[tuple[int, int]] = []
    again = Store.build(
        rows_of(items), SPEC, budget_bytes=half, cache_dir=tmp_path, progress=lambda *done: seen.append(done)
    )
    assert not calls  # nothing was decoded a second time
    assert seen[-1] == (10, 10)
    assert "earlier run" in again.explain
    for store in (moved, again):
        assert store.nbytes == plain.nbytes
        assert store.errors == plain.errors == {9: plain.errors[9]}
        assert list(store.facts) == list(plain.facts)
        assert np.array_equal(store.sketches, plain.sketches)
        assert all(np.array_equal(store[row], plain[row]) for row in range(9))
    assert [folder.name.startswith("unfinished") for folder in (tmp_path / "canvases").iterdir()] == [False]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Any], Path], tuple[Store, int]]:
    """Builds a store whose decoding takes long, and counts what was decoded."""
    calls: list[int] = []
    original = image.decode_with_facts

    def counted(item: Any, spec: Any) -> Any:
        calls.append(1)
        return original(item, spec)

    monkeypatch.setattr(image, "decode_with_facts", counted)
    monkeypatch.setattr("headstart.data.store.KEPT_SECONDS", 0.0)

    def build(items: list[Any], cache: Path, keep: bool = True) -> tuple[Store, int]:
        calls.clear()
        return Store.build(rows_of(items), SPEC, cache_dir=cache, keep=keep), len(calls)

    return build


def test_what_took_long_to_decode_is_found_by_a_later_run(tmp_path: Path, slow: Callable[..., Any]) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(9)] + [b"junk"]
    first, decoded = slow(items, tmp_path)
    assert (first.where, decoded) == ("memory", 10)
    assert "kept for later runs" in first.explain
    again, decoded = slow(items, tmp_path)
    assert (again.where, decoded) == ("disk", 0)
    assert "earlier run" in again.explain
    assert again.errors == first.errors
    assert list(again.facts) == list(first.facts)
    assert np.array_equal(again.sketches, first.sketches)
    assert all(np.array_equal(again[row], first[row]) for row in range(9))
    items[3] = corpus.encoded(corpus.picture(seed=77), "PNG")  # under the same name
    other, decoded = slow(items, tmp_path)
    assert (other.where, decoded) == ("memory", 10)
    assert np.array_equal(image.finish(other[3], SPEC), image.prepare(items[3], SPEC))
    assert slow(items, tmp_path)[1] == 0
    for folder in (tmp_path / "canvases").iterdir():
        (folder / "values.bin").write_bytes(b"")
    assert slow(items, tmp_path)[1] == 10, "a file that is not whole is none"


def test_what_was_decoded_quickly_or_for_once_is_not_kept(tmp_path: Path, slow: Callable[..., Any]) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    assert "kept" not in slow(items, tmp_path, keep=False)[0].explain
    assert not list(tmp_path.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headstart.data.store.KEPT_SECONDS", 60.0)
        slow(items, tmp_path)
    assert not list(tmp_path.iterdir())
    slow([b"junk"] * 3, tmp_path)
    assert not (tmp_path / "canvases").exists(), "there is nothing to keep"


def test_a_hint_that_leads_nowhere_is_forgotten(
    tmp_path: Path, slow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    slow(items, tmp_path)
    assert is_kept(rows_of(items), SPEC, "image", tmp_path)
    monkeypatch.setattr("headstart.data.store.KEPT_SECONDS", 60.0)
    slow(items[::-1], tmp_path)  # of the same names; decoded in no time
    assert not is_kept(rows_of(items), SPEC, "image", tmp_path)
    monkeypatch.setattr("headstart.data.store.KEPT_SECONDS", 0.0)
    slow(items, tmp_path)
    shutil.rmtree(tmp_path / "canvases")
    assert not is_kept(rows_of(items), SPEC, "image", tmp_path)


def test_a_nearly_full_disk_is_left_alone(
    tmp_path: Path, slow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    monkeypatch.setattr(canvases, "KEPT_ROOM", 10**12)
    assert slow(items, tmp_path)[0].where == "memory"
    assert not (tmp_path / "canvases").exists()


def test_another_process_that_keeps_the_same_costs_no_run(
    tmp_path: Path, slow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    original = canvases.make_room

    def taken_away(newest: Path) -> None:
        shutil.rmtree(newest)
        original(newest)

    monkeypatch.setattr(canvases, "make_room", taken_away)
    store, _ = slow(items, tmp_path)
    assert np.array_equal(image.finish(store[0], SPEC), image.prepare(items[0], SPEC))


def test_a_cache_without_room_costs_no_run(
    tmp_path: Path, slow: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, data: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    original = canvases.Writer.to_disk

    def to_disk(self: canvases.Writer) -> None:
        original(self)
        assert self._file is not None
        self._file.close()
        self._file = Full()  # type: ignore[assignment]

    monkeypatch.setattr(canvases.Writer, "to_disk", to_disk)
    store, _ = slow(items, tmp_path)
    assert store.where == "memory"
    assert slow(items, tmp_path)[1] == 3
    assert not is_kept(rows_of(items), SPEC, "image", tmp_path)
    assert not list((tmp_path / "canvases").iterdir())


@pytest.mark.parametrize("change", ["content", "order", "spec"])
def test_another_content_order_or_spec_is_another_file(tmp_path: Path, change: str) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    Store.build(rows_of(items), SPEC, budget_bytes=0, cache_dir=tmp_path)
    other = {"content": [*items[:2], corpus.encoded(corpus.picture(seed=9), "PNG")], "order": items[::-1]}
    spec = ImageSpec((32, 32), 35) if change == "spec" else SPEC
    store = Store.build(rows_of(other.get(change, items)), spec, budget_bytes=0, cache_dir=tmp_path)
    assert "earlier run" not in store.explain
    assert np.array_equal(image.finish(store[0], spec), image.prepare(other.get(change, items)[0], spec))


WORDS = words.tokenizer()
SPECS = {
    "rate": (AudioSpec(8_000), AudioSpec(16_000)),
    "max_length": (TextSpec(WORDS), TextSpec(WORDS, 4)),
    "tokenizer": (TextSpec(WORDS), TextSpec(WORDS.replace("[CLS]", "[BEG]"))),
    "pairs": (TextSpec(WORDS), TextSpec(WORDS, texts=2)),
    "window": (AudioSpec(8_000), AudioSpec(8_000, seconds=2.0)),
}


@pytest.mark.parametrize("change", SPECS)
def test_what_a_sound_or_a_text_is_made_for_decides_its_file(tmp_path: Path, change: str) -> None:
    """Not the window: a recording is kept whole."""
    before, after = SPECS[change]
    sound = np.random.default_rng(0).standard_normal(800).astype(np.float32) / 9
    items: list[Any] = ["it was a very good film"] if before.modality == "text" else [(sound, 8_000)]
    Store.build(rows_of(items), before, budget_bytes=0, cache_dir=tmp_path, modality=before.modality)
    store = Store.build(rows_of(items), after, budget_bytes=0, cache_dir=tmp_path, modality=after.modality)
    assert ("earlier run" in store.explain) == (change == "window")
    if change == "pairs":
        assert 0 in store.errors
    else:
        assert np.array_equal(store[0], store.kind.decode(items[0], after))


def test_damage_of_the_cache_is_found(tmp_path: Path) -> None:
    items: list[Any] = [corpus.encoded(corpus.picture(seed=n), "PNG") for n in range(3)]
    Store.build(rows_of(items), SPEC, budget_bytes=0, cache_dir=tmp_path)
    (folder,) = (tmp_path / "canvases").iterdir()
    with (folder / "values.bin").open("r+b") as file:
        file.seek(5)
        value = file.read(1)[0]
        file.seek(5)
        file.write(bytes([value ^ 1]))
    store = Store.build(rows_of(items), SPEC, budget_bytes=0, cache_dir=tmp_path)
    with pytest.raises(ArtefactError, match="damaged"):
        store[0]
    assert np.array_equal(image.finish(store[1], SPEC), image.prepare(items[1], SPEC))
    (folder / "values.bin").write_bytes(b"short")  # not whole: made anew instead of being believed
    store = Store.build(rows_of(items), SPEC, budget_bytes=0, cache_dir=tmp_path)
    assert np.array_equal(image.finish(store[0], SPEC), image.prepare(items[0], SPEC))


def test_the_cache_is_bounded_and_clears_what_was_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "canvases"
    stale, young = folder / "unfinished-old", folder / "unfinished-young"
    stale.mkdir(parents=True)
    young.mkdir()
    os.utime(stale, (time.time() - 3 * canvases.DAY_SECONDS,) * 2)
    kept: list[str] = []
    for number in range(4):
        items = [corpus.encoded(corpus.picture(seed=number), "PNG")]
        Store.build(rows_of(items), SPEC, budget_bytes=0, cache_dir=tmp_path)
        (new,) = {path.name for path in folder.iterdir()} - {*kept, young.name}
        kept.append(new)
        os.utime(folder / new, (1000 + number,) * 2)
        if number == 2:
            size = sum(file.stat().st_size for file in (folder / new).iterdir())
            monkeypatch.setattr(canvases, "CACHE_BYTES", 2 * size + size // 2)
    assert {path.name for path in folder.iterdir()} == {*kept[2:], young.name}


def test_a_full_disk_leaves_nothing_behind_and_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_self: canvases.Writer, _index: object, _key: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(canvases.Index, "save", lambda *_: full(*_, None))
    with pytest.raises(DataError, match="No space left") as caught:
        Store.build(rows_of([corpus.encoded(corpus.picture())]), SPEC, budget_bytes=0, cache_dir=tmp_path)
    assert "HEADSTART_CACHE" in str(caught.value)
    assert list((tmp_path / "canvases").iterdir()) == []


def test_an_interrupted_build_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    items: list[Any] = [corpus.encoded(corpus.picture(seed=n)) for n in range(5)]
    with pytest.raises(KeyboardInterrupt):
        Store.build(rows_of(items), SPEC, budget_bytes=0, cache_dir=tmp_path, progress=stop)
    assert list((tmp_path / "canvases").iterdir()) == []


def test_default_cache_folder_is_the_users_not_the_datas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", "/somewhere/else")
    assert canvases.default_folder() == Path("/somewhere/else")
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert canvases.default_folder() == Path.home() / ".cache" / "headstart"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert canvases.default_folder() == Path("/elsewhere/headstart")
    assert canvases.free_bytes() > 0


def test_segments_of_memory_hold_canvases_of_any_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(canvases, "SEGMENT_BYTES", 1000)
    rng = np.random.default_rng(0)
    items: list[Any] = [rng.integers(0, 256, (*rng.integers(1, 36, 2), 3), dtype=np.uint8) for _ in range(40)]
    for budget in (10**9, 20_000):
        store = Store.build(rows_of(items), SPEC, budget_bytes=budget, cache_dir=tmp_path)
        assert all(np.array_equal(store[row], image.canvas(item, SPEC)) for row, item in enumerate(items))


def test_a_view_is_the_same_rows_without_a_copy() -> None:
    items: list[Any] = [corpus.picture(seed=n) for n in range(4)] + ["/not/there.png"]
    store = Store.build(rows_of(items), SPEC)
    view = store.take([4, 2])
    assert view.names == ("row 4", "row 2")
    assert np.shares_memory(view[1], store[2])
    assert set(view.errors) == {0}
    assert view.facts[1] == store.facts[2]
    assert view.usable.tolist() == [1]
    assert view.digests == ["", store.digests[2]]


def test_unreadable_rows_raise_with_their_name_and_canvases_are_read_only() -> None:
    store = Store.build(rows_of([b"", corpus.picture()]), SPEC)
    with pytest.raises(DataError, match=r"row 0: .*\[empty-file\]"):
        store[0]
    with pytest.raises(ValueError, match="read-only"):
        store[1][0, 0, 0] = 1


def test_a_dataset_that_fails_for_one_row_loses_that_row_alone(tmp_path: Path) -> None:
    def fetch(row: int) -> Any:
        if row == 1:
            raise RuntimeError("row 1 is broken")
        return corpus.picture(seed=row)

    rows = Rows(LazyItems(fetch, range(3)), np.zeros(3, np.int64), ("a", "b", "c"))
    for budget in (10**9, 0):
        store = Store.build(rows, SPEC, budget_bytes=budget, cache_dir=tmp_path)
        assert {row: reason.code for row, reason in store.errors.items()} == {1: "source-error"}
        assert "row 1 is broken" in store.errors[1].message


def test_an_empty_and_an_all_unreadable_store(tmp_path: Path) -> None:
    assert len(Store.build(rows_of([]), SPEC)) == 0
    store = Store.build(rows_of([b"", b"x"]), SPEC, budget_bytes=0, cache_dir=tmp_path)
    assert store.nbytes == 0
    assert len(store.errors) == 2


def test_small_pictures_are_kept_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits of 28x28 under a 256 px spec: a sample of rows shows that they fit, nothing goes to disk."""
    digits: list[Any] = list(np.random.default_rng(0).integers(0, 256, (100, 28, 28), dtype=np.uint8))
    store = Store.build(rows_of(digits), ImageSpec(), budget_bytes=10**6, cache_dir=tmp_path)
    assert store.where == "memory"
    assert store.nbytes == 100 * 28 * 28 * 3


def test_progress_counts_every_row() -> None:
    seen: list[tuple[int, int]] = []
    record: Callable[[int, int], None] = lambda done, total: seen.append((done, total))  # noqa: E731
    Store.build(rows_of([corpus.picture(), b"", corpus.picture()]), SPEC, progress=record)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_many_rows_go_to_disk_and_are_read_row_by_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However much memory is free: what lies there belongs to the user's other work."""
    monkeypatch.setattr(canvases, "MEMORY_BYTES", 10_000)
    items: list[Any] = [np.asarray(corpus.picture(seed=n)) for n in range(12)]
    store = Store.build(rows_of(items), SPEC, cache_dir=tmp_path)
    assert store.where == "disk"
    assert store.nbytes > canvases.MEMORY_BYTES
    (folder,) = (tmp_path / "canvases").iterdir()
    (folder / "values.bin").unlink()  # another run needed the room: this one reads on
    assert all(np.array_equal(store[row], image.canvas(item, SPEC)) for row, item in enumerate(items))
    assert not np.shares_memory(store[0], store[0]), "nothing is kept"
    wanted = image.collate([image.finish(image.canvas(item, SPEC), SPEC) for item in items])
    seen = batches(store, np.zeros(12), SPEC, batch_size=1, order=np.arange(12).repeat(8), prefetch=4)
    assert all(np.array_equal(batch.inputs, wanted[batch.rows]) for batch in seen), "threads take turns at the file"
