"""The peer: a head on a frozen encoder of sounds, trained for 25 ordinary epochs.

    python -m benchmarks.peers.sound_probe --data folder/ --encoder benchmarks.encoders.yamnet --answer out.json

``--data`` holds train.csv and val.csv with the columns path and label. Every epoch reads, resamples and embeds every
recording, as a Dataset with a frozen network does that nobody has given a cache; batches of 32, two workers that stay,
the frozen part without gradients, Adam at 1e-3 for the head, the best epoch by validation accuracy.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import soundfile  # noqa: E402
import soxr  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

RATE = 16_000
BATCH, WORKERS = 32, 2


class Recordings(torch.utils.data.Dataset):
    """Samples (T,) of one length, float32: longer ones are cut in the middle, shorter ones filled with silence."""

    def __init__(self, table: Path, classes: list[str], seconds: float, scale: float) -> None:
        self.rows, self.classes = read(table), classes
        self.length, self.scale = round(seconds * RATE), scale

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.rows[index]
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = torch.from_numpy(soxr.resample(samples.mean(1), rate, RATE))
        spare = max(0, len(mono) - self.length) // 2
        mono = mono[spare : spare + self.length]
        whole = nn.functional.pad(mono, (0, self.length - len(mono)))
        return whole * self.scale, self.classes.index(label)


def read(table: Path) -> list[tuple[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return [(row["path"], row["label"]) for row in csv.DictReader(file)]


def train(chosen: argparse.Namespace) -> list[dict[str, float]]:
    """The loop; validation accuracy and seconds since the start, for every epoch."""
    torch.manual_seed(chosen.seed)
    place, _, name = chosen.encoder.rpartition(".")
    encoder = getattr(importlib.import_module(place), name)().eval().requires_grad_(False)
    classes = sorted({label for _, label in read(chosen.data / "train.csv")})
    scale = 32768.0 if encoder.spec.form == "int16" else 1.0
    loaders: dict[str, Any] = {
        split: torch.utils.data.DataLoader(
            Recordings(chosen.data / f"{split}.csv", classes, chosen.seconds, scale),
            batch_size=BATCH,
            shuffle=split == "train",
            num_workers=WORKERS,
            persistent_workers=True,
        )
        for split in ("train", "val")
    }
    with torch.no_grad():
        width = encoder(torch.zeros(1, round(chosen.seconds * RATE))).shape[-1]
    head = nn.Linear(width, len(classes))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    history = []
    for epoch in range(chosen.epochs):
        right = 0
        for split, batches in loaders.items():
            for samples, labels in batches:
                with torch.no_grad():
                    features = encoder(samples).mean(1)
                logits = head(features)
                if split == "train":
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(logits, labels).backward()
                    optimizer.step()
                else:
                    right += int((logits.argmax(1) == labels).sum())
        accuracy = right / len(loaders["val"].dataset)
        history.append({"accuracy": accuracy, "seconds": round(time.perf_counter() - STARTED, 2)})
        print(epoch + 1, history[-1], flush=True)
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True, help="dotted name of what returns the network")
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1.0, help="of every recording")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    history = train(chosen)
    best = max(history, key=lambda epoch: epoch["accuracy"])
    chosen.answer.write_text(json.dumps({"accuracy": {"val": best["accuracy"]}, "epochs": history}))


if __name__ == "__main__":
    main()
