"""The top of the report: the verdict in a sentence, the few numbers that matter, and what one must know about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.core.plural import plural
from headstart.measure.evaluation import Evaluation
from headstart.measure.intervals import Difference
from headstart.report.contents import Contents
from headstart.report.formats import (
    count,
    duration,
    gain,
    higher_is_better,
    interval,
    metric_title,
    p_value,
    parameters,
    score,
)


@dataclass(frozen=True)
class Note:
    """Something to know: ``level`` is error, warning or info."""

    level: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class Card:
    """One of the few numbers at the top."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Headline:
    """The verdict: ``tone`` is good, weak, bad or unfinished; ``flag`` is "optimistic" where no test split was read."""

    title: str
    lead: str
    tone: str
    flag: str
    notes: tuple[Note, ...]
    cards: tuple[Card, ...]


def headline(contents: Contents) -> Headline:
    """What came out, in words."""
    title, lead, tone = _verdict(contents)
    flag = "optimistic" if contents.best and _optimistic(contents) else ""
    return Headline(title, lead, tone, flag, tuple(_notes(contents)), tuple(_cards(contents)))


def trained(stage: dict[str, Any]) -> str:
    """What a stage trained, in words."""
    blocks, frozen = stage.get("blocks"), stage.get("frozen_blocks")
    if blocks is None or frozen is None:
        return str(stage.get("method", ""))
    if frozen >= blocks:
        return "the head"
    if frozen == 0:
        return "all blocks and the head"
    return f"the last {blocks - frozen} of {blocks} blocks and the head"


def _verdict(contents: Contents) -> tuple[str, str, str]:
    best, metric = contents.best, contents.metric
    if best is None:
        return (
            "No stage has finished yet",
            "This run was interrupted before its first stage was complete.",
            "unfinished",
        )
    if contents.result is None:
        done, planned = len(contents.stages), _planned(contents)
        of = f"{done} of {planned} stages are" if planned else f"{plural(done, 'stage')} {'is' if done == 1 else 'are'}"
        found = contents.score("val")
        so_far = f" The best so far is {best['name']}: {_sentence(found, metric)} on validation rows." if found else ""
        title = f"Unfinished: {of} done"
        return title, f"The run can be continued with --resume.{so_far}", "unfinished"
    test = contents.score("test")
    found = test or contents.score("val")
    if found is None:
        return f"{best['name']} was kept", "Its scores are not in the run folder.", "unfinished"
    split = "test" if test else "validation"
    many = f"{split} {contents.noun}s"
    if metric == "accuracy":
        title = f"{score(found['value'], metric)} of the {many} are right"
    else:
        title = f"The {metric_title(metric)} on the {many} is {score(found['value'], metric)}"
    chance, tone = against_baseline(contents)
    what = f"{contents.backbone} after" if contents.backbone else "that of"
    lead = (
        f"95% interval {interval(found, metric)} from {plural(found['n'], contents.noun)}. "
        f"The model is {what} stage {best['name']}, which trained {trained(best)}. {chance}"
    )
    return title, lead, tone


def _sentence(found: dict[str, Any], metric: str) -> str:
    return f"{metric_title(metric)} {score(found['value'], metric)} ({interval(found, metric)}, n = {found['n']:,})"


def against_baseline(contents: Contents) -> tuple[str, str]:
    """A sentence on the best baseline, both measured on test rows, else on validation rows, and the tone that follows
    from it."""
    tested, val, metric = contents.baseline_on_test, contents.score("val"), contents.metric
    baseline, rows = tested or contents.best_baseline, "test" if tested else "validation"
    own = contents.score("test") if tested else val
    if baseline is None or own is None:
        return "", "good"
    other = baseline["metrics"][metric]
    reach = f"the best baseline without a backbone ({baseline['name']}) reaches {score(other['value'], metric)}"
    change = gain(own["value"] - other["value"], metric)
    if (own["value"] - other["value"]) * (1 if higher_is_better(metric) else -1) <= 0:
        return f"On {rows} rows {reach}: nothing was gained over it.", "bad"
    paired = Difference(**tested["gain"]) if tested else contents.against_baseline()
    if paired is not None:
        span = f"{gain(paired.low, metric).removesuffix(' points')} to {gain(paired.high, metric)}, {p_value(paired.p)}"
        doubt = "" if paired.significant else "; this could be chance"
        tone = "good" if paired.significant else "weak"
        return f"On the same {rows} rows {reach}: {change} (paired, {span}){doubt}.", tone
    if own["low"] > other["high"] or own["high"] < other["low"]:
        return f"On validation rows {reach}: {change}, and the intervals are apart.", "good"
    return f"On validation rows {reach}: {change}, but the intervals overlap.", "weak"


def _optimistic(contents: Contents) -> bool:
    """Whether the score shown was also used to choose the model."""
    result = contents.result
    return result is not None and bool(result.get("optimistic") or not (result.get("metrics") or {}).get("test"))


