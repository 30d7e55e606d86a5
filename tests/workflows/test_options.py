"""Every option goes through fit and does what it says: inputs, heads, training settings, the user's own callables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import headstart
from headstart.core.errors import ConfigError
from headstart.core.events import EpochDone

LAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "blocks": 1, "augment": "none", "gate": {"on_fail": "warn"}}


def thaw(**own: Any) -> list[dict[str, Any]]:
    return [{"thaw": {**LAST, **own}}]


@pytest.mark.parametrize(("channels", "size"), [(1, 32), (4, 32), (3, 48), (1, 20)])
def test_other_channels_and_sizes(fit, pictures, channels, size):
    run = fit(pictures(30, size=size, channels=channels), ["probe", *thaw()], channels=channels, image_size=size)
    import headstart

    model = headstart.load(run)
    assert model.model.backbone.spec.input_shape == (channels, size, size)
    found = model.predict(pictures(6, 3, size=size, channels=channels)[0])
    assert [row.label for row in found] == ["dark", "red", "stripes"] * 2


@pytest.mark.parametrize("kind", ["mlp", "cosine"])
def test_heads_without_a_closed_form_are_trained_on_cached_features(fit, pictures, kind):
    run = fit(pictures(30), head={"kind": kind, "dropout": 0.1, **({"hidden": 16} if kind == "mlp" else {})})
    (stage,) = run.stages()
    assert (stage["method"], stage["frozen_blocks"]) == ("probe", 4)
    assert stage["updates"] > 0
    assert stage["metrics"]["val"]["accuracy"]["value"] == 1.0
    assert fit.said(EpochDone)


def test_settings_that_a_head_does_not_have_are_refused(fit, pictures):
    rows = pictures(30)
    for kind in ("linear", "cosine"):
        with pytest.raises(
            ConfigError, match=f"head.hidden: is the width of a hidden layer, and a {kind} head"
        ) as told:
            fit(rows, head={"kind": kind, "hidden": 16})
        assert told.value.problems[0].remedy == "leave it out, or say head.kind=mlp"
    for kind in ("mlp", "cosine"):
        with pytest.raises(ConfigError, match=rf"plan\[0\]\.probe\.strengths: are those of a head .* of kind {kind}"):
            fit(rows, [{"probe": {"strengths": [0.01, 1.0]}}], head={"kind": kind})


SGD = {"optimizer": "sgd", "lr": 1e-3}


@pytest.mark.parametrize(
    ("own", "beside"),
    [
        (SGD, {}),
        ({"momentum": 0.8}, SGD),
        ({"optimizer": "adam"}, {}),
        ({"weight_decay": 0.0}, {}),
        ({"clip": 0.01}, {}),
        ({"label_smoothing": 0.1}, {}),
        ({"mixup": 0.4}, {}),
        ({"mix_probability": 0.5}, {"mixup": 0.4}),
        ({"cutmix": 1.0}, {"blocks": "all"}),
        ({"ema": 0.9}, {}),
        ({"class_weights": "balanced"}, {}),
        ({"class_weights": {"dark": 2.0, "red": 1.0, "stripes": 1.0}}, {}),
        ({"sampler": "balanced"}, {}),
        ({"schedule": "cosine"}, {}),
        ({"schedule": "linear"}, {}),
        ({"warmup": 0.5}, {"schedule": "linear"}),
        ({"schedule": "constant"}, {}),
        ({"bn": "train"}, {}),
        ({"augment": {"flip": 0.5}}, {}),
        ({"augment": "standard"}, {}),
        ({"views": 2}, {"augment": "standard", "epochs": 2}),
        ({"head_multiple": 1.0}, {}),
        ({"layer_decay": 1.0}, {"blocks": 2}),
    ],
    ids=lambda own: ",".join(f"{key}={value}" for key, value in own.items()) or "alone",
)
def test_an_option_changes_what_is_learned_and_is_written_down(fit, fit_once, pictures, own, beside):
    """By itself: what else it needs is said to both runs."""
    rows = pictures(33)  # eleven of each: not a whole number of batches
    plain = fit_once(rows, thaw(**beside))
    run = fit(rows, thaw(**beside, **own))
    stored = run.stages()[0]["settings"]
    assert {key: stored[key] for key in own} == own
    assert not fit.same(fit.weights(run), fit.weights(plain))


def test_accumulating_changes_nothing_but_the_rounding(fit, pictures, monkeypatch):
    from headstart.engine.loop import Loop

    rows, sizes = pictures(33), []
    backward = Loop._backward
    monkeypatch.setattr(
        Loop, "_backward", lambda self, update, micro: sizes.append(micro) or backward(self, update, micro)
    )
    plain, parts = (fit.weights(fit(rows, thaw(accumulate=count))) for count in (1, 4))
    assert set(sizes) == {16, 4}
    assert all(np.allclose(plain[name], value, atol=1e-5) for name, value in parts.items())


def test_no_batch_is_mixed_where_the_probability_is_zero(fit, fit_once, pictures):
    rows = pictures(33)
    plain = fit.weights(fit_once(rows, thaw()))
    mixed = fit.weights(fit(rows, thaw(mixup=0.4, mix_probability=0.0)))
    assert all(np.allclose(plain[name], value, atol=1e-5) for name, value in mixed.items())


def test_the_balanced_sampler_and_balanced_weights_see_the_imbalance(fit, pictures):
    inputs, labels = pictures(60, hard=0.1)
    kept = np.flatnonzero((labels == "dark") | (np.arange(60) < 24))
    rows = inputs[kept], labels[kept]
    runs = [fit(rows, thaw(**own)) for own in ({}, {"sampler": "balanced"}, {"class_weights": "balanced"})]
    found = [fit.weights(run) for run in runs]
    assert not fit.same(found[0], found[1])
    assert not fit.same(found[0], found[2])


def test_rates_of_every_block_reach_the_optimizer(fit, pictures):
    rates = {"stem": 1e-6, "blocks.0": 1e-5, "blocks.1": 2e-5, "blocks.2": 4e-5, "blocks.3": 8e-5, "head": 1e-3}
    run = fit(pictures(30), thaw(blocks="all", rates=rates))
    layers = run.stages()[0]["layers"]
    assert [layer["lr"] for layer in layers] == list(rates.values())


def test_rates_fall_with_depth(fit, pictures):
    run = fit(pictures(30), thaw(blocks=2, lr=1e-3, layer_decay=0.5, head_multiple=4.0))
    by_name = {layer["name"]: layer["lr"] for layer in run.stages()[0]["layers"]}
    assert by_name["blocks.1"] is None
    assert [by_name["blocks.2"], by_name["blocks.3"], by_name["head"]] == [5e-4, 1e-3, 4e-3]


def test_a_block_that_does_not_exist_is_named(fit, pictures):
    with pytest.raises(ConfigError, match=r"blocks\.7"):
        fit(pictures(30), thaw(rates={"blocks.7": 1e-3, "head": 1e-3}))
    with pytest.raises(ConfigError, match="cannot thaw 9 of 4 blocks"):
        fit(pictures(30), thaw(blocks=9), name="nine")


def errors_of_dark(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Share of dark rows that are missed; smaller is better."""
    dark = labels == 0
    return float((probabilities.argmax(1)[dark] != 0).mean())


