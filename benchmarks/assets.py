"""The real data and weights that the benchmarks run on: where they are here, where they come from, and their hashes.

One setting finds them: the environment variable HEADSTART_SHARED_DATA, or else ``shared/data`` beside the checkout.
``python -m benchmarks.assets`` checks every file against the hashes below; ``--print`` shows those of the files here.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
MOBILENET = "torchvision/mobilenet_v2"


@dataclass(frozen=True)
class Asset:
    """A file, or a folder of files, that a benchmark reads."""

    path: str  # inside the folder of the data
    origin: str
    sha256: str  # of the file; of a folder: see ``digest``
    what: str


ASSETS = {
    asset.path: asset
    for asset in (
        Asset(
            "weights/mobilenet_v2_imagenet.safetensors",
            "github.com/google-coral/test_data (Apache-2.0), read into torchvision's names",
            "b78fcb1e247e326fd1b10bbec801bb598bac6d165514af48e95e235502e46de3",
            "MobileNetV2 on ImageNet-1k; its values have 8-bit precision",
        ),
        Asset(
            "hymenoptera",
            "the set of PyTorch's transfer learning tutorial (hymenoptera_data.zip); github.com/zhangtao7750/syn",
            "ed5c29da93340c525d6a6a72edd8db3c804cf9899d946fc2ac967955741824c0",
            "244 + 153 photographs of ants and bees; no licence stated",
        ),
        Asset(
            "pacs/photo",
            "github.com/MachineLearning2020/Homework3-PACS",
            "20e21564d2d19da0ba2037c315ef57607d300c6cd6c15e29f33662454162b9c4",
            "700 photographs of 7 classes, 227 px; no licence stated",
        ),
        Asset(
            "pacs/cartoon",
            "github.com/MachineLearning2020/Homework3-PACS",
            "5fcf029ccc9a88e5879278ae66478df97027a16feeff2d0cb8960a43b7f944d8",
            "490 cartoons of the same 7 classes, 227 px; no licence stated",
        ),
        Asset(
            "digits/mnist.npz",
            "github.com/rasbt/mnist-pngs (MIT), as arrays x_train, y_train, x_test, y_test",
            "06af5dfe73b70e3bc1c36439982b18a8d76803db9b544f6fdf838a37fbb01b64",
            "60,000 + 10,000 digits, 28 px",
        ),
        Asset(
            "digits/usps.npz",
            "github.com/hyzhang98/AnchorGAE-torch, as arrays x_train, y_train, x_test, y_test",
            "0fabcd6001e98963763cdec82a19356cfe9858cdf94e0be09a4de002e4716a69",
            "USPS: 7,291 + 2,007 digits, 16 px; no licence stated",
        ),
        Asset(
            "weights/yamnet_audioset.safetensors",
            "github.com/google-coral/coralmicro (Apache-2.0), read into torch",
            "aeebd00b4e55ba98a45d52884d9cedc05d0a9166b80e91c7228303b99bdbd89b",
            "YAMNet on AudioSet, 521 classes, 1024 features",
        ),
        Asset(
            "weights/yamnet_torch.py",
            "written for these weights",
            "482de1e989a88601d7146ec2584af28b9accf9d3f66587e4d8a841f8c602c973",
            "YAMNet as a torch module",
        ),
        Asset(
            "weights/google_speech_embedding.safetensors",
            "github.com/dscripka/openWakeWord, read into torch",
            "352e4442e5d2b8d0c001a6d55c407a14fc554278de691e1ca098c5cc5d5cd11d",
            "Google's speech embedding (Lin et al. 2020), 96 features every 80 ms",
        ),
        Asset(
            "weights/speech_embed_torch.py",
            "written for these weights",
            "c41d70380703c189c904d22d4a1014e963e1bd25ae650db020a25fc65c34a66f",
            "the speech embedding as a torch module",
        ),
        Asset(
            "esc10",
            "github.com/karolpiczak/ESC-10 (CC BY 3.0), folds 1 and 2",
            "3cc7652fcf14004d2986b6a87221311da539c8146c257c7dcb885c7b2775792e",
            "120 environmental sounds of 10 classes, 5 s, 44.1 kHz",
        ),
        Asset(
            "fsdd/recordings",
            "github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0)",
            "cc6027de726df3565562a3f71f8ff8eafceb4eb130f4745a937209a807197016",
            "1,500 spoken digits of 6 speakers, 8 kHz",
        ),
        Asset(
            "text/indonlu_smsa_doc-sentiment-prosa",
            "github.com/IndoNLP/indonlu (Apache-2.0)",
            "32c63ae8541216ff199da0d3fffaa8d2d6708507b9b7f2600a7cc1df9998f681",
            "SmSA: 11,000 + 1,260 + 500 Indonesian sentences of reviews, 3 classes",
        ),
        Asset(
            "text/sst2",
            "github.com/clairett/pytorch-sentiment-classification",
            "6e006d8004c442c79065f292233491c25d8f3a7d85b9709dcc090cf894be3c6f",
            "SST-2: 6,920 + 872 + 1,821 English sentences of film reviews, 2 classes; no licence stated",
        ),
    )
}


def folder() -> Path:
    """The folder of data and weights.

    Raises:
        FileNotFoundError: there is none; the message names the setting.
    """
    found = Path(os.environ.get("HEADSTART_SHARED_DATA") or ROOT.parent / "shared" / "data")
    if not found.is_dir():
        raise FileNotFoundError(f"{found} is no folder: set HEADSTART_SHARED_DATA (see benchmarks/README.md)")
    return found


def weights() -> Path:
    """The ImageNet weights of MobileNetV2."""
    return folder() / "weights" / "mobilenet_v2_imagenet.safetensors"


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, of the lines "sha256  relative/path" of its files, sorted by path."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted((each.relative_to(path).as_posix(), each) for each in path.rglob("*") if each.is_file())
    lines = (f"{digest(each)}  {name}\n" for name, each in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def mnist(rows: int, val: int, test: int, seed: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """MNIST as grey pictures (N, 28, 28) uint8 with labels (N,): rows drawn anew by every seed.

    ``rows`` (stratified: as many of every digit) come from its training set, ``val`` and ``test`` from its test set.
    """
    with np.load(folder() / "digits" / "mnist.npz") as stored:
        arrays = {name: stored[name] for name in stored.files}
    rng = np.random.default_rng(seed)
    x, y = arrays["x_train"], arrays["y_train"].astype(np.int64)
    share = rows // 10
    train = np.concatenate([rng.permutation(np.flatnonzero(y == digit))[:share] for digit in range(10)])
    other, answers = arrays["x_test"], arrays["y_test"].astype(np.int64)
    order = rng.permutation(len(answers))
    parts = {"val": order[:val], "test": order[val : val + test]}
    return {"train": (x[train], y[train])} | {
        name: (other[chosen], answers[chosen]) for name, chosen in parts.items() if len(chosen)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--print", action="store_true", help="show the hashes of the files here")
    chosen = parser.parse_args()
    wrong = []
    for name, asset in ASSETS.items():
        found: Any = digest(folder() / name)
        if chosen.print:
            print(found, name)
        elif found != asset.sha256:
            wrong.append(f"{name}: {found}, expected {asset.sha256} ({asset.origin})")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
