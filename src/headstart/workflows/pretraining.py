"""Continued pretraining on the user's own texts, as a stage: the backbone goes on, the classes are not looked at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from headstart.core.errors import DataError
from headstart.core.events import Notice
from headstart.core.plural import plural
from headstart.data import sources
from headstart.data.splits import UNLABELLED, Rows
from headstart.data.store import Store
from headstart.data.texts import reading
from headstart.data.texts.masking import Masking
from headstart.engine import streams
from headstart.engine.masking import MaskedStream, restoring
from headstart.engine.streams import Examples
from headstart.measure.restoring import Restoring, masked_loss
from headstart.stages import gates
from headstart.stages.gates import Verdict
from headstart.stages.methods import mlm
from headstart.stages.restoring import Restorer
from headstart.workflows.outcomes import Outcome

if TYPE_CHECKING:
    from headstart.workflows.course import Course


def pretrain(course: Course, index: int, stage: mlm.Settings) -> tuple[Outcome, Verdict]:
    """Restore masked words, judged by what that costs on validation texts beside the backbone as it was."""
    model, runtime = course.model, course.runtime
    texts = course.train if stage.texts is None else _read(stage.texts, course)
    masking = Masking(model.backbone.spec.tokenizer, stage.share)
    course.start(index, stage, f"the backbone, restoring masked words of {plural(len(texts), 'text')}", rows=len(texts))
    model.thaw("all")
    model.head.requires_grad_(False)  # it answers nothing here
    learner = Restorer(model, course.seed, runtime.autocast).to(runtime.device)

    def judge() -> Restoring:
        return restoring(learner, course.val, masking, runtime, stage.batch_size)

    before = judge()
    learner.spare()
    order = streams.Order(course.seed, index, texts.rows, stage.batch_size, None, texts.store.lengths)
    loop = course.descend(index, stage, learner, MaskedStream(runtime, order, texts, masking), judge, masked_loss)
    after = judge()
    verdict = gates.check(stage.gate, after, before, metric=masked_loss, name="the backbone as it was")
    details = {"texts": len(texts), "before": before.as_json()}
    return course.told(loop, after, None, details), verdict


def _read(written: str, course: Course) -> Examples:
    """The texts that a setting names; unreadable ones are left out, said aloud."""
    path, kinds = os.path.expanduser(written), list[str]()
    if os.path.isfile(path) and path.endswith(".txt"):
        text, *kinds = reading.of_file(path)
        lines = [line for line in text.splitlines() if line.strip()]
        rows = Rows(lines, np.full(len(lines), UNLABELLED), tuple(f"line {n}" for n in range(1, len(lines) + 1)))
    else:
        rows, notes = sources.find_unlabelled(path, modality="text")
        for note in notes:
            course.emit(Notice("info", "data", note))
    spec = course.model.backbone.spec
    store = Store.build(rows, spec, modality="text")
    if guessed := [*kinds, *(facts.format for facts in store.facts if facts is not None)].count(reading.LATIN):
        what = f"{written}: not UTF-8 and read as Windows' Latin (cp1252): {guessed} of its files"
        course.emit(Notice("warning", "guessed-encoding", what, "check their accented letters"))
    if not len(store.usable):
        why = next((f": the first {reason.message}" for reason in store.errors.values()), "")
        raise DataError(f"there is no text to learn from{why}", where=written)
    if len(store.usable) < len(rows):
        of = f"of {len(rows):,} texts cannot be read and"
        told = plural(len(rows) - len(store.usable), f"{of} is left out", f"{of} are left out")
        course.emit(Notice("warning", "unreadable", f"{written}: {told}"))
    return Examples("texts", rows.take(store.usable), store.take(store.usable), spec)
