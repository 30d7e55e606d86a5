"""The log-mel network: its frames are what numpy makes of the samples, and nothing around a sound changes them."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.data.modalities import audio
from headstart.data.modalities.audio import PAD
from headstart.deploy import graph
from headstart.models import backbone as backbones
from headstart.models import inference, logmel
from headstart.models.backbone import Backbone
from headstart.models.logmel import LogMel, LogMelNet

from ..deploy.parity import differences, dimensions, lively

SMALL = {"widths": (8, 12, 16), "strides": ((1, 1), (2, 2), (2, 4)), "stem": 6, "dim": 20, "bins": 32}
SECONDS = 0.5


def small() -> LogMelNet:
    torch.manual_seed(0)
    network = LogMelNet(**SMALL)
    for part in network.modules():  # as if it had been trained
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.2, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def heard() -> Backbone:
    return backbones.load(small(), seconds=SECONDS).eval()


def tones(count: int, seconds: float = SECONDS) -> torch.Tensor:
    rng = np.random.default_rng(3)
    time = np.arange(round(seconds * 16_000)) / 16_000
    hertz, loud = rng.uniform(150, 5000, count), rng.uniform(0.05, 0.5, count)
    made = loud[:, None] * np.sin(2 * np.pi * hertz[:, None] * time) + 0.01 * rng.standard_normal((count, len(time)))
    return torch.from_numpy(made.astype(np.float32))


def by_hand(samples: np.ndarray, bins: int) -> np.ndarray:
    """Frames, Hann window, power, mel triangles, bels below the loudest frame: in numpy, float64."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(samples) - 399, 160)
    power = np.array([np.abs(np.fft.rfft(samples[at : at + 400] * window, 512)) ** 2 for at in starts])
    mels = 1127 * np.log(1 + np.arange(257) * 16_000 / 512 / 700)
    edges = np.linspace(1127 * np.log(1 + 50 / 700), 1127 * np.log(1 + 8000 / 700), bins + 2)
    filters = np.zeros((257, bins))
    for g in range(bins):
        left, centre, right = edges[g : g + 3]
        filters[:, g] = np.clip(np.minimum((mels - left) / (centre - left), (right - mels) / (right - centre)), 0, None)
    levels = np.log10(power @ filters + 1e-9)
    loudest = np.log10((power.sum(axis=1) + 1e-9).max())
    return np.maximum(levels - loudest, -6) / 2 + 1.5


@pytest.mark.parametrize("bins", [32, 64])
def test_frames_are_those_that_numpy_makes(bins: int) -> None:
    samples = tones(3)
    found = LogMel(bins)(samples)
    wanted = np.stack([by_hand(row.double().numpy(), bins) for row in samples])
    assert found.shape == (3, 1, 48, bins)
    assert np.allclose(found[:, 0].numpy(), wanted, atol=2e-3)


def test_neither_gain_nor_silence_around_a_sound_changes_what_is_seen_of_it() -> None:
    frontend, samples = LogMel(64), tones(2)
    wanted = frontend(samples)
    assert torch.allclose(frontend(0.1 * samples), wanted, atol=0.02)
    padded = torch.nn.functional.pad(samples, (1600, 3200))
    assert torch.allclose(frontend(padded)[:, :, 10 : 10 + wanted.shape[2]], wanted, atol=1e-4)


def test_silence_and_what_is_shorter_than_a_frame_are_finite() -> None:
    network = small()
    for samples in (torch.zeros(2, 8000), torch.rand(2, 100)):
        assert network(samples).isfinite().all()


def test_a_row_is_answered_alike_whatever_else_is_in_the_batch(heard: Backbone) -> None:
    rows = [(32_000 * row).to(torch.int16).numpy() for row in tones(5)]
    rows[1], rows[3] = rows[1][:3000], np.tile(rows[3], 3)[:17_000]  # one shorter than the window, one of three windows
    together = heard.features(torch.from_numpy(audio.collate(rows)))
    alone = torch.cat([heard.features(torch.from_numpy(audio.collate([row]))) for row in rows])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5)
    longer = np.concatenate([audio.collate(rows), np.full((5, 8000), PAD, np.int16)], axis=1)
    assert torch.allclose(heard.features(torch.from_numpy(longer)), together, rtol=1e-4, atol=1e-5)


def test_its_blocks_are_found_and_resume_exactly(heard: Backbone) -> None:
    assert heard.blocks == tuple(f"blocks.{index}" for index in range(4))
    assert heard.feature_dim == SMALL["dim"]
    heard.verify(torch.from_numpy(audio.collate([(32_000 * row).to(torch.int16).numpy() for row in tones(3)])))
    assert len(heard.blocks) == 4


def test_frames_come_every_eighty_milliseconds_by_default() -> None:
    with torch.no_grad():
        found = LogMelNet().eval()(torch.zeros(1, 16_000))
    assert found.shape == (1, 13, 384)
    assert sum(parameter.numel() for parameter in LogMelNet().parameters()) < 2.5e6


def test_a_copy_in_bf16_sees_nearly_the_same(heard: Backbone) -> None:
    inputs = torch.from_numpy(audio.collate([(32_000 * row).to(torch.int16).numpy() for row in tones(6)]))
    fast, told = inference.Copies(heard, inputs).of(torch.bfloat16)
    assert fast.compute == torch.bfloat16, told.reason
    assert told.folded == 1 + 3 * 3 + 1  # the stem, three of each block, the last


def test_drawing_weights_is_repeatable_and_keeps_no_tables() -> None:
    assert not [name for name in small().state_dict() if "frontend" in name]
    torch.manual_seed(1)
    first = LogMelNet(**SMALL).state_dict()
    torch.manual_seed(1)
    again = LogMelNet(**SMALL).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert copy.deepcopy(small()).spec.rate == logmel.RATE


@pytest.mark.slow
def test_its_export_answers_as_torch_does(heard: Backbone, tmp_path: Path) -> None:
    values = [(32_000 * row).to(torch.int16).numpy() for row in tones(12, 1.2)]
    values = [value[: 2000 + 1400 * row] for row, value in enumerate(values)]
    given = [audio.collate([audio.finish(each, heard.spec) for each in values[at : at + 4]]) for at in (0, 4, 8)]
    model = lively(heard, given, ("a", "b", "c"))
    graph.write(model, tmp_path / "m.onnx")
    assert dimensions(tmp_path / "m.onnx") == ["rows", "length"]
    changed, largest = differences(model, tmp_path / "m.onnx", given)
    assert changed == 0
    assert largest <= 1e-4
