"""Pretrain ``builtin/audio``: a log-mel network on synthesised speech and on sounds made by recipe.

    python -m pretraining.audio --minutes 45               # again after a kill: it goes on
    python -m pretraining.audio --minutes 45 --pack        # evaluate the averages and write src/headstart/builtin/audio

What is learnt: which of many words is said, by whatever voice, which phonemes are in it and at its ends; which language
is spoken; which recipe made a sound. Development sets are words, voices and recipes that are in no training pool.

Shapes: B rows, T samples, F frames, D features.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.models.logmel import LogMelNet
from pretraining import runtime
from pretraining.sounding import degrade, pool, probing

WINDOW = 16_880  # samples: 104 log-mel frames
NETWORK: dict[str, Any] = {"stem": 32, "widths": [32, 64, 128, 224], "dim": 384}
WEIGHTS = {
    "word": 1.0,
    "phonemes": 10.0,
    "first": 0.5,
    "vowel": 0.5,
    "last": 0.5,
    "tongue": 0.3,
    "voice": 0.05,
    "recipe": 1.0,
}
SHARES = {"word": 0.6, "tongue": 0.08, "recipe": 0.32}  # of a batch
PLACE = Path("src/headstart/builtin/audio")


class Pretraining(nn.Module):
    """The backbone with a linear head for each question; ``forward`` gives the losses."""

    def __init__(self, backbone: LogMelNet, sounds: pool.Pool) -> None:
        super().__init__()
        self.backbone = backbone
        sizes = {name: int(getattr(sounds, name).max()) + 1 for name in ("word", "tongue", "voice", "recipe")}
        sizes["phonemes"] = sounds.spoken.shape[1]
        self.parts = {name: torch.from_numpy(of_word) for name, of_word in pool.parts(sounds.words).items()}
        sizes |= {name: int(of_word.max()) + 1 for name, of_word in self.parts.items()}
        self.heads = nn.ModuleDict({name: nn.Linear(backbone.feature_dim, size) for name, size in sizes.items()})
        self.spoken = torch.from_numpy(sounds.spoken).float()

    def forward(self, wave: Tensor, start: Tensor, end: Tensor, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            frames = self.frames(wave)
        features = pooled(frames.float(), start, end, wave.shape[1])
        losses = {}
        for name, head in self.heads.items():
            label = labels.get(name, labels["word"])
            known = label != pool.NONE
            if not known.any():
                continue
            logits = head(functional.dropout(features[known], 0.1))
            if name == "phonemes":
                losses[name] = functional.binary_cross_entropy_with_logits(logits, self.spoken[label[known]])
            else:
                asked = self.parts[name][label[known]] if name in self.parts else label[known]
                losses[name] = functional.cross_entropy(logits, asked, label_smoothing=0.1)
        return losses

    def frames(self, wave: Tensor) -> Tensor:
        """(B, F, D), with strips of the log-mel frames hidden (SpecAugment, Park et al. 2019)."""
        seen = hidden(self.backbone.frontend(wave)).contiguous(memory_format=torch.channels_last)
        return self.backbone.blocks(self.backbone.stem(seen)).squeeze(3).transpose(1, 2)


def hidden(maps: Tensor) -> Tensor:
    """(B, 1, M, G) with up to 16 frames and up to 10 pitches of half of the rows at the mean."""
    rows, _, frames, bins = maps.shape
    mean = maps.mean(dim=(2, 3), keepdim=True)
    for axis, size, most in ((2, frames, 16), (3, bins, 10)):
        first = torch.rand(rows) * size
        last = first + most * torch.rand(rows) * (torch.rand(rows) < 0.5)
        place = torch.arange(size)
        strip = (place >= first[:, None]) & (place < last[:, None])
        maps = torch.where(strip[:, None, :, None] if axis == 2 else strip[:, None, None], mean, maps)
    return maps


def pooled(frames: Tensor, start: Tensor, end: Tensor, window: int) -> Tensor:
    """(B, D): the mean of the frames (B, F, D) where the clip is, counted as ``headstart`` does for a window."""
    count = frames.shape[1]
    place = torch.arange(count)
    first = (start * count // window).clamp_max(count - 1)[:, None]
    last = (end * count // window - 1)[:, None].clamp_min(first)
    real = ((place >= first) & (place <= last)).float()[..., None]
    return (frames * real).sum(dim=1) / real.sum(dim=1)


class Batches:
    """Rows of a pool by chance: each kind its share, the same for the same seed and step."""

    def __init__(self, sounds: pool.Pool, size: int, seed: int, strength: degrade.Strength) -> None:
        self.sounds, self.seed, self.strength = sounds, seed, strength
        kinds = {"word": sounds.word >= 0, "tongue": sounds.tongue >= 1, "recipe": sounds.recipe >= 0}
        self.rows = {name: np.flatnonzero(chosen) for name, chosen in kinds.items()}
        self.count = {name: round(size * share) for name, share in SHARES.items()}

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        rng = np.random.default_rng([self.seed, step])
        chosen = rng.permutation(np.concatenate([rng.choice(self.rows[name], n) for name, n in self.count.items()]))
        wave, start, end = degrade.batch([self.sounds.clip(row) for row in chosen], WINDOW, self.strength)
        names = ("word", "tongue", "voice", "recipe")
        return wave, start, end, {name: torch.from_numpy(getattr(self.sounds, name)[chosen]) for name in names}


def train(given: argparse.Namespace) -> None:
    """Train within the budget, then tell the development scores; ``--pack`` writes what ships."""
    amounts = dataclasses.replace(pool.Amounts(), **json.loads(given.amounts))
    sounds = pool.training(given.pool / "training", amounts, given.seed)
    held_out = pool.development(given.pool / "development", amounts, given.seed)
    torch.manual_seed(given.seed)
    network = {**NETWORK, **json.loads(given.network)}
    module = Pretraining(LogMelNet(**network), sounds).to(memory_format=torch.channels_last)
    settings = runtime.Settings(
        given.seed, given.steps, given.minutes, lr=given.lr, weight_decay=0.05, ema=given.ema, log_every=50
    )
    training = runtime.Training(module, given.folder, settings)
    weights = {**WEIGHTS, **json.loads(given.weights)}
    strength = dataclasses.replace(degrade.Strength(), **json.loads(given.strength))
    batches = Batches(sounds, given.batch, given.seed, strength)
    for step in training:
        losses = module(*batches(step))
        training.update(sum((weights[name] * loss for name, loss in losses.items()), torch.zeros(())), **losses)
        if training.step % given.every == 0:
            with training.ema.applied(module):
                scores = probing.scores(module.backbone, held_out)
            training.log(**scores)
            print(training.step, scores, flush=True)
    state = training.averages("backbone.")
    module.backbone.load_state_dict(state)
    scores = probing.compared(module.backbone, LogMelNet(**network), held_out)
    training.log(**scores)
    print(json.dumps(scores))
    if given.pack:
        settled = {"weights": weights, "amounts": dataclasses.asdict(amounts), "strength": dataclasses.asdict(strength)}
        settled |= {"batch": given.batch, "lr": given.lr, "minutes": given.minutes}
        runtime.pack(PLACE, state, card(training, network, settled, scores))


def card(
    training: runtime.Training, network: dict[str, Any], settled: dict[str, Any], scores: dict[str, Any]
) -> dict[str, Any]:
    """What the card says."""
    count = settled["amounts"]["words"]
    data = (
        f"synthesised speech (espeak-ng and flite): {count} English words in {len(pool.voices())} voices, other "
        "languages; sounds made by recipe; no digits, no recordings"
    )
    return {
        "architecture": {"library": "builtin", "name": "LogMelNet", "settings": network},
        "input": {"rate": 16_000},
        "data": data,
        "script": "pretraining/audio.py",
        "arguments": ["--seed", str(training.settings.seed), "--minutes", str(settled["minutes"])],
        "settings": settled,
        "date": time.strftime("%Y-%m-%d"),
        "scores": scores,
        **training.facts(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    runtime.add_arguments(parser, "runs/audio")
    parser.add_argument(
        "--pool", type=Path, default=Path("runs/audio-pool"), help="rendered sounds, made where missing"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--every", type=int, default=1000, help="steps between looks at the development sets")
    parser.add_argument("--amounts", default="{}", help="JSON: how many sounds of what")
    parser.add_argument("--network", default="{}", help="JSON: settings of LogMelNet")
    parser.add_argument("--weights", default="{}", help="JSON: weights of the losses")
    parser.add_argument("--strength", default="{}", help="JSON: what is done to sounds")
    parser.add_argument("--pack", action="store_true")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
