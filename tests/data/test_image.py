"""One decoder and one geometry: held against Pillow and torchvision, bit by bit."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from headstart.core.errors import ConfigError
from headstart.data.modalities import image
from headstart.data.modalities.base import DecodeError
from headstart.data.modalities.image import ImageSpec
from headstart.data.pictures import decoding, exif, jpeg

from . import corpus

SIZES = ((48, 36), (36, 48), (300, 200), (201, 333), (64, 64), (257, 255), (20, 31), (7, 5))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def white(picture: Image.Image) -> np.ndarray:
    """The reference for alpha: over white, in floating point."""
    bands = np.asarray(picture.convert("RGBA")).astype(float)
    alpha = bands[:, :, 3:] / 255
    return bands[:, :, :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_equals_exif_transpose(form: str, orientation: int) -> None:
    data = corpus.oriented(orientation, form)
    expected = np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB"))
    value, facts = decoding.decode(data)
    assert np.array_equal(value, expected)
    assert facts.orientation == orientation
    assert (facts.height, facts.width) == expected.shape[:2]
    if orientation != 1:  # the check would notice a decoder that ignores it
        assert not np.array_equal(value, np.asarray(opened(corpus.oriented(1, form)).convert("RGB")))


def test_orientation_from_xmp_and_from_a_raw_profile() -> None:
    packet = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf tiff:Orientation="6"/></x:xmpmeta>'
    turned = corpus.with_segment(b"\xff\xe1", packet)
    assert np.array_equal(decoding.decode(turned)[0], np.asarray(ImageOps.exif_transpose(opened(turned))))
    block = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 8, 0)
    fake = Image.new("RGB", (4, 4))
    fake.info["Raw profile type exif"] = f"\nexif\n{len(block)}\n{block.hex()}"
    assert exif.orientation(fake) == 8
    fake.info["Raw profile type exif"] = "\nexif\n9\nzz"
    assert exif.orientation(fake) == 1


@pytest.mark.parametrize("seed", range(40))
def test_garbage_exif_never_raises(seed: int) -> None:
    rng = np.random.default_rng(seed)
    junk = bytes(rng.integers(0, 256, rng.integers(0, 60), dtype=np.uint8))
    assert 0 <= exif.in_block((b"II*\0" if seed % 2 else b"MM\0*") + junk) <= 8
    value, facts = decoding.decode(corpus.with_segment(b"\xff\xe1", b"Exif\0\0MM\0*" + junk))
    assert value.shape[:2] == (facts.height, facts.width)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_jpeg_equals_pillow(mode: str, channels: int, subsampling: int) -> None:
    data = corpus.encoded(corpus.picture(mode, (150, 101)), quality=80, subsampling=subsampling)
    wanted = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
    expected = np.asarray(opened(data).convert(wanted)).reshape(101, 150, channels)
    assert np.array_equal(decoding.decode(data, channels)[0], expected)


def test_large_jpegs_are_shrunk_by_the_rule_alone() -> None:
    assert [jpeg.scale_for(w, h, 256) for w, h in ((4000, 3000), (1024, 1024), (1023, 5000), (9000, 9000))] == [
        4,
        2,
        1,
        8,
    ]
    assert jpeg.scale_for(4000, 3000, None) == 1
    data = corpus.encoded(corpus.picture().resize((801, 603), Image.Resampling.BICUBIC), quality=95)
    small, facts = decoding.decode(data, 3, 64)
    assert small.shape == (151, 201, 3)  # 603 / 4 and 801 / 4, rounded up
    assert (facts.height, facts.width) == (603, 801)
    exact = image.finish(image.canvas(decoding.decode(data)[0], ImageSpec((56, 56), 64)), ImageSpec((56, 56), 64))
    assert np.abs(image.prepare(data, ImageSpec((56, 56), 64)).astype(int) - exact).mean() < 2.0


def test_modes() -> None:
    grey = np.asarray(corpus.sixteen_bit())
    value, facts = decoding.decode(corpus.encoded(corpus.sixteen_bit(), "PNG"))
    assert facts.mode.startswith("I;16")
    assert np.array_equal(value[:, :, 0], np.rint(grey / 257).astype(np.uint8))
    assert value.min() == 0
    assert value.max() == 255
    floating, _ = decoding.decode(corpus.encoded(corpus.floating(), "TIFF"))
    assert np.array_equal(floating[:, :, 1], np.rint(np.asarray(corpus.floating()) * 255).astype(np.uint8))
    for source, form in (
        (corpus.with_alpha("L"), "PNG"),
        (corpus.with_alpha("RGB"), "PNG"),
        (corpus.with_alpha("RGB"), "WEBP"),
    ):
        data = corpus.encoded(source, form, **({"lossless": True, "exact": True} if form == "WEBP" else {}))
        assert np.abs(decoding.decode(data)[0] - white(opened(data))).max() <= 1.0
    transparent = corpus.palette(True)
    assert np.abs(decoding.decode(transparent)[0] - white(opened(transparent))).max() <= 1.0
    assert (decoding.decode(transparent)[0] != decoding.decode(corpus.palette(False))[0]).any()
    cmyk = corpus.picture("CMYK")
    assert np.array_equal(decoding.decode(corpus.encoded(cmyk, "TIFF"))[0], np.asarray(cmyk.convert("RGB")))
    inverted = corpus.encoded(cmyk, "JPEG", quality=100, subsampling=0)
    assert np.abs(decoding.decode(inverted)[0].astype(int) - np.asarray(cmyk.convert("RGB"))).mean() < 4
    bilevel, facts = decoding.decode(corpus.encoded(corpus.picture("1"), "PNG"))
    assert facts.mode == "1"
    assert set(np.unique(bilevel)) == {0, 255}


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_what_moves(form: str) -> None:
    value, facts = decoding.decode(corpus.animated(form))
    assert facts.frames > 1
    if form != "GIF":  # a GIF has a palette
        assert np.array_equal(value, np.asarray(corpus.picture(seed=0)))


def test_every_way_of_giving_a_picture_is_the_same(tmp_path: Any) -> None:
    import torch

    pixels = np.asarray(corpus.picture())
    data = corpus.encoded(corpus.picture(), "PNG")
    (tmp_path / "a.png").write_bytes(data)
    items = [
        tmp_path / "a.png", str(tmp_path / "a.png"), data, bytearray(data), {"bytes": data, "path": None},
        {"bytes": None, "path": str(tmp_path / "a.png")}, corpus.picture(), pixels, pixels.astype(np.int64),
        pixels / 255.0, torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
    ]  # fmt: skip
    for item in items:
        assert np.array_equal(decoding.decode(item)[0], pixels)
    assert decoding.fingerprint(items[0]) == decoding.fingerprint(data) == decoding.fingerprint(items[4])
    assert decoding.fingerprint(pixels) == decoding.fingerprint(pixels.copy()) != decoding.fingerprint(pixels[::-1])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_opened_pillow_picture_is_its_file(form: str, orientation: int) -> None:
    data = corpus.oriented(orientation, form)
    assert np.array_equal(decoding.decode(opened(data))[0], decoding.decode(data)[0])
    with pytest.raises(DecodeError, match="truncated"):
        decoding.decode(opened(corpus.encoded(corpus.picture(size=(90, 80)), form)[:-900]))


def test_files_of_nothing_but_markers_or_chunks_are_given_up() -> None:
    endless = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 20_000 + corpus.encoded(corpus.picture())[2:]
    with pytest.raises(DecodeError, match="corrupt"):
        decoding.decode(endless)
    some = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 50 + bytes(99) + corpus.encoded(corpus.picture())[2:]
    assert jpeg.header(some).width == corpus.SIZE[0]
    png = corpus.encoded(corpus.picture(), "PNG")
    chunks = png[:33] + corpus.chunk(b"teXt", b"") * (decoding.MAX_CHUNKS + 1) + png[33:]
    with pytest.raises(DecodeError, match="corrupt"):
        decoding.decode(chunks)


def test_arrays_of_other_types_and_channels() -> None:
    assert decoding.decode(np.full((4, 5), 65535, np.uint16))[0].max() == 255
    assert decoding.decode(np.eye(4, dtype=bool))[0].tolist() == decoding.decode(np.eye(4))[0].tolist()
    assert decoding.decode(np.array([[np.nan, 1.0], [0.5, np.inf]]))[0][0, 0, 0] == 0
    bands = np.random.default_rng(0).integers(0, 256, (9, 11, 7), dtype=np.uint8)
    assert np.array_equal(decoding.decode(bands, 7)[0], bands)
    for channels in (1, 3, 4):
        assert decoding.decode(bands[:, :, :3], channels)[0].shape == (9, 11, channels)
        assert decoding.decode(bands[:, :, :2], channels)[0].shape == (9, 11, channels)
    with pytest.raises(DecodeError, match="wrong-channels"):
        decoding.decode(bands, 3)
    with pytest.raises(DecodeError, match="wrong-channels"):
        decoding.decode(corpus.encoded(corpus.picture()), 5)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest", "box", "hamming"])
@pytest.mark.parametrize("crop", ["center", "squash"])
def test_prepare_equals_torchvision(interpolation: str, crop: str) -> None:
    """Bit-equal to Resize and CenterCrop on PIL pictures, through the canvas, for shrinking and for enlarging."""
    from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

    spec = ImageSpec((48, 56), 60, crop, interpolation)
    target = 60 if crop == "center" else (60, 70)
    reference = Compose([Resize(target, InterpolationMode(interpolation)), CenterCrop((48, 56))])
    for size in SIZES:
        if max(size) > 4 * min(size):
            continue
        picture = corpus.picture(size=size, seed=size[0])
        expected = np.asarray(reference(picture))
        assert np.array_equal(image.prepare(corpus.encoded(picture, "PNG"), spec), expected), size


def test_crop_smaller_than_the_canvas_is_padded_as_torchvision_does() -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    spec = ImageSpec((64, 64), 40)
    expected = np.asarray(Compose([Resize(40), CenterCrop(64)])(corpus.picture()))
    assert np.array_equal(image.prepare(corpus.picture(), spec), expected)


def test_pad_shows_everything_on_the_mean_colour() -> None:
    spec = ImageSpec((40, 40), 40, "pad", mean=(0.2, 0.4, 0.6))
    value = image.prepare(corpus.picture(size=(80, 20)), spec)
    assert value.shape == (40, 40, 3)
    assert value[0, 0].tolist() == value[-1, -1].tolist() == [51, 102, 153]
    assert (value[15:25] != [51, 102, 153]).any(axis=(1, 2)).all()
    assert image.prepare(corpus.picture(size=(1, 900)), spec).shape == (40, 40, 3)


def test_canvas_is_bounded_small_and_kept_by_finish() -> None:
    spec = ImageSpec((32, 32), 36)
    assert image.canvas(np.zeros((60000, 1, 3), np.uint8), spec).shape == (4, 1, 3)
    assert image.canvas(np.zeros((100, 5000, 3), np.uint8), spec).shape == (36, 144, 3)
    assert image.canvas(np.zeros((28, 28, 1), np.uint8), spec).shape == (28, 28, 1)  # not enlarged
    assert image.canvas(np.zeros((300, 400, 3), np.uint8), spec).nbytes <= image.largest_canvas(spec)
    wide = np.asarray(corpus.picture(size=(2000, 100)))
    middle = wide[:, 800:1200]
    assert np.array_equal(image.prepare(wide, spec), image.prepare(middle, spec))


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_channel_counts_go_all_the_way(channels: int) -> None:
    spec = ImageSpec((24, 24), 28, mean=(0.5,) * channels, std=(0.5,) * channels, channels=channels)
    bands = np.random.default_rng(1).integers(0, 256, (50, 70, channels), dtype=np.uint8)
    value = image.prepare(bands, spec)
    assert value.shape == (24, 24, channels)
    for band in range(channels):  # no band is mixed with another, not even as if it were alpha
        alone = image.prepare(bands[:, :, band], ImageSpec((24, 24), 28, mean=(0.5,), std=(0.5,), channels=1))
        assert np.array_equal(value[:, :, band], alone[:, :, 0])
    assert image.collate([value, value]).shape == (2, *spec.input_shape)


def test_collate_is_planar_and_contiguous() -> None:
    values = [np.random.default_rng(n).integers(0, 256, (5, 6, 3), dtype=np.uint8) for n in range(3)]
    batch = image.collate(values)
    assert batch.flags.c_contiguous
    assert np.array_equal(batch, np.stack(values).transpose(0, 3, 1, 2))


def test_spec_survives_json_and_names_mistakes() -> None:
    spec = ImageSpec((48, 56), 60, "pad", "bicubic", (0.1,), (0.2,), 1)
    assert ImageSpec.from_json(spec.to_json()) == spec
    mistakes: list[dict[str, Any]] = [
        {"crop": "centre"}, {"interpolation": "cubic"}, {"resize": 0}, {"channels": 4}, {"mean": (0.5,)}
    ]  # fmt: skip
    for mistake in mistakes:
        with pytest.raises(ConfigError):
            ImageSpec(**mistake)


def test_preview_is_a_small_upright_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "PREVIEW", 24)
    suffix, content = image.preview(corpus.oriented(6))
    shown = opened(content)
    assert (suffix, shown.format) == (".jpg", "JPEG")
    assert shown.size == (18, 24)


@pytest.mark.parametrize(("bands", "seen"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_preview_shows_what_bands_it_can(bands: int, seen: list[int]) -> None:
    import torch

    levels = np.array([250, 20, 130, 90, 60], np.uint8)
    value = np.broadcast_to(levels[:bands], (30, 30, bands))
    for item in (value, torch.from_numpy(value.transpose(2, 0, 1).copy())):
        shown = np.asarray(opened(image.preview(item)[1]))
        assert np.abs(shown.astype(int) - levels[seen]).max() <= 3


def test_harmless_warnings_keep_a_jpeg_and_harmful_ones_refuse_it() -> None:
    data = corpus.encoded(corpus.picture())
    padded = data[:-2] + bytes(30) + data[-2:]  # bytes that nobody needs, before the end
    assert np.array_equal(decoding.decode(padded)[0], decoding.decode(data)[0])
    with pytest.raises(DecodeError, match="corrupt"):
        decoding.decode(corpus.damaged_middle())


@pytest.mark.real
def test_real_photographs_equal_pillow_and_torchvision(shared_data: Any) -> None:
    from torchvision.transforms import CenterCrop, Compose, Resize

    reference = Compose([Resize(256), CenterCrop(224)])
    paths = sorted((shared_data / "hymenoptera" / "val").rglob("*.jpg"))
    compared = 0
    for path in paths[::3]:
        picture = Image.open(path).convert("RGB")
        assert np.array_equal(decoding.decode(str(path))[0], np.asarray(picture))
        if jpeg.scale_for(*picture.size, 256) == 1 and max(picture.size) <= 4 * min(picture.size):
            assert np.array_equal(image.prepare(str(path), ImageSpec()), np.asarray(reference(picture)))
            compared += 1
    assert compared > 30
