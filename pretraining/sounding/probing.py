"""How well a frozen backbone tells apart what it was never trained on: words in other voices, and sounds by recipe.

Logistic regression on 20 clips a class, its strength chosen on 5 others; judged on the rest, for words in voices that
the classifier did not hear either. All clips are heard through rooms, microphones and noise, the same each time.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import nn

from headstart.data.modalities.audio import PAD, AudioSpec
from headstart.engine.baselines.audio import statistics
from headstart.models.intakes.audio import Intake
from headstart.stages.solver import solve_path
from pretraining.sounding import degrade
from pretraining.sounding.pool import Pool

RATE = 16_000
SHOTS, CHOICE = 20, 5
SEEDS = (0, 1, 2)
SECONDS = {"words": 1.3, "sounds": 2.0}
STRENGTH = degrade.Strength(speed=0.1, mixed=0.0, quietest=8.0, silent=1.0)


def scores(backbone: nn.Module, sounds: Pool) -> dict[str, float]:
    """Accuracy of a probe on held-out words, and on held-out recipes; of one seed."""
    return {name: _probed(_features(backbone, sounds, name), sounds, name, SEEDS[:1]) for name in SECONDS}


def compared(backbone: nn.Module, untrained: nn.Module, sounds: Pool) -> dict[str, dict[str, float]]:
    """The same of three: what was learnt, random weights, and statistics of log-mel bands."""
    return {
        name: {
            "probe": _probed(_features(backbone, sounds, name), sounds, name),
            "random weights": _probed(_features(untrained, sounds, name), sounds, name),
            "log-mel statistics": _probed(_statistics(sounds, name), sounds, name),
        }
        for name in SECONDS
    }


def _rows(sounds: Pool, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips of the kind, their classes, and what groups them: voices, or nothing in common."""
    kind = sounds.word if name == "words" else sounds.recipe
    rows = np.flatnonzero(kind >= 0)
    labels = np.unique(kind[rows], return_inverse=True)[1]
    return rows, labels, sounds.voice[rows] if name == "words" else np.arange(len(rows))


def _split(labels: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices to fit on, to choose on, and to judge on; groups that are judged are in neither of the others."""
    rng = np.random.default_rng(seed)
    known = rng.permutation(np.unique(groups))
    judged = np.isin(groups, known[len(known) // 2 :])
    fit, choose = [], []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero((labels == label) & ~judged))
        fit += list(rows[:SHOTS])
        choose += list(rows[SHOTS : SHOTS + CHOICE])
    return np.array(fit), np.array(choose), np.flatnonzero(judged)


def _probed(features: np.ndarray, sounds: Pool, name: str, seeds: tuple[int, ...] = SEEDS) -> float:
    _, labels, groups = _rows(sounds, name)
    found = []
    for seed in seeds:
        fit, choose, judge = _split(labels, groups, seed)
        path = solve_path(features[fit], labels[fit], features[choose], labels[choose], int(labels.max()) + 1)
        logits = features[judge] @ path.weight.numpy().T + path.bias.numpy()
        found.append(float((logits.argmax(axis=1) == labels[judge]).mean()))
    return round(float(np.mean(found)), 4)


@lru_cache(maxsize=4)
def _heard(sounds: Pool, name: str) -> tuple[np.ndarray, ...]:
    """The clips of a kind as somebody recorded them, int16."""
    rows = _rows(sounds, name)[0]
    window, made = round(RATE * SECONDS[name]), []
    with torch.random.fork_rng():
        torch.manual_seed(7)
        for at in range(0, len(rows), 64):
            wave, start, end = degrade.batch([sounds.clip(row) for row in rows[at : at + 64]], window, STRENGTH)
            samples = (wave * 32767).round().numpy().astype(np.int16)
            made += [each[a:b] for each, a, b in zip(samples, start.tolist(), end.tolist(), strict=True)]
    return tuple(made)


@torch.no_grad()
def _features(backbone: nn.Module, sounds: Pool, name: str) -> np.ndarray:
    """(N, D), pooled as the package does."""
    intake, heard = Intake(AudioSpec(RATE, SECONDS[name])), _heard(sounds, name)
    was = backbone.training
    backbone.eval()
    made = []
    for at in range(0, len(heard), 64):
        clips = heard[at : at + 64]
        batch = np.full((len(clips), intake.spec.window), PAD, np.int16)
        for place, clip in enumerate(clips):
            batch[place, : len(clip)] = clip
        with torch.autocast("cpu", torch.bfloat16):
            made.append(intake(backbone, torch.from_numpy(batch), {}).float())
    backbone.train(was)
    return torch.cat(made).numpy()


def _statistics(sounds: Pool, name: str) -> np.ndarray:
    return np.stack([statistics(clip, RATE) for clip in _heard(sounds, name)])
