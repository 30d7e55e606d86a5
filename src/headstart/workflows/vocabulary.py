"""Which words of a language model a stage trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from headstart.core.events import Decision
from headstart.models import narrowing
from headstart.stages.base import Training

if TYPE_CHECKING:
    from headstart.workflows.course import Course


@contextmanager
def narrowed(course: Course, stage: Training) -> Iterator[None]:
    """Inside, the model trains the words that the training texts name, unless the user may put in others."""
    if callable(stage.augment):
        yield
        return
    rows = (course.train.store[row] for row in range(len(course.train)))
    with narrowing.narrowed(course.model.backbone, rows) as found:
        if found:
            words, known = found
            course.emit(
                Decision(
                    "words",
                    f"{words:,} of {known:,} train",
                    "the others stand in no training text and stay as pretrained",
                )
            )
        yield
