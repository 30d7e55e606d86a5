"""The peer: PyTorch's transfer learning tutorial with a frozen backbone ("ConvNet as fixed feature extractor").

    python -m benchmarks.peers.tutorial_probe --rows rows.json --weights mobilenet_v2.safetensors --answer out.json

25 epochs of RandomResizedCrop and flip, batches of 4, SGD with lr 1e-3 and momentum 0.9, a tenth every 7 epochs, plain
fp32, the best epoch by validation accuracy: as the tutorial has it, with MobileNetV2 for its ResNet-18. ``--strong`` is
the same with what a careful user would add: batches of 32 at lr 8e-3, bf16 where the processor has instructions for it,
channels last, workers that stay.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import torch  # noqa: E402
from PIL import Image  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import models, transforms  # noqa: E402

from headstart.engine.precision import hopeless  # noqa: E402  (one rule for both sides)

ROWS = 'JSON: {"classes": […], "splits": {"train": [[file, class], …], "val": …}}'
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Pictures(torch.utils.data.Dataset):
    """What torchvision's ImageFolder does, for listed files."""

    def __init__(self, rows: list[list[str]], classes: list[str], transform: Any) -> None:
        self.rows, self.classes, self.transform = rows, classes, transform

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        file, label = self.rows[index]
        with Image.open(file) as image:
            return self.transform(image.convert("RGB")), self.classes.index(label)


def loaders(told: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """Batches of the training and validation rows, with the tutorial's transforms."""
    size, end = chosen.size, [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    views = {
        "train": transforms.Compose([transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *end]),
        "val": transforms.Compose([transforms.Resize(size * 256 // 224), transforms.CenterCrop(size), *end]),
    }
    return {
        split: torch.utils.data.DataLoader(
            Pictures(told["splits"][split], told["classes"], view),
            batch_size=chosen.batch_size,
            shuffle=True,
            num_workers=chosen.workers,
            persistent_workers=chosen.strong,
        )
        for split, view in views.items()
    }


def train(told: dict[str, Any], chosen: argparse.Namespace) -> list[dict[str, float]]:
    """The tutorial's loop; validation accuracy and seconds since the start, for every epoch."""
    model = models.mobilenet_v2()
    model.load_state_dict(load_file(chosen.weights))
    for parameter in model.parameters():
        parameter.requires_grad = False
    model.classifier = nn.Linear(model.last_channel, len(told["classes"]))
    if chosen.strong:
        model = model.to(memory_format=torch.channels_last)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.classifier.parameters(), lr=chosen.lr, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    batches, history = loaders(told, chosen), []
    for epoch in range(chosen.epochs):
        right = 0
        for phase in ("train", "val"):
            model.train(phase == "train")
            for inputs, labels in batches[phase]:
                if chosen.strong:
                    inputs = inputs.contiguous(memory_format=torch.channels_last)
                optimizer.zero_grad()
                with (
                    torch.set_grad_enabled(phase == "train"),
                    torch.autocast("cpu", dtype=torch.bfloat16, enabled=chosen.bf16),
                ):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                if phase == "train":
                    loss.backward()
                    optimizer.step()
                else:
                    right += int((outputs.argmax(1) == labels).sum())
        scheduler.step()
        told_now = {"accuracy": right / len(told["splits"]["val"]), "seconds": round(time.perf_counter() - STARTED, 2)}
        history.append(told_now)
        print(epoch + 1, told_now, flush=True)
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=Path, required=True, help='{"classes": […], "splits": {"train": [[file, class], …]}}'
    )
    parser.add_argument("--weights", type=Path, required=True, help="of torchvision's mobilenet_v2, safetensors")
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--strong", action="store_true")
    chosen = parser.parse_args()
    chosen.batch_size = chosen.batch_size or (32 if chosen.strong else 4)
    chosen.lr = chosen.lr or (8e-3 if chosen.strong else 1e-3)
    chosen.bf16 = chosen.strong and not hopeless("cpu")
    torch.manual_seed(chosen.seed)
    history = train(json.loads(chosen.rows.read_text()), chosen)
    best = max(history, key=lambda epoch: epoch["accuracy"])
    answer = {
        "accuracy": {"val": best["accuracy"]},
        "last_accuracy": {"val": history[-1]["accuracy"]},
        "epochs": history,
        "bf16": chosen.bf16,
    }
    chosen.answer.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
