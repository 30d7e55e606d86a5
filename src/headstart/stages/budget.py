"""Whether a recipe takes enough optimizer updates to learn: updates count, not epochs.

The published failures are starved ones: the speech-intent recipe of a well-known guide takes about 40 updates from a
random head and ends at chance. A head that a probe has solved needs far fewer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from headstart.core.errors import Problem
from headstart.core.plural import plural
from headstart.stages.base import Stage, Training

FROM_RANDOM_HEAD = 100  # updates below which a stage that starts from a random head is refused
FROM_SOLVED_HEAD = 20  # the same for a stage that starts from the head of a stage before it


def needed(stages: Sequence[Stage], index: int) -> int:
    """Updates that stage ``index`` of a plan needs at least: later stages start from a head that works."""
    first = all(stage.prepares for stage in stages[:index]) and not stages[index].solves
    fresh = first or stages[index].method == "scratch"
    return FROM_RANDOM_HEAD if fresh else FROM_SOLVED_HEAD


def starved(stages: Sequence[Stage], rows: int) -> list[Problem]:
    """One problem for every training stage that takes too few updates on ``rows`` training rows."""
    found = []
    for index, stage in enumerate(stages):
        least = needed(stages, index)
        if not isinstance(stage, Training) or stage.prepares or stage.solves or stage.updates(rows) >= least:
            continue  # a head that is solved has learned after any number of updates
        also = ", or a probe before it" if least == FROM_RANDOM_HEAD and stage.method != "scratch" else ""
        epochs = -(-least // stage.updates_per_epoch(rows))
        found.append(
            Problem(
                f"{stage.updates(rows)} updates are too few to learn ({plural(stage.epochs, 'epoch')} of "
                f"{plural(stage.updates_per_epoch(rows), 'update')} on {rows} rows; at least {least} are needed)",
                f"plan[{index}].{stage.title}",
                f"epochs={epochs}, or a smaller batch_size{also}; force=true runs it as it is",
            )
        )
    return found


def repaired(stages: Sequence[Stage], rows: int, kept: Sequence[Collection[str]] | None = None) -> tuple[Stage, ...]:
    """The same plan with epochs raised where a training stage would starve: for plans chosen by name.

    Early stopping waits for as many updates too: until its running averages are those of its weights, a network with
    BatchNorm gets worse on validation rows while it learns (YAMNet from scratch on 64 recordings: for 52 updates).

    ``kept`` names for every stage the settings that stay as they are; without it none does.
    """
    enough = list(stages)
    for index, stage in enumerate(stages):
        if isinstance(stage, Training) and not stage.prepares:
            epochs = -(-needed(stages, index) // stage.updates_per_epoch(rows))
            stays = kept[index] if kept else ()
            longer = stage.epochs if "epochs" in stays else max(stage.epochs, epochs)
            waits = stage.patience
            if waits is not None and "patience" not in stays:
                waits = max(waits, min(epochs, longer))
            enough[index] = replace(stage, epochs=longer, patience=waits)
    return tuple(enough)
