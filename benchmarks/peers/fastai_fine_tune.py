"""The peer: fastai's ``fine_tune`` with its defaults, on given rows and weights. It runs in an environment of its own.

    uv venv .peer && uv pip install --python .peer/bin/python -r benchmarks/peers/requirements.txt
    python -m benchmarks.transfer --peer .peer/bin/python

One epoch with the body frozen and four with everything, base_lr 2e-3, Adam, one-cycle, fastai's head and
``aug_transforms``: its documented recipe. The result is that of the last epoch, as ``fine_tune`` leaves it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

ROWS = 'JSON: {"classes": […], "splits": {"train": [[file, class], …], "val": …}}'
STARTED = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=Path, required=True, help='{"classes": […], "splits": {"train": [[file, class], …]}}'
    )
    parser.add_argument("--weights", type=Path, required=True, help="of torchvision's mobilenet_v2, safetensors")
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--freeze-epochs", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-flip", action="store_true")
    chosen = parser.parse_args()

    import pandas
    from fastai.vision.all import (
        CategoryBlock,
        ColReader,
        DataBlock,
        ImageBlock,
        IndexSplitter,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        imagenet_stats,
        params,
        set_seed,
        vision_learner,
    )
    from safetensors.torch import load_file
    from torch import nn
    from torchvision.models import mobilenet_v2

    set_seed(chosen.seed, reproducible=True)
    told = json.loads(chosen.rows.read_text())
    splits = told["splits"]
    table = pandas.DataFrame([*splits["train"], *splits["val"]], columns=["file", "label"])
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=told["classes"])),
        get_x=ColReader("file"),
        get_y=ColReader("label"),
        splitter=IndexSplitter(range(len(splits["train"]), len(table))),
        item_tfms=Resize(chosen.size),
        batch_tfms=[*aug_transforms(do_flip=not chosen.no_flip), Normalize.from_stats(*imagenet_stats)],
    )
    loaders = block.dataloaders(table, bs=chosen.batch_size, num_workers=chosen.workers)

    def architecture(pretrained: bool = False, **_settings: object) -> object:
        network = mobilenet_v2()
        network.load_state_dict(load_file(chosen.weights))
        return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1))  # fastai cuts before the last pooling module

    def thirds(model: nn.Sequential) -> list:
        """Early body, late body, head, as fastai divides ResNets: by default an unknown body is one slow group."""
        blocks = model[0][0]
        return [params(blocks[:7]), params(blocks[7:]), params(model[1:])]

    learner = vision_learner(loaders, architecture, pretrained=False, metrics=accuracy, splitter=thirds)
    ready = time.perf_counter() - STARTED
    learner.fine_tune(chosen.epochs, base_lr=chosen.lr, freeze_epochs=chosen.freeze_epochs)
    trained = time.perf_counter() - STARTED
    found = {}
    for split in ("val", "test"):
        if split in splits:
            rows = pandas.DataFrame(splits[split], columns=["file", "label"])
            scores, targets = learner.get_preds(dl=loaders.test_dl(rows, with_labels=True))
            found[split] = float((scores.argmax(1) == targets).float().mean())
    answer = {"accuracy": found, "start_seconds": round(ready, 2), "train_seconds": round(trained - ready, 2)}
    answer["rows"] = {split: len(rows) for split, rows in splits.items()}
    chosen.answer.write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
