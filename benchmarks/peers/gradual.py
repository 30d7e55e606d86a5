"""The peer of ``gradual``: the same schedule as one writes it in plain PyTorch, from the tutorial.

    python -m benchmarks.peers.gradual --rows rows.json --network mobilenet_v2 --weights mobilenet_v2.safetensors \\
        --schedule schedule.json --answer out.json

The head alone first, then the last blocks, more of them, and all: for every depth a new AdamW with rates that fall
block by block and one cycle over its epochs; the tutorial's augmentation, batches and loader with two workers; fp32.
``--strong`` is the same with what a careful user would add: bf16 where the processor has instructions for it, channels
last, BatchNorm at its running statistics, workers that stay.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from torchvision import models  # noqa: E402

from benchmarks.peers import tutorial_probe  # noqa: E402


def network(chosen: argparse.Namespace, classes: int) -> tuple[nn.Module, nn.Module]:
    """The network with a new head, and that head."""
    model = getattr(models, chosen.network)()
    if chosen.weights:
        model.load_state_dict(load_file(chosen.weights))
    if chosen.network.startswith("resnet"):
        model.fc = head = nn.Linear(model.fc.in_features, classes)
    else:
        model.classifier = head = nn.Linear(model.last_channel, classes)
    return model, head


def groups(model: nn.Module, head: nn.Module, stage: dict[str, Any], blocks: list[str]) -> list[dict[str, Any]]:
    """What trains at this depth, with its rates; everything else is frozen."""
    for parameter in model.parameters():
        parameter.requires_grad = False
    thawed = blocks[len(blocks) - stage["blocks"] :]
    parts = [list(head.parameters())]
    parts += [list(model.get_submodule(name).parameters()) for name in reversed(thawed)]
    if stage["blocks"] == len(blocks):
        inside = {id(parameter) for part in parts for parameter in part}
        stem = [parameter for parameter in model.parameters() if id(parameter) not in inside]
        parts += [stem] if stem else []
    found = []
    for index, part in enumerate(parts):
        for parameter in part:
            parameter.requires_grad = True
        rate = stage["lr"] * stage["layer_decay"] ** max(0, index - 1)
        found.append({"params": part, "lr": rate * stage["head_multiple"] if index == 0 else rate})
    return found


def epoch(model: nn.Module, batches: Any, step: Any, chosen: argparse.Namespace) -> int:
    """One pass; ``step`` gets the loss while training, None counts what is right."""
    criterion, right = nn.CrossEntropyLoss(label_smoothing=chosen.label_smoothing), 0
    model.train(step is not None)
    if chosen.strong:
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()
    for inputs, labels in batches:
        if chosen.strong:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with (
            torch.set_grad_enabled(step is not None),
            torch.autocast("cpu", dtype=torch.bfloat16, enabled=chosen.bf16),
        ):
            outputs = model(inputs)
            loss = criterion(outputs, labels)
        if step is not None:
            step(loss)
        right += int((outputs.argmax(1) == labels).sum())
    return right


def train(told: dict[str, Any], chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """All depths; validation accuracy and seconds since the start, for every epoch."""
    plan = json.loads(chosen.schedule.read_text())
    model, head = network(chosen, len(told["classes"]))
    if chosen.strong:
        model = model.to(memory_format=torch.channels_last)
    batches, history = tutorial_probe.loaders(told, chosen), []
    for depth, stage in enumerate(plan["stages"]):
        parts = groups(model, head, stage, plan["blocks"])
        optimizer = torch.optim.AdamW(parts, weight_decay=0.01)
        rates = [part["lr"] for part in parts]
        updates = stage["epochs"] * len(batches["train"])
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=updates, pct_start=0.1)

        def step(loss: torch.Tensor, optimizer: Any = optimizer, cycle: Any = cycle) -> None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()

        for _ in range(stage["epochs"]):
            epoch(model, batches["train"], step, chosen)
            right = epoch(model, batches["val"], None, chosen)
            seconds = round(time.perf_counter() - STARTED, 2)
            history.append({"depth": depth, "accuracy": right / len(told["splits"]["val"]), "seconds": seconds})
            print(history[-1], flush=True)
    return history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help=tutorial_probe.ROWS)
    parser.add_argument("--network", default="mobilenet_v2", help="of torchvision")
    parser.add_argument("--weights", type=Path, help="of the network, safetensors; random without them")
    schedule = (
        '{"blocks": ["features.0", …], "stages": [{"blocks": 5, "epochs", "lr", "layer_decay", "head_multiple"}]}'
    )
    parser.add_argument("--schedule", type=Path, required=True, help=schedule)
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--label-smoothing", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--strong", action="store_true")
    chosen = parser.parse_args()
    chosen.bf16 = chosen.strong and not tutorial_probe.hopeless("cpu")
    torch.manual_seed(chosen.seed)
    history = train(json.loads(chosen.rows.read_text()), chosen)
    best = max(history, key=lambda each: each["accuracy"])
    last = history[-1]["accuracy"]
    answer = {
        "accuracy": {"val": best["accuracy"]},
        "last_accuracy": {"val": last},
        "epochs": history,
        "bf16": chosen.bf16,
    }
    chosen.answer.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
