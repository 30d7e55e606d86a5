"""The benchmarks: their tables are what the results give, and the transfer table runs from end to end on toys."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports a module of the folder beside the tests."""
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    return lambda name: importlib.import_module(f"benchmarks.{name}")


@pytest.fixture
def results() -> dict:
    """Two sets, two seeds."""
    runs = [
        {
            "key": {"set": name, "seed": seed, "strategy": strategy},
            "accuracy": {"val": 0.1, "test": accuracy + 0.02 * seed},
            "seconds": 12.0 + seed,
            "threads": 1,
            "machine": "m",
            "reference_ms": [10.0, 13.0 if seed else 11.0],
        }
        for name in ("photo", "mnist")
        for seed in (0, 1)
        for strategy, accuracy in (("probe", 0.9), ("scratch", 0.5))
    ]
    machine = {"cpu": "Test", "cores": 2, "flags": ["avx2"], "python": "3.11", "packages": {"torch": "2"}}
    return {"machines": {"m": machine}, "runs": runs}


@pytest.mark.parametrize("page", ["README.md", "benchmarks/README.md"])
def test_the_committed_tables_are_what_the_results_give(page: str, benchmarks: Callable[[str], ModuleType]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert benchmarks("tables").filled(text) == text, "run python -m benchmarks.tables"


def test_every_table_has_a_place(benchmarks: Callable[[str], ModuleType]) -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- table:([\w-]+) -->", text)) == set(benchmarks("tables").TABLES)


def test_a_table_tells_means_intervals_and_medians(benchmarks: Callable[[str], ModuleType], results: dict) -> None:
    text = benchmarks("tables").transfer_table(results)
    # 0.90 and 0.92: mean 0.91; t(1) = 12.706 times 0.0141 / sqrt(2) = 0.127
    assert "| PACS photo | .910 ± .127<br>12 s | .510 ± .127<br>12 s |" in text
    assert "| hymenoptera | – | – |" in text
    for told in ("over 2 seeds", "Test, 2 cores", "1 thread.", "during 4 of 8 runs"):
        assert told in text


def test_gains_are_paired_by_seed(benchmarks: Callable[[str], ModuleType], results: dict) -> None:
    text = benchmarks("tables").gain_table(results)
    assert "| PACS photo | +.400 ± .000 |" in text  # the seeds' own spread is gone


def test_a_typed_number_is_noticed(benchmarks: Callable[[str], ModuleType], tmp_path: Path, results: dict) -> None:
    (tmp_path / "transfer.json").write_text(json.dumps(results))
    page = benchmarks("tables").filled("<!-- table:transfer -->\n<!-- /table -->\n", tmp_path)
    assert page == benchmarks("tables").filled(page, tmp_path)
    assert benchmarks("tables").filled(page.replace(".910", ".990"), tmp_path) != page.replace(".910", ".990")


def test_results_go_on_where_they_stopped(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    record = benchmarks("record")
    path = tmp_path / "results.json"
    record.Results(path, "toy", {"size": 8}).add({"seed": 0}, {"accuracy": 0.5})
    again = record.Results(path, "toy", {"size": 8})
    again.add({"seed": 1}, {"accuracy": 0.6})
    assert [run["accuracy"] for run in json.loads(path.read_text())["runs"]] == [0.5, 0.6]
    assert again.find({"seed": 0}) is not None
    assert again.find({"seed": 2}) is None
    with pytest.raises(SystemExit, match="other settings"):
        record.Results(path, "toy", {"size": 16})


def test_files_of_one_benchmark_are_laid_together(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    record = benchmarks("record")
    for name, seed in (("a", 0), ("b", 1), ("other", 2)):
        record.Results(tmp_path / f"{name}.json", "toy", {"size": 8 + seed // 2}).add(
            {"seed": seed}, {"accuracy": seed}
        )
    record.merge([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert [run["accuracy"] for run in whole["runs"]] == [0, 1]
    assert {run["machine"] for run in whole["runs"]} == set(whole["machines"])
    with pytest.raises(SystemExit, match="other settings"):
        record.merge([tmp_path / "other.json"], tmp_path / "whole.json")


def test_a_failing_process_is_told_with_its_output(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    record = benchmarks("record")
    with pytest.raises(RuntimeError, match="out of luck"):
        record.measured([sys.executable, "-c", "raise SystemExit('out of luck')"], log=tmp_path / "log")
    costs = record.measured([sys.executable, "-c", "sum(range(10**6))"], log=tmp_path / "log")
    assert costs["peak_rss_mb"] > 1
    assert len(costs["reference_ms"]) == len(costs["copy_ms"]) == 2


def test_a_busy_host_shows_in_a_product_or_a_copy(benchmarks: Callable[[str], ModuleType]) -> None:
    record = benchmarks("record")

    def run(product: float, copy: float | None, machine: str = "m") -> dict:
        told = {"machine": machine, "threads": 2, "reference_ms": [product, product]}
        return told if copy is None else told | {"copy_ms": [copy, copy]}

    runs = [run(10, 20), run(13, 20), run(10, 26), run(12, 24), run(12, None), run(13, None), run(5, 5, "other")]
    assert [record.disturbed(each, runs) for each in runs] == [False, True, True, False, False, True, False]


def test_a_folder_has_a_digest_of_names_and_contents(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    digest = benchmarks("assets").digest
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.txt").write_text("one")
    first = digest(tmp_path)
    assert digest(tmp_path) == first
    (tmp_path / "a" / "1.txt").rename(tmp_path / "a" / "2.txt")
    second = digest(tmp_path)
    (tmp_path / "a" / "2.txt").write_text("two")
    assert len({first, second, digest(tmp_path)}) == 3


@pytest.mark.real
def test_the_real_data_are_those_the_tables_name(benchmarks: Callable[[str], ModuleType], shared_data: Path) -> None:
    assets = benchmarks("assets")
    for name, asset in assets.ASSETS.items():
        assert assets.digest(shared_data / name) == asset.sha256, name


def pairs(side: str, *seconds: float, **facts: object) -> list[dict]:
    """Runs of one side, pair after pair."""
    common = {"machine": "m", "threads": 1, "reference_ms": [10.0, 10.0], "peak_rss_mb": 500.0}
    return [
        {"key": {"job": "mobilenet_v2", "pair": pair, "side": side}, "seconds": took, **common, **facts}
        for pair, took in enumerate(seconds)
    ]


def test_ratios_are_taken_pair_by_pair(benchmarks: Callable[[str], ModuleType], results: dict) -> None:
    speed = benchmarks("speed")
    epochs = [{"accuracy": 0.5, "seconds": 30.0}, {"accuracy": 0.9, "seconds": 60.0}]
    runs = pairs("headstart", 10.0, 20.0, accuracy={"val": 0.8})
    runs += pairs("plain", 90.0, 100.0, accuracy={"val": 0.9}, epochs=epochs)
    runs += pairs("strong", 30.0, accuracy={"val": 0.7}, epochs=epochs[:1])
    found = {**results, "runs": runs}
    assert speed.ratios(found, "headstart", "plain", job="mobilenet_v2") == [9.0, 5.0]
    assert speed.ratios(found, "headstart", "strong", job="mobilenet_v2") == [3.0], "a pair without a peer has no ratio"
    settings = {"epochs": 4, "views": 2, "batch_size": 16, "image_size": 224}
    text = speed.gradual_table({**found, "settings": settings})
    assert (
        "| MobileNetV2 | plain | 95.0 s (90.0 … 100.0, 2 runs) | .900 ± .000 | 7.0x (5.0 … 9.0) | 3x | 60 s |" in text
    )
    assert "| 3.0x |  | never |" in text


def test_the_second_of_equal_accuracy(benchmarks: Callable[[str], ModuleType]) -> None:
    first = benchmarks("record").first_reaching
    epochs = [{"accuracy": 0.5, "seconds": 1.0}, {"accuracy": 0.9, "seconds": 2.0}, {"accuracy": 0.9, "seconds": 3.0}]
    assert first(epochs, 0.9) == 2.0
    assert first(epochs, 0.91) is None


def test_extrapolated_runs_are_marked_and_tell_no_accuracy(benchmarks: Callable[[str], ModuleType]) -> None:
    epochs = [{"accuracy": 0.5, "seconds": 20.0 + 8 * index} for index in range(3)]
    facts = {"seconds": 37.0, "cpu_seconds": 70.0, "accuracy": {"val": 0.5}, "epochs": epochs}
    found = benchmarks("probe").extrapolated(facts, 25)
    assert found["seconds"] == 37.0 + 22 * 8.0
    assert found["extrapolated"] == {"epochs_timed": 3, "measured_seconds": 37.0, "epoch_seconds": 8.0}
    assert not {"accuracy", "cpu_seconds"} & set(found)


def test_the_probe_table_tells_times_and_limits(benchmarks: Callable[[str], ModuleType], results: dict) -> None:
    speed = benchmarks("speed")
    runs = []
    for side, seconds in (("headstart cold", 10.0), ("headstart warm", 5.0), ("tutorial", 300.0)):
        runs += [{**run, "key": {"set": "photo", "pair": 0, "side": side}} for run in pairs(side, seconds)]
        runs[-1] |= {"accuracy": {"val": 0.9}}
    runs.append({**runs[-1], "key": {"set": "photo", "pair": 1, "side": "tutorial"}, "extrapolated": {}})
    del runs[-1]["accuracy"]
    for seed in range(2):
        key = {"set": "photo", "seed": seed, "side": "headstart"}
        runs.append({**runs[0], "key": key, "limit": {"share": 0.4}, "warm_limit": {"share": 0.5 + 0.2 * seed}})
        told = {"accuracy": {"val": 0.92}, "last_accuracy": {"val": 0.8}}
        runs.append({**runs[0], "key": {**key, "side": "tutorial, strong"}, **told})
    found = {**results, "runs": runs}
    text = speed.probe_table(found)
    assert "| photo | tutorial | 300.0 s (300.0 … 300.0, 2 runs) | .900 | 500 MB | 30.0x | 60.0x |" in text
    assert "1 runs of the tutorial are extrapolated" in text
    silent = {key: value for key, value in runs[3].items() if key != "accuracy"}  # where none ran in full
    runs.append({**silent, "key": {"set": "other", "pair": 0, "side": "tutorial"}, "extrapolated": {}})
    assert "| other | tutorial |" in speed.probe_table(found)
    assert "| photo | headstart | .900 ± .000 |  | 2 | 40 % | 60 % |" in speed.accuracy_table(found)
    assert "| photo | tutorial, strong | .920 ± .000 | .800 ± .000 | 2 |  |  |" in speed.accuracy_table(found)
    assert "| photo | difference | -.020 ± .000 | +.100 ± .000 | 2 |  |  |" in speed.accuracy_table(found)


def test_the_bounds_of_a_cache(benchmarks: Callable[[str], ModuleType]) -> None:
    bounds = benchmarks("frontier").bounds
    warm, cold = bounds(0.2, epochs=5)
    assert warm == pytest.approx(1.4 / 0.6)
    assert cold == pytest.approx(5 * 1.4 / (0.8 + 5 * 0.6)), "one pass below the frontier, then five above it"
    assert bounds(0.2, epochs=5, views=2)[1] < cold < warm
    assert bounds(1.0, epochs=5) == (1.0, 1.0), "nothing is frozen: nothing to gain"


def test_the_share_of_work_is_that_of_the_formula(benchmarks: Callable[[str], ModuleType]) -> None:
    frontier = benchmarks("frontier")
    for u in (0.1, 0.5, 0.9):  # a backward pass that costs two forward ones
        assert frontier.share_of_work(1 - u, 3 * u) == pytest.approx(u)
    below, above = 2.0, 6.0  # any other: what a step costs without the cache, over what it costs with it
    assert frontier.bounds(frontier.share_of_work(below, above), 8)[0] == pytest.approx((below + above) / above)


def test_the_slope_of_time(benchmarks: Callable[[str], ModuleType]) -> None:
    slope = benchmarks("scale").slope
    assert slope((1e3, 5.0), (1e4, 50.0)) == pytest.approx(1.0)
    assert slope((1e3, 5.0), (1e4, 500.0)) == pytest.approx(2.0), "a planted quadratic step is seen"


def test_drawn_pictures_are_all_different(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    scale = benchmarks("scale")
    scale.draw(tmp_path / "pictures", 60)
    files = sorted((tmp_path / "pictures").glob("*/*.jpg"))
    assert len(files) == 60
    assert len({file.parent.name for file in files}) == scale.CLASSES
    assert len({file.read_bytes() for file in files}) == 60


def test_the_schedule_of_the_peer_is_ours(benchmarks: Callable[[str], ModuleType]) -> None:
    from headstart.stages import plans

    gradual = benchmarks("gradual")
    stages = plans.parse(gradual.plan("mobilenet_v2", epochs=3, views=2))
    assert [stage.method for stage in stages] == [stage.method for stage in plans.PLANS["gradual"]]
    for stage, named in zip(stages[1:], plans.PLANS["gradual"][1:], strict=True):
        assert (stage.epochs, stage.patience, stage.gate.on_fail) == (3, None, "warn")
        assert (stage.lr, stage.blocks, stage.layer_decay) == (named.lr, named.blocks, named.layer_decay)
        assert stage.batch_size == gradual.BATCH_SIZE
    ours = {"blocks": [str(index) for index in range(8)], "stages": [{"thawed": n} for n in (0, 2, 4, 8)]}
    told = gradual.schedule(ours, 3)
    assert [stage["blocks"] for stage in told["stages"]] == [0, 2, 4, 8]
    assert [stage["epochs"] for stage in told["stages"]] == [3, 3, 3, 3]
    assert [stage["lr"] for stage in told["stages"][1:]] == [stage.lr for stage in plans.PLANS["gradual"][1:]]
    fine = plans.parse(gradual.plan("fine_tune", epochs=3, views=2))
    assert [(stage.method, getattr(stage, "epochs", 0)) for stage in fine] == [("probe", 0), ("thaw", 4)]


def test_the_peer_thaws_the_same_parameters(benchmarks: Callable[[str], ModuleType], tmp_path: Path) -> None:
    from argparse import Namespace

    peer = benchmarks("peers.gradual")
    model, head = peer.network(Namespace(network="resnet18", weights=None), 3)
    blocks = ["layer1", "layer2", "layer3", "layer4"]
    stage = {"blocks": 1, "lr": 1e-3, "layer_decay": 0.5, "head_multiple": 1.0}
    found = peer.groups(model, head, stage, blocks)
    trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trains} == {"layer4", "fc"}
    everything = peer.groups(model, head, {**stage, "blocks": 4}, blocks)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert sum(len(part["params"]) for part in everything) == len(list(model.parameters()))
    assert [part["lr"] for part in found] == [1e-3, 1e-3]
    assert [part["lr"] for part in everything] == [1e-3, 1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5]


@pytest.mark.slow
def test_transfer_runs_on_toys(
    benchmarks: Callable[[str], ModuleType],
    toy_photos: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Processes of their own, as in a real run; the baseline and one plan suffice here."""
    transfer = benchmarks("transfer")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = toy_photos(classes=3, size=32, splits={"train": 14, "val": 6, "test": 6})
    line = ["transfer", "--quick", str(folder), "--output", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", [*line, "--strategies", "baseline", "gradual"])
    with pytest.raises(SystemExit) as ended:
        transfer.main()
    assert ended.value.code == 0
    found = {run["key"]["strategy"]: run for run in json.loads((tmp_path / "out.json").read_text())["runs"]}
    assert set(found) == {"baseline", "gradual"}
    assert all(benchmarks("tables").judged(run) == run["accuracy"]["test"] for run in found.values())
    assert found["gradual"]["accuracy"]["test"] > 1 / 3
    assert found["gradual"]["stages"][0]["name"] == "probe"
    assert found["gradual"]["peak_rss_mb"] > 50


@pytest.mark.real
def test_sounds_are_judged_on_other_folds_takes_and_speakers(
    benchmarks: Callable[[str], ModuleType], shared_data: Path
) -> None:
    sound = benchmarks("sound")

    def parts(name: str, seed: int, place: int) -> list[set[str]]:
        given = sound.rows(name, seed)
        return [{re.split("[-_]", Path(path).stem)[place] for path, _ in given[split]} for split in ("train", "test")]

    assert parts("esc10", 0, 0) == [{"1"}, {"2"}]
    assert parts("digits", 0, 2)[1] == {"0", "1", "2", "3", "4"}
    for seed in range(3):
        train, test = parts("speakers", seed, 1)
        assert len(test) == 1
        assert not train & test
    assert benchmarks("encoders").yamnet().spec.form == "waveform"
