"""The model card of a published model: what it is, the evidence, its limits, and how each library opens it.

Everything comes from the run folder. Names of rows, places of files and messages about the data are never in it; names
that the user chose are written so that they cannot act as Markdown or HTML.
"""

from __future__ import annotations

from typing import Any

from headstart.core.plural import plural
from headstart.data.reading.guess import new_rows
from headstart.measure.classes import ClassScore
from headstart.measure.evaluation import Evaluation
from headstart.report import metadata
from headstart.report.contents import Contents, measured
from headstart.report.formats import duration, gain, interval, markdown, metric_title, parameters, score
from headstart.report.metadata import Published
from headstart.report.story import against_baseline, trained

KINDS = {"image": "Image", "text": "Text", "audio": "Sound"}
SPLITS = {"test": "test", "val": "validation"}
SHOWN = 40  # classes that are named, the worst first where there are more
FEW = 100  # rows: fewer say little
AUTO = {
    "image": "AutoModelForImageClassification",
    "text": "AutoModelForSequenceClassification",
    "audio": "AutoModelForAudioClassification",
}


def card(contents: Contents, published: Published) -> str:
    """Markdown with the Hub's YAML head."""
    parts = [
        _summary(contents, published),
        _usage(contents, published),
        _stages(contents),
        _classes(contents),
        _calibration(contents),
        _onnx(contents) if published.onnx else [],
        _limits(contents, published),
        _provenance(contents, published),
    ]
    return metadata.head(contents, published) + "\n" + "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _summary(contents: Contents, published: Published) -> list[str]:
    names = [str(name) for name in contents.data.get("classes") or ()]
    lines = [f"# {markdown(published.title)}", ""]
    kind = f"{KINDS.get(contents.modality, 'A')} classifier, {plural(len(names), 'class')}"
    lines.append(f"{kind}, trained in stages by Headstart: each was measured with an interval, the best was kept.")
    split = metadata.split_of(contents)
    scores = ((contents.result or {}).get("metrics") or {}).get(split) or {}
    rows = [(name, measured(scores, name)) for name in (contents.metric, *metadata.METRICS)]
    table = [
        f"| {markdown(metric_title(name))} | {score(found['value'], name)} | {interval(found, name)} | {found['n']:,} |"
        for name, found in dict(rows).items()
        if found is not None and score(found["value"], name) != "–"
    ]
    if table:
        lines += [
            "",
            f"| on {SPLITS[split]} rows | value | 95 % interval | n |",
            "| --- | ---: | ---: | ---: |",
            *table,
        ]
    return lines


def _usage(contents: Contents, published: Published) -> list[str]:
    repo, task = published.repo, metadata.TASKS.get(contents.modality, "")
    example = {"text": '"a text"', "audio": '"sound.wav"'}.get(contents.modality, '"picture.jpg"')
    lines = ["## Use", "", "```python", "import headstart  # pip install 'headstart[train]'", ""]
    lines += [f'model = headstart.load("hf://{repo}")', f"model.predict([{example}])[0].as_pipeline()", "```"]
    lines += ["", f"`headstart fit … --backbone {repo}` trains on from it."]
    if published.library == "timm":
        lines += ["", "```python", "import timm", "", f'timm.create_model("hf-hub:{repo}", pretrained=True)', "```"]
    if published.library == "transformers":
        lines += ["", "```python", "import transformers", ""]
        lines += [f'transformers.{AUTO[contents.modality]}.from_pretrained("{repo}")']
        lines += [f'transformers.pipeline("{task}", model="{repo}")', "```"]
    if published.onnx:
        lines += ["", "Without torch, by the ONNX files (`pip install headstart` is enough):", "", "```"]
        lines += [f"hf download {repo} --local-dir {published.title}"]
        lines += [f"headstart predict {published.title}/export {new_rows(contents.modality)}", "```"]
    told = "Headstart and the ONNX files divide logits by the temperature below; other libraries do not."
    return [*lines, "", f"Input: {markdown(published.input, 300)}. {told}"]