errors_of_dark.higher_is_better = False  # type: ignore[attr-defined]


def test_an_own_metric_is_measured_judges_and_is_reported(fit, pictures):
    run = fit(
        {"train": pictures(30), "val": pictures(18, 1), "test": pictures(12, 2)}, ["probe"], metric=errors_of_dark
    )
    stage, result = run.stages()[0], run.read("result.json")
    name = stage["verdict"]["metric"]
    assert "errors_of_dark" in name
    assert stage["metrics"]["val"][name]["value"] == 0.0
    assert result["metrics"]["test"][name]["n"] == 12
    assert name in run.frame().columns
    assert name in run._repr_html_()


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (lambda labels, probabilities: float("nan"), "gives nan on"),
        (lambda labels: 1.0, "fails: TypeError"),
        (lambda labels, probabilities: "high", "fails: ValueError"),
    ],
)
def test_an_own_metric_that_gives_no_number_is_told_with_its_signature(fit, pictures, metric, told):
    with pytest.raises(ConfigError) as caught:
        fit(pictures(30), ["probe"], metric=metric)
    assert told in str(caught.value)
    assert "it gets labels (N,)" in caught.value.problems[0].remedy


def test_a_run_with_an_own_metric_judges_other_rows_and_is_exported(fit, pictures):
    rows = pictures(30)
    run = fit(rows, ["probe"], metric=errors_of_dark)
    assert headstart.evaluate(run, pictures(12, 3)).metric("accuracy").n == 12
    assert (headstart.export(run, data=rows, int8=False, seconds=0.05) / "verdict.json").is_file()


def test_an_own_metric_decides_whether_a_stage_is_kept(fit, pictures):
    """A metric that prefers unsure answers turns a verdict round."""

    def doubt(labels: np.ndarray, probabilities: np.ndarray) -> float:
        return float(1 - probabilities.max(1).mean())

    plan = ["probe", {"thaw": {**LAST, "gate": {"on_fail": "revert"}, "label_smoothing": 0.6, "lr": 1e-2}}]
    assert fit(pictures(30), plan).stages()[1]["verdict"]["decision"] == "revert"
    assert fit(pictures(30), plan, metric=doubt).stages()[1]["verdict"]["decision"] == "keep"


