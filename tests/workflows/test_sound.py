"""Recordings the whole way: fit, predict, evaluate, report; stages on tiny random networks that hear."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import headstart
from headstart.core.errors import ConfigError, DataError
from headstart.core.events import Decision, Event, Progress
from headstart.core.run import Run
from headstart.data import sources
from headstart.data.reading.unlabelled import NOTHING
from headstart.data.settings import DataSettings, SplitSettings
from headstart.workflows import preflight

from .. import sounds
from ..models import sounds_zoo

THAW = {"thaw": {"blocks": "all", "epochs": 4, "lr": 2e-3, "batch_size": 16, "views": 2}}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """90 recordings in class folders, of which one is silent, one a copy at another gain and one no sound."""
    place = sounds.folder(tmp_path_factory.mktemp("data") / "recordings")
    (place / "hum" / "voice9_900.wav").write_bytes(b"RIFF this is no sound")
    soundfile.write(place / "hiss" / "voice9_901.wav", np.zeros(4_000, np.float32), sounds.RATE)
    samples, rate = soundfile.read(place / "chirp" / "voice1_001.wav")
    soundfile.write(place / "chirp" / "voice9_902.flac", 0.6 * samples, rate)
    return place


@pytest.fixture(scope="module")
def wav2vec2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sounds_zoo.saved("wav2vec2", tmp_path_factory.mktemp("hearer"))


def fitted(folder: Path, data: Any, backbone: Any, plan: Any, **own: Any) -> Run:
    quick = {"device": "cpu", "precision": "fp32", "output_dir": str(folder), "force": True, "baseline": False}
    quick |= {"max_unreadable": 0.1}
    name = str(backbone) if isinstance(backbone, Path) else backbone
    return headstart.fit(data, backbone=name, plan=plan, **{**quick, **own})


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, recordings: Path, wav2vec2: Path, events: list[Event]) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    return fitted(folder, recordings, wav2vec2, ["probe", THAW], baseline=True, on_event=events.append, test=0.2)


def test_a_run_learns_what_is_heard(run: Run) -> None:
    result = run.read("result.json")
    assert result["metrics"]["val"]["accuracy"]["value"] >= 0.9
    stages = [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]
    assert [stage["name"] for stage in stages] == ["probe", "thaw-all"]
    assert stages[1]["metrics"]["val"]["accuracy"]["value"] >= 0.9
    assert run.read("data.json")["modality"] == "audio"


def test_the_front_end_is_cached_while_everything_else_trains(run: Run, events: list[Event]) -> None:
    told = {event.topic: event for event in events if isinstance(event, Decision)}
    assert "feature_extractor comes first and stays frozen" in told["blocks"].reason
    assert told["frontier cache"].choice == "used"
    assert "1 of 4 blocks stay frozen" in told["frontier cache"].reason
    assert told["inputs"].choice.startswith("mono at 16000 Hz, windows of 1 s")
    assert "holds every row whole" in told["inputs"].reason
    stage = json.loads(next(run.path.glob("stages/01-*/result.json")).read_text())
    assert stage["frozen_blocks"] == 1


def test_what_the_audit_says(run: Run) -> None:
    kinds = {finding["kind"]: finding["names"] for finding in run.read("data.json")["audit"]["findings"]}
    assert kinds["unreadable"] == ["hum/voice9_900.wav"]
    assert kinds["silent"] == ["hiss/voice9_901.wav"]
    assert kinds["near-duplicates"] in (["chirp/voice1_001.wav"], ["chirp/voice9_902.flac"])


def test_recordings_are_not_called_pictures(run: Run, events: list[Event]) -> None:
    assert {event.unit for event in events if isinstance(event, Progress) and event.task == "decode"} == {"recordings"}
    told = [str(getattr(event, "message", "") or getattr(event, "reason", "")) for event in events]
    assert not [text for text in told if "picture" in text or "image" in text]
    with pytest.raises(ConfigError, match="blends pictures, and these rows are recordings"):
        preflight._blends("audio")


def test_the_baseline_of_sounds_is_the_bar(run: Run) -> None:
    told = {row["name"]: row for row in run.read("baseline/result.json")}
    assert "log-mel" in told
    assert (run.path / "baseline" / "log-mel.npz").is_file()


def test_one_model_for_files_samples_tables_and_folders(run: Run, tmp_path: Path) -> None:
    model = headstart.load(run)
    rng = np.random.default_rng(9)
    clips = [sounds.recording(kind, rng, 0.8) for kind in sounds.KINDS]
    files = [tmp_path / "new" / f"{row}.wav" for row in range(3)]
    (tmp_path / "new").mkdir()
    for file, clip in zip(files, clips, strict=True):
        soundfile.write(file, clip, sounds.RATE, subtype="FLOAT")
    answers = model.predict(files)
    scores = [row.score for row in answers]
    assert [row.label for row in answers] == list(sounds.KINDS)
    (tmp_path / "new.csv").write_text("path,other\n" + "".join(f"new/{file.name},1\n" for file in files))
    for source in (
        tmp_path / "new",
        tmp_path / "new.csv",
        [str(file) for file in files],
        tuple(map(str, files)),
        [(clip, sounds.RATE) for clip in clips],
        [(torch.from_numpy(clip)[None], sounds.RATE) for clip in clips],
        [{"array": clip, "sampling_rate": sounds.RATE} for clip in clips],
        [file.read_bytes() for file in files],
    ):
        assert [row.score for row in model.predict(source)] == pytest.approx(scores, abs=1e-6)
    for alone in (files[0], str(files[0]), (clips[0], sounds.RATE), files[0].read_bytes()):
        assert model.predict(alone)[0].score == pytest.approx(scores[0], abs=1e-6)
    assert [row.score for row in model.predict(files[:2])] == pytest.approx(scores[:2], abs=1e-6)
    assert [row.score for row in model.predict(tuple(map(str, files[:2])))] == pytest.approx(scores[:2], abs=1e-6)
    nothing, something = model.predict([b"no sound", files[0]])
    assert "not-sound" in nothing.problem
    assert something.score == pytest.approx(scores[0], abs=1e-6)


def test_a_long_recording_is_heard_to_its_end(run: Run) -> None:
    """A hum of a minute's quarter that begins with a hiss is a hum: the windows are averaged."""
    model = headstart.load(run)
    rng = np.random.default_rng(3)
    hiss, hum = sounds.recording("hiss", rng, 1.0), sounds.recording("hum", rng, 14.0)
    assert model.predict((hiss, sounds.RATE))[0].label == "hiss"
    assert model.predict((np.concatenate([hiss, hum]), sounds.RATE))[0].label == "hum"