def _stages(contents: Contents) -> list[str]:
    metric = contents.metric
    rows = []
    for entry in contents.baselines:
        found = measured(entry.get("metrics"), metric)
        rows.append(_row(f"baseline: {entry.get('name')}", "no backbone", entry, found, "", metric))
    for stage in contents.stages:
        found, verdict = measured((stage.get("metrics") or {}).get("val"), metric), stage.get("verdict") or {}
        told = "**kept, published here**" if stage is contents.best else str(verdict.get("decision", ""))
        rows.append(
            _row(str(stage.get("name")), trained(stage), stage, found, _against(verdict, metric) + told, metric)
        )
    if not rows:
        return []
    title = f"{markdown(metric_title(metric))} on validation rows"
    lines = ["## Evidence", "", f"| stage | trained | time | {title} | 95 % interval | n | |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: | --- |", *rows]
    reads = (contents.result or {}).get("test_reads")
    if metadata.split_of(contents) == "test":
        beside, _ = against_baseline(contents)
        told = f"Stages were chosen on validation rows only; the test rows were read {_times(reads)}. {beside}"
        lines += ["", told.rstrip()]
    return lines


def _row(name: str, what: str, entry: dict[str, Any], found: dict[str, Any] | None, told: str, metric: str) -> str:
    cells = [markdown(name), markdown(what), duration(entry.get("seconds"))]
    if found is None:
        cells += ["–", "", ""]
    else:
        cells += [score(found["value"], metric), interval(found, metric), f"{found['n']:,}"]
    return f"| {' | '.join(cells)} | {told} |"


def _against(verdict: dict[str, Any], metric: str) -> str:
    """The paired difference from the best stage before."""
    change = verdict.get("difference")
    if not isinstance(change, dict) or metric != verdict.get("metric"):
        return ""
    span = f"{gain(change['low'], metric).removesuffix(' points')} to {gain(change['high'], metric)}"
    return f"{gain(change['value'], metric)} ({span}, paired): "


def _classes(contents: Contents) -> list[str]:
    shown = contents.shown
    if shown is None or not len(shown):
        return []
    found = shown.per_class()
    chosen = found if len(found) <= SHOWN else sorted(found, key=lambda each: each.recall.value)[:SHOWN]
    some = "" if len(found) <= SHOWN else f" The {SHOWN} of {len(found)} with the lowest recall are shown."
    lines = ["## Classes", "", f"On {SPLITS[metadata.split_of(contents)]} rows, with 95 % intervals.{some}", ""]
    lines += ["| class | rows | recall | precision |", "| --- | ---: | ---: | ---: |"]
    return lines + [_class(each) for each in chosen]


def _class(each: ClassScore) -> str:
    shares = (
        f"{score(found.value, 'accuracy')} ({interval(found.as_json(), 'accuracy')})" if found.n else "–"
        for found in (each.recall, each.precision)
    )
    return f"| {markdown(each.name)} | {each.recall.n:,} | {' | '.join(shares)} |"


def _calibration(contents: Contents) -> list[str]:
    shown, temperature = contents.shown, (contents.result or {}).get("temperature")
    if shown is None or not len(shown) or not isinstance(temperature, int | float) or temperature <= 0:
        return []
    return [
        "## Calibration",
        "",
        f"Logits are divided by the temperature {temperature:.4g}, fitted on validation rows. Expected calibration "
        f"error on {plural(len(shown), SPLITS[metadata.split_of(contents)] + ' row')}: {_ece(shown)} without it, "
        f"{_ece(shown.with_temperature(float(temperature)))} with it.",
    ]


def _ece(shown: Evaluation) -> str:
    found = shown.reliability()
    low, _, high = found.ece_null
    band = f"{score(low, 'ece').removesuffix('%')}–{score(high, 'ece')} if it were perfect: {found.verdict}"
    return f"{score(found.ece, 'ece')} ({band})"