def _planned(contents: Contents) -> int:
    plan = contents.experiment.get("plan")
    return len(plan) if isinstance(plan, list) else 0


def _notes(contents: Contents) -> list[Note]:
    notes = []
    if _optimistic(contents):
        text = "There was no test split: this score was also used to choose the model, so it is optimistic."
        notes.append(Note("warning", text, f"Keep some {contents.noun}s aside as test, and evaluate them once."))
    reads = int((contents.result or {}).get("test_reads") or 0)
    if reads > 1:
        text = f"The test rows were read {reads} times; the score here is the run's own."
        remedy = "What is chosen by looking at it again, such as another plan, needs rows that nobody has looked at."
        notes.append(Note("warning", text, remedy))
    if not contents.baselines and contents.stages:
        notes.append(Note("info", "No baseline was measured, so it is not known how much the backbone helped."))
    shown = contents.shown
    if shown is not None and len(shown) < 100:
        notes.append(
            Note("warning", f"Only {len(shown)} rows stand behind the score: read the interval, not the number.")
        )
    notes += [Note("warning", text) for text in contents.missing]
    seen = set()
    for event in contents.events:
        told = event.get("kind") == "optimistic"  # said above, with what to do
        if event.get("event") == "Notice" and event.get("level") in ("warning", "error") and not told:
            text, remedy = str(event.get("message", "")), str(event.get("remedy", ""))
            if text not in seen:
                notes.append(Note(str(event["level"]), text, remedy))
            seen.add(text)
    return notes


def _temperature(contents: Contents) -> float | None:
    """What the model divides its logits by, where that is known."""
    found = (contents.result or {}).get("temperature")
    return float(found) if isinstance(found, int | float) and found > 0 else None


def _calibration_card(contents: Contents, shown: Evaluation) -> Card:
    temperature = _temperature(contents)
    if temperature is None:
        found = shown.metric("ece").as_json()
        return Card(metric_title("ece"), score(found["value"], "ece"), interval(found, "ece"))
    after = shown.with_temperature(temperature).metric("ece").value
    detail = f"{score(after, 'ece')} with temperature {temperature:.2f}"
    return Card(metric_title("ece"), score(shown.metric("ece").value, "ece"), detail)


def _classes_counted(shown: Evaluation) -> str:
    """Over how many classes the mean is: those with rows or answers, as scikit-learn counts them."""
    k = len(shown.classes)
    if shown.several:
        present = int((shown.labels.any(axis=0) | shown.predicted.any(axis=0)).sum())
    else:
        present = len({*shown.labels.tolist(), *shown.predicted.tolist()})
    return (
        f" · over {plural(k, 'class')}"
        if present == k
        else f" · over the {present} of {k} classes with rows or answers"
    )


def _cards(contents: Contents) -> list[Card]:
    metric, cards = contents.metric, []
    for split, label in (("test", "test"), ("val", "validation")):
        found = contents.score(split)
        if found:
            detail = f"{interval(found, metric)} · n = {found['n']:,}"
            cards.append(Card(f"{metric_title(metric)}, {label}", score(found["value"], metric), detail))
    shown = contents.shown
    if shown is not None and len(shown):
        answers = shown.with_temperature(_temperature(contents) or 1.0)  # as the model gives them
        for name in ("macro_f1", *(["micro_f1", "subset_accuracy"] if shown.several else []), "log_loss"):
            if name != metric:
                found = answers.metric(name).as_json()
                detail = interval(found, name) + (_classes_counted(shown) if name == "macro_f1" else "")
                cards.append(Card(metric_title(name), score(found["value"], name), detail))
        cards.append(_calibration_card(contents, shown))
    seconds = (contents.result or {}).get("seconds") or sum(stage.get("seconds", 0) for stage in contents.stages)
    if seconds:
        trained_for = sum(stage.get("seconds", 0) for stage in contents.stages)
        detail = f"{duration(trained_for)} of it in stages" if trained_for < seconds else "in stages"
        cards.append(Card("time", duration(seconds), detail))
    if contents.best and contents.best.get("parameters"):
        share = contents.best.get("trainable", 0) / contents.best["parameters"]
        detail = f"of {parameters(contents.best['parameters'])} parameters ({100 * share:.3g}%)"
        cards.append(Card("trained", parameters(contents.best.get("trainable")), detail))
    counts = contents.data.get("counts") or {}
    if counts:
        # a row may count for several labels, or for none
        total = {split: len(contents.rows.get(split) or ()) or sum(found.values()) for split, found in counts.items()}
        detail = " · ".join(f"{split} {count(value)}" for split, value in total.items())
        cards.append(Card(plural(len(contents.data.get("classes") or []), "class"), count(sum(total.values())), detail))
    return cards[: 10 if shown is not None and shown.several else 8]