def test_an_own_augmentation_draws_what_the_network_learns_from(fit, pictures):
    seen: list[float] = []

    def upside_down(canvas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        seen.append(rng.random())
        return canvas[::-1].copy()

    run = fit(pictures(30), thaw(augment=upside_down, epochs=2))
    assert "upside_down" in run.stages()[0]["settings"]["augment"]
    assert len(seen) == len(set(seen)) >= 2 * 24, "every row and epoch has randomness of its own"


def test_settings_for_the_whole_plan_reach_every_stage(fit, pictures):
    run = fit(pictures(30), ["probe", *thaw(), {"thaw": {"name": "all", "augment": "none"}}], lr=2e-4, epochs=1)
    assert [stage["settings"].get("lr") for stage in run.stages()] == [None, 2e-4, 2e-4]


def test_the_probe_takes_views_and_weights(fit, pictures):
    run = fit(pictures(30), [{"probe": {"views": 3, "class_weights": "balanced", "strengths": [0.01, 1.0]}}])
    assert run.stages()[0]["probe"]["strengths"] == [1.0, 0.01] or run.stages()[0]["probe"]["strengths"] == [0.01, 1.0]


def own_network() -> Any:
    """A network of the user's, "trained": no weight of it is one that initialisation would draw."""
    import torch

    from headstart.models import backbone

    net = backbone.load("builtin/tiny", image_size=32, pretrained=False).module
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01)
    return net


def test_from_scratch_nothing_of_the_backbone_is_left(fit, pictures):
    rows, net = pictures(30), own_network()
    probe = fit.weights(fit(rows, "probe", backbone=net))
    scratch = fit.weights(fit(rows, [{"scratch": {"epochs": 1, "lr": 1e-9}}], backbone=net))
    assert all((probe[f"backbone.module.{name}"] == value).all() for name, value in net.named_parameters())
    assert not any((probe[name] == scratch[name]).all() for name, value in probe.items() if value.dim() == 4)


def test_an_own_module_is_a_backbone_and_its_weights_are_part_of_the_experiment(fit, pictures):
    import headstart
    from headstart.core.errors import ArtefactError

    net, rows = own_network(), pictures(30)
    run = fit(rows, backbone=net)
    with pytest.raises(ArtefactError, match="given as an object"):
        headstart.load(run)
    assert headstart.load(run, allow_module=net).predict(rows[0][:1])[0].label == "dark"
    assert fit(rows, backbone=net).path == run.path
    net.stem[0].weight.data.mul_(2)
    assert fit(rows, backbone=net).path != run.path


def test_the_rate_finder_scales_all_rates_and_leaves_no_trace(fit, pictures, short_sweep, monkeypatch):
    from headstart.core.events import Decision
    from headstart.engine import finder

    rows, recipe = pictures(40, hard=0.3), {"blocks": 2, "lr": 1e-4, "layer_decay": 0.5, "head_multiple": 1.0}
    plain = fit(rows, thaw(**recipe))
    found = fit(rows, thaw(**recipe, find_lr=True))
    decision = next(event for event in fit.said(Decision) if event.topic == "lr of thaw-2")
    before, after = (run.stages()[0]["layers"] for run in (plain, found))
    scales = {round(b["lr"] / a["lr"], 6) for a, b in zip(before, after, strict=True) if a["lr"]}
    assert len(scales) == 1
    assert scales.pop() == pytest.approx(decision.facts["lr"] / 1e-4, rel=1e-4)
    assert decision.facts["low"] <= decision.facts["lr"] <= decision.facts["high"]
    assert [row for row in found.read("decisions.json") if row["topic"] == "lr of thaw-2"]
    original = finder.sweep

    def sweeping_in_vain(*arguments: Any, **own: Any) -> Any:
        from dataclasses import replace

        return replace(original(*arguments, **own), lr=1e-4)

    monkeypatch.setattr(finder, "sweep", sweeping_in_vain)
    traceless = fit(rows, thaw(**recipe, find_lr=True), name="vain")
    assert fit.same(fit.weights(traceless), fit.weights(plain)), "the sweep left its mark"


def test_a_found_rate_is_replayed(fit, pictures, short_sweep, monkeypatch):
    from headstart.engine import finder

    rows, recipe = pictures(40, hard=0.3), thaw(find_lr=True, epochs=2)
    whole = fit(rows, recipe, name="whole")

    def stop(event: Any) -> None:
        if isinstance(event, EpochDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(rows, recipe, listen=stop)
    monkeypatch.setattr(finder, "sweep", lambda *arguments, **own: pytest.fail("swept again"))
    assert fit.same(fit.weights(fit(rows, recipe, resume=True)), fit.weights(whole))


def test_where_no_rate_helps_the_given_one_is_kept_and_it_is_said(fit, pictures, short_sweep, monkeypatch):
    from headstart.core.events import Decision
    from headstart.engine import finder

    monkeypatch.setattr(finder, "_suggest", lambda sweep: None)  # the loss falls in no sweep
    fit(pictures(30), thaw(find_lr=True))
    decision = next(event for event in fit.said(Decision) if event.topic == "lr of thaw-1")
    assert (decision.choice, decision.facts) == ("1.00e-04", {})
    assert "kept as it was" in decision.reason