def _onnx(contents: Contents) -> list[str]:
    accepted = contents.exported.get("accepted") or []
    lines = ["## ONNX", "", "Each way to run the files was compared with torch on validation rows.", ""]
    lines += [
        "| variant | MB | same decision | change of the metric | ms, one row |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for each in contents.exported.get("variants") or ():
        if each["name"] in accepted:
            change, same, speed = each["difference"], each["agreement"], each["speed"]["one"]
            cells = [markdown(each["name"]), f"{each['bytes'] / 1e6:.1f}"]
            cells += [f"{score(same['value'], 'accuracy')} (n = {same['n']:,})", gain(change["value"], "accuracy")]
            lines.append(f"| {' | '.join(cells)} | {speed['p50_ms']:.2f} |")
    host = contents.exported.get("host") or {}
    return [*lines, "", f"Times on {markdown(host.get('processor', '?'))}, {plural(host.get('threads', 1), 'thread')}."]


def _limits(contents: Contents, published: Published) -> list[str]:
    result, shown = contents.result or {}, contents.shown
    known = len(contents.data.get("classes") or ())
    lines = ["## Limits", ""]
    lines.append(f"- It always answers with one of its {plural(known, 'class')}, whatever it is shown.")
    lines.append("- The scores hold for rows like those it was measured on; other sources can be far worse.")
    if metadata.split_of(contents) == "val":
        lines.append("- No test rows were kept aside: stages were chosen by these very scores, which is optimistic.")
    elif int(result.get("test_reads") or 0) > 1:
        reads = _times(result.get("test_reads"))
        lines.append(
            f"- The test rows were read {reads}; these scores are the run's own. What was chosen by looking at them "
            "since, such as another plan, is no longer judged honestly by them."
        )
    if shown is not None and len(shown) < FEW:
        lines.append(f"- Only {plural(len(shown), 'row')} stand behind the scores: read the intervals.")
    if result.get("beaten_by"):
        lines.append(
            f"- A baseline without a backbone ({markdown(result['beaten_by'])}) is as good on validation rows."
        )
    if not published.licence:
        lines.append("- The licence of the weights that training started from is not known: ask before you use it.")
    return lines


def _provenance(contents: Contents, published: Published) -> list[str]:
    origin, data = contents.origin, contents.data
    packages = contents.environment.get("packages") or {}
    counts = {split: sum(by_class.values()) for split, by_class in (data.get("counts") or {}).items()}
    findings = (data.get("audit") or {}).get("findings") or ()
    start = f"{markdown(origin.get('uri', '?'))}, weights: {markdown(origin.get('weights', '?'))}"
    revision = f", revision {markdown(origin['revision'])}" if origin.get("revision") else ""
    best = contents.best or {}
    lines = ["## Provenance", "", f"- Started from: {start}{revision}"]
    lines += [f"- That start was trained on: {markdown(origin['data'])}"] if origin.get("data") else []
    lines.append(f"- Licence of that start: {markdown(published.licence or 'unknown')}")
    if best.get("parameters"):
        of = f"of which the kept stage trained {parameters(best.get('trainable'))}"
        lines.append(f"- Parameters: {parameters(best['parameters'])}, {of}")
    rows = ", ".join(f"{SPLITS.get(split, markdown(split))} {n:,}" for split, n in counts.items()) or "unknown"
    mark = markdown(data.get("fingerprint", "unknown"))
    lines.append(f"- Rows: {rows}, from {_source(published)}; fingerprint {mark}")
    kinds = sorted({str(found.get("kind")) for found in findings if isinstance(found, dict)})
    lines.append(f"- Audit of the data: {', '.join(markdown(kind) for kind in kinds) or 'nothing was found'}")
    machine, seed = contents.environment, contents.experiment.get("seed", "?")
    lines.append(f"- Seed: {markdown(seed)}; device: {markdown(machine.get('device', '?'))}")
    versions = ", ".join(f"{markdown(name)} {markdown(value)}" for name, value in packages.items())
    return [*lines, f"- Versions: Python {markdown(machine.get('python', '?'))}, {versions}"]


def _source(published: Published) -> str:
    name = published.dataset
    return f"[{name}](https://huggingface.co/datasets/{name})" if name else "own data"


def _times(reads: Any) -> str:
    return "once" if reads == 1 else f"{reads} times"
