"""The peer: fine-tuning with the Trainer of Hugging Face, as its text-classification example does.

    python -m benchmarks.peers.trainer --data folder/ --model folder/ --answer out.json --padding longest

``--data`` holds train.csv and val.csv with the columns text and label. Texts are cut at ``--max-length`` tokens and
padded to the longest of their batch ("longest", DataCollatorWithPadding) or all to the same ("max_length"). AdamW,
linear decay after a tenth of warm-up; the tokens are made once, before the clock of training starts.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

STARTED = time.perf_counter()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from sklearn.metrics import f1_score  # noqa: E402
from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)


class Tokens(torch.utils.data.Dataset):
    """Rows as the collator takes them."""

    def __init__(self, rows: list[tuple[str, str]], classes: list[str], tokenizer: Any, max_length: int) -> None:
        found = tokenizer([text for text, _ in rows], truncation=True, max_length=max_length)
        self.rows = [
            {**{name: found[name][index] for name in found}, "labels": classes.index(label)}
            for index, (_, label) in enumerate(rows)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


class Counting:
    """A collator that counts the places of its batches, and those that hold a token."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate
        self.tokens = self.places = 0

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        batch = self.collate(rows)
        self.tokens += int(batch["attention_mask"].sum())
        self.places += batch["attention_mask"].numel()
        return batch


def read(table: Path) -> list[tuple[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def train(chosen: argparse.Namespace) -> dict[str, Any]:
    """Train, judge once, and tell the seconds of both together and of all since the start."""
    rows = {split: read(chosen.data / f"{split}.csv") for split in ("train", "val")}
    classes = sorted({label for _, label in rows["train"]})
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(chosen.model / "tokenizer.json"), **special)
    tokens = {split: Tokens(each, classes, tokenizer, chosen.max_length) for split, each in rows.items()}
    torch.manual_seed(chosen.seed)
    model = AutoModelForSequenceClassification.from_pretrained(chosen.model, num_labels=len(classes))
    settings = TrainingArguments(
        output_dir=str(chosen.answer.parent / "trainer"),
        num_train_epochs=chosen.epochs,
        per_device_train_batch_size=chosen.batch_size,
        per_device_eval_batch_size=32,
        learning_rate=chosen.lr,
        warmup_steps=round(0.1 * chosen.epochs * -(-len(rows["train"]) // chosen.batch_size)),
        weight_decay=0.01,
        seed=chosen.seed,
        use_cpu=True,
        bf16=chosen.bf16,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    collator = Counting(DataCollatorWithPadding(tokenizer, padding=chosen.padding, max_length=chosen.max_length))
    trainer = Trainer(model=model, args=settings, train_dataset=tokens["train"], data_collator=collator)
    begun = time.perf_counter()
    trainer.train()
    filled = collator.tokens / collator.places
    answers = trainer.predict(tokens["val"])
    seconds = time.perf_counter() - begun
    found, labels = answers.predictions.argmax(1), np.asarray(answers.label_ids)
    return {
        "train_seconds": round(seconds, 3),
        "filled": round(filled, 4),
        "precision": "bf16" if chosen.bf16 else "fp32",
        "accuracy": {"val": float((found == labels).mean())},
        "macro_f1": {"val": float(f1_score(labels, found, average="macro"))},
        "since_start": round(time.perf_counter() - STARTED, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a folder that save_pretrained wrote")
    parser.add_argument("--answer", type=Path, required=True)
    parser.add_argument("--padding", choices=("longest", "max_length"), default="longest")
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    chosen.answer.write_text(json.dumps(train(chosen)))


if __name__ == "__main__":
    main()