def test_evaluating_other_recordings(run: Run, tmp_path: Path) -> None:
    found = headstart.evaluate(run, data=sounds.folder(tmp_path / "other", each=5, seed=7))
    assert found.frame().shape[0] == 15
    assert (found.logits.argmax(1) == found.labels).mean() >= 0.9


def test_the_report_shows_waveforms_and_plays(run: Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert page.count("<audio") == page.count('class="wave"') >= 1
    assert "data:audio/wav;base64," in page
    assert "log-mel" in page


def test_the_users_files_are_unchanged(recordings: Path, run: Run, tmp_path: Path) -> None:
    again = sounds.folder(tmp_path / "again")
    for file in sorted(again.rglob("*.*")):
        assert (recordings / file.relative_to(again)).read_bytes() == file.read_bytes()


def test_a_network_of_the_users_own(tmp_path: Path, recordings: Path) -> None:
    """A table of paths; thawed it is at least as good as its random probe."""
    files = sorted(recordings.rglob("voice[0-4]*"))
    lines = [f"{file},{file.parent.name}\n" for file in files]
    (tmp_path / "rows.csv").write_text("path,label\n" + "".join(lines))
    plan = ["probe", {"thaw": {"blocks": "all", "epochs": 12, "lr": 5e-3, "batch_size": 8}}]
    run = fitted(tmp_path / "runs", tmp_path / "rows.csv", sounds.ear(), plan, test=0.0, val=0.3)
    assert run.read("result.json")["metrics"]["val"]["accuracy"]["value"] >= 0.9
    with pytest.raises(Exception, match=r"own|object"):
        headstart.load(run)
    answers = headstart.load(run, allow_module=sounds.Ear()).predict(files)
    right = [answer.label == file.parent.name for answer, file in zip(answers, files, strict=True)]
    assert np.mean(right) >= 0.9


def test_arrays_with_one_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    clips = [sounds.recording(kind, rng, 0.5) for _ in range(12) for kind in sounds.KINDS]
    run = fitted(tmp_path, (clips, list(sounds.KINDS) * 12), sounds.ear(), "probe", sampling_rate=sounds.RATE)
    assert run.read("data.json")["modality"] == "audio"
    (answer,) = headstart.load(run, allow_module=sounds.Ear()).predict([(clips[1], sounds.RATE)])
    assert answer.label == sounds.KINDS[1]


def test_a_run_on_arrays_reads_arrays_again(tmp_path: Path) -> None:
    """At the rate that it was told, unless another is; bare samples without a rate are refused, not passed over."""
    rng = np.random.default_rng(4)
    clips = [sounds.recording(kind, rng, 0.5) for _ in range(12) for kind in sounds.KINDS]
    labels = list(sounds.KINDS) * 12
    run = fitted(tmp_path, (clips, labels), "builtin/audio", "probe", sampling_rate=sounds.RATE)
    wanted = headstart.predict(run, [(clip, sounds.RATE) for clip in clips[:3]])
    for found in (
        headstart.predict(run, clips[:3]),
        headstart.predict(run, np.stack(clips[:3])),
        headstart.predict(run, clips[:3], sampling_rate=sounds.RATE),
    ):
        assert [each.scores for each in found] == [each.scores for each in wanted]
    alone = headstart.predict(run, clips[0])
    assert (len(alone), dict(alone[0].scores)) == (1, pytest.approx(dict(wanted[0].scores), abs=1e-6))
    assert headstart.predict(run, clips[:3], sampling_rate=2 * sounds.RATE)[0].scores != wanted[0].scores
    assert headstart.embed(run, clips[:3])[0].shape[0] == 3
    with pytest.warns(UserWarning, match="has learned"):
        assert len(headstart.evaluate(run, (clips, labels))) == len(clips)
    for asked in (lambda: headstart.predict(run, clips[:1], sampling_rate=5),
                  lambda: headstart.evaluate(run, (clips, labels), sampling_rate=5)):  # fmt: skip
        with pytest.raises(ConfigError, match="5 is no rate"):
            asked()
    with pytest.raises(ConfigError, match="and no data"):
        headstart.evaluate(run, sampling_rate=8_000)
    headstart.export(run, data=(clips, labels), int8=False)
    again = headstart.load(run.path / "export").predict(clips[:3])
    assert [each.label for each in again] == [each.label for each in wanted]
    files = headstart.load(run)
    files.usual = NOTHING
    with pytest.raises(DataError, match="sampling_rate=16_000"):
        files.predict(clips[:1])
    with pytest.raises(DataError, match="samples without a rate"):
        files.predict([np.stack([clips[0]] * 2, axis=1)])
    assert len(files.predict([np.stack([clips[0]] * 2, axis=1)], sampling_rate=sounds.RATE)) == 1


def test_settings_of_other_rows_are_refused(recordings: Path) -> None:
    others = {"image_size": 64, "max_length": 40, "channels": 1}
    with pytest.raises(ConfigError) as caught:
        headstart.plan(recordings, backbone=sounds.ear(), seconds=1, pooling="mean", **others)
    told = {problem.where: problem.what for problem in caught.value.problems}
    assert set(told) == {"image_size", "data.max_length", "data.channels"}
    assert told["data.max_length"] == "is a setting of texts, and these rows are recordings"
    with pytest.raises(ConfigError, match="files tell their own"):
        headstart.plan(recordings, backbone=sounds.ear(), sampling_rate=8_000)


def test_augmentation_of_pictures_is_refused_for_sounds(tmp_path: Path, recordings: Path, wav2vec2: Path) -> None:
    with pytest.raises(ConfigError, match="flip"):
        fitted(tmp_path, recordings, wav2vec2, ["probe", {"thaw": {"augment": {"flip": 0.5}}}])


def test_a_plan_tells_the_front_end_and_takes_settings_of_sounds(recordings: Path, wav2vec2: Path) -> None:
    stage = {"thaw": {"blocks": "all", "epochs": 4, "augment": {"gain": 3.0}}}
    told = headstart.plan(recordings, backbone=str(wav2vec2), plan=["probe", stage], device="cpu", precision="fp32")
    thaw = told.stages[1]
    assert "last 3 of 4 blocks" in thaw.trains
    told = headstart.plan(
        recordings, backbone=str(wav2vec2), plan=["probe", stage], front_end=True, device="cpu", precision="fp32"
    )
    assert told.stages[1].trains == "everything"


def test_speakers_stay_on_one_side(recordings: Path) -> None:
    """By a part of the file name, in folders and in tables; without it every speaker is on both sides."""

    def speakers(settings: DataSettings) -> dict[str, set[str]]:
        collection = sources.collect(str(recordings), settings, seed=0)
        splits = sources.arranged(collection, sources.divide(collection, settings, seed=0))
        return {
            name: {Path(each).name.partition("_")[0] for each in rows.names} for name, rows in splits.present().items()
        }

    kept = speakers(DataSettings(split=SplitSettings(val=0.2, test=0.2, group_by=r"^(voice\d)_")))
    assert sum(map(len, kept.values())) == len(set().union(*kept.values())) == 6
    mixed = speakers(DataSettings(split=SplitSettings(val=0.2, test=0.2)))  # planted
    assert len(mixed["train"] & mixed["val"]) >= 3


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_end(tmp_path: Path, recordings: Path, wav2vec2: Path) -> None:
    """Live batches with keyed augmentation: the same weights, bit for bit."""
    stage = {"thaw": {"blocks": 0.5, "epochs": 2, "lr": 1e-3, "batch_size": 16, "augment": "strong"}}
    whole = fitted(tmp_path / "whole", recordings, wav2vec2, [stage], test=0.0)

    class Stop(Exception):
        pass

    seen = []

    def stop(event: Event) -> None:
        seen.append(event)
        if type(event).__name__ == "EpochDone":
            raise Stop

    with pytest.raises(Stop):
        fitted(tmp_path / "parts", recordings, wav2vec2, [stage], test=0.0, on_event=stop)
    again = fitted(tmp_path / "parts", recordings, wav2vec2, [stage], test=0.0, resume=True)
    files = [next(each.path.glob("model/model.safetensors")) for each in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
    shutil.rmtree(tmp_path / "parts")
