"""The command line: light, frozen verbs, clear errors, exit codes, and files that are safe to open."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from headstart import cli, predictions
from headstart.core.errors import ArtefactError, ConfigError, DataError, NothingAccepted
from headstart.measure.evaluation import Evaluation
from headstart.measure.prediction import Prediction

HEAVY = {"torch", "torchvision", "timm", "transformers", "sklearn", "pandas", "datasets", "numpy", "pydantic", "PIL"}


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=120,
    )


LOADED = "import sys; print(' '.join(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)"


@pytest.mark.parametrize(
    "code",
    [
        "import headstart",
        "import headstart.cli",
        "from headstart.cli import run; assert run(['--help']) == 0",
        "from headstart.cli import run; assert run(['--version']) == 0",
    ],
)
def test_looking_loads_nothing_heavy(code: str) -> None:
    done = python(f"{code}; {LOADED}")
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stderr.split())


def test_the_check_on_heavy_imports_would_notice_one() -> None:
    done = python(f"import headstart, numpy; {LOADED}")
    assert {"numpy"} == HEAVY & set(done.stderr.split())


def test_settings_are_checked_without_torch() -> None:
    code = f"from headstart.cli import run; assert run(['fit', 'photos/', 'lr=1e-3', '--explain']) == 0; {LOADED}"
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "command line" in done.stdout
    assert not {"torch", "torchvision", "timm", "transformers", "sklearn", "pandas"} & set(done.stderr.split())


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    import headstart

    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out == f"headstart {headstart.__version__}\n"
    assert cli.run(["--help"]) == 0
    assert "Usage: headstart" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["fitt"], ["fit", "--fast"], ["predict"], ["fit", "--seed", "x"]])
def test_a_mistake_on_the_line_is_exit_code_1(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(arguments) == 1
    assert "Usage: headstart" in capsys.readouterr().err


def test_every_wrong_setting_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fit", "photos/", "lr=x", "lern=2", "bs=8", "photo2/"]) == 1
    told = capsys.readouterr().err
    for part in ("lr: should be a valid number", "lern: unknown setting", "'photo2/' is not key=value"):
        assert part in told
    assert "Traceback" not in told


def test_explain_shows_origins_and_says_aliases(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "pets.yaml"
    file.write_text("plan: full\nseed: 3\n", encoding="utf-8")
    assert cli.run(["fit", "photos/", "--config", str(file), "bs=8", "--explain", "--seed", "4"]) == 0
    shown = capsys.readouterr().out
    assert "'bs' is called 'batch_size' here" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if len(line.split()) > 2}
    assert rows["data.source"] == ["photos/", "command", "line"]
    assert rows["seed"] == ["4", "command", "line"]
    assert rows["batch_size"] == ["8", "command", "line"]
    assert rows["device"] == ["auto", "default"]


def test_the_first_word_is_the_data_and_an_existing_path_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli._experiment(["lr=0.1"], None, offline=False).data.source is None
    assert cli._experiment(["photos", "lr=0.1"], None, offline=False).training == {"lr": 0.1}
    (tmp_path / "seed=3").mkdir()
    experiment = cli._experiment(["seed=3"], None, offline=False)
    assert (experiment.data.source, experiment.seed) == ("seed=3", 42)
    assert cli._experiment(["data=photos"], None, offline=False).data.source == "photos"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``headstart fit`` raises ``failing.error``."""
    box = SimpleNamespace(error=None)

    def experiment(*args: object, **kwargs: object) -> None:
        raise box.error

    monkeypatch.setattr(cli, "_experiment", experiment)
    return box


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            DataError("no such folder", where="photos/", remedy="give the folder"),
            1,
            "error: photos/: no such folder\n  give",
        ),
        (NothingAccepted("no stage beat the baseline"), 2, "no stage beat the baseline"),
        (KeyboardInterrupt(), 130, "the same command goes on: headstart fit 'my photos' lr=1"),
        (RuntimeError("odd"), 1, "error: RuntimeError: odd"),
        (MemoryError(), 1, "--traceback"),
    ],
)
def test_exit_codes(
    failing: SimpleNamespace, error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = error
    assert cli.run(["fit", "my photos", "lr=1"]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("beaten_by", "code"), [("pixels", 2), (None, 0)])
def test_a_run_that_the_baseline_beats_is_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    beaten_by: str | None,
    code: int,
) -> None:
    from headstart.core.run import Run
    from headstart.workflows import fit

    run = Run(tmp_path / "run")
    run.write("result.json", {"best": "probe", "beaten_by": beaten_by})
    monkeypatch.setattr(fit, "fit", lambda *given, **named: run)
    assert cli.run(["fit", "photos/"]) == code
    assert ("no stage beat the baseline 'pixels'" in capsys.readouterr().out) == (code == 2)


def test_developers_see_the_traceback(failing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.core.process.prepare", lambda: None)  # this process is not the command's own
    failing.error = DataError("no such folder")
    with pytest.raises(DataError):
        cli.run(["fit", "photos"], traceback=True)
    monkeypatch.setattr(sys, "argv", ["headstart", "fit", "photos", "--traceback"])
    with pytest.raises(DataError):
        cli.main()
    monkeypatch.setattr(sys, "argv", ["headstart", "fit", "photos"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()


def test_a_closed_pipe_is_no_error() -> None:
    code = "import sys; from headstart.cli import main; sys.argv = ['headstart', 'fit', '--explain']; main()"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_costs_no_run(tmp_path: Path) -> None:
    for label, level in (("dark", 20), ("light", 230)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(8):
            noise = np.random.default_rng([level, number]).integers(0, 20, (24, 24, 3))
            Image.fromarray((noise + level).astype(np.uint8)).save(tmp_path / "photos" / label / f"{number}.png")
    words = ["fit", "photos", "--backbone", "builtin/tiny", "--plan", "probe", "--name", "run", "force=true"]
    code = f"import sys; from headstart.cli import main; sys.argv = ['headstart', *{words}]; main()"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, cwd=tmp_path)
    os.close(writer)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "what is shown here arrives nowhere any more; the work goes on\n"
    assert (tmp_path / "runs" / "run" / "report.html").is_file()


def row(name: str, *scores: tuple[str, float], problem: str = "") -> Prediction:
    return Prediction(name, scores, problem)


ROWS = [
    row("a.jpg", ("ant", 0.75), ("bee", 0.25)),
    row("=HYPERLINK(1).jpg", ("@bee", 1.0)),
    row("bad\udc80.jpg", problem="cannot be read [truncated]"),
    row(' +1,"x"\n.jpg', ("-ant", 0.5)),
]


def test_no_probability_is_written_as_certain_that_is_not(tmp_path: Path) -> None:
    """Who computes a log-loss from the file would find it infinite."""
    file = tmp_path / "out.csv"
    predictions.write(file, [row("a.jpg", ("ant", 1 - 1e-9), ("bee", 1e-9)), row("b.jpg", ("ant", 1.0))], 2)
    with open(file, encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert [rows[1][2], rows[1][4], rows[2][2]] == ["0.999999999", "1e-09", "1.000000"]


def test_csv_of_predictions_is_safe_in_a_spreadsheet(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    predictions.write(file, ROWS, 2)
    with open(file, encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows[0] == ["file", "label", "score", "label_2", "score_2", "problem"]
    assert rows[1] == ["a.jpg", "ant", "0.750000", "bee", "0.250000", ""]
    assert rows[2] == ["'=HYPERLINK(1).jpg", "'@bee", "1.000000", "", "", ""]
    assert rows[3] == ["bad\\udc80.jpg", "", "", "", "", "cannot be read [truncated]"]
    assert rows[4][:2] == ['\' +1,"x"\n.jpg', "'-ant"]
    assert not [cell for line in rows for cell in line if cell.startswith(predictions.FORMULA)]


def test_numbers_stand_as_they_are_and_what_is_quoted_is_told(tmp_path: Path) -> None:
    numbers = [row("a", ("-1", 0.5)), row("b", ("+2.5e-3", 0.5)), row("c", ("-.5", 0.5))]
    assert predictions.write(tmp_path / "out.csv", numbers, 1) == ""
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as opened:
        assert [line[1] for line in csv.reader(opened)] == ["label", "-1", "+2.5e-3", "-.5"]
    told = predictions.write(tmp_path / "out.csv", [*numbers, row("@user", ("-1+1", 0.5))], 1)
    assert told.startswith("2 cells begin with an apostrophe")
    assert predictions.write(tmp_path / "out.csv", [row("-", ("1", 0.5))], 1).startswith("1 cell begins")
    assert predictions.write(tmp_path / "out.jsonl", [row("@user", ("-1+1", 0.5))], 1) == ""


def test_answers_are_written_before_anything_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Evaluation("val", np.arange(2), np.eye(2), np.array([0, 1]), ("a", "b"))
    monkeypatch.setattr("headstart.workflows.evaluate.evaluate", lambda *_, **__: found)

    def gone(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("headstart.results.evaluation", gone)
    assert cli.run(["evaluate", "runs/none", "--output", str(tmp_path / "out.csv")]) == 1
    assert (tmp_path / "out.csv").read_text().count("\n") == 3


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_an_output_that_takes_nothing_is_no_bug(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cli, "app", full)
    assert cli.run(["audit", "photos"]) == 1
    said = capsys.readouterr().err
    assert said == f"error: the disk, or what this command shows: {os.strerror(number)}\n"


def test_json_lines_of_predictions(tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    predictions.write(file, ROWS, 1)
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert lines[0] == {"file": "a.jpg", "predictions": [{"label": "ant", "score": 0.75}]}
    assert lines[2] == {"file": "bad\udc80.jpg", "predictions": [], "problem": "cannot be read [truncated]"}
    assert len(lines) == len(ROWS)


def test_features_are_arrays_without_pickle(tmp_path: Path) -> None:
    file = tmp_path / "features.npz"
    predictions.write_features(file, np.ones((2, 3), np.float32), ("a.jpg", "é.jpg"))
    with np.load(file, allow_pickle=False) as loaded:
        assert loaded["features"].shape == (2, 3)
        assert list(loaded["names"]) == ["a.jpg", "é.jpg"]


def test_an_unknown_kind_of_file_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.csv or \.jsonl"):
        predictions.check(tmp_path / "out.xlsx", predictions.TEXTS)
    with pytest.raises(ConfigError, match=r"\.npz"):
        predictions.write_features(tmp_path / "out.csv", np.ones((1, 1)), ("a",))
    assert cli.run(["predict", str(tmp_path), "x.jpg", "--output", "out.xlsx"]) == 1


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["fit", "photos", "--output-dir", "{}"], "--output-dir"),
        (["demo", "--output-dir", "{}/deeper"], "--output-dir"),
        (["predict", "run", "x.jpg", "-o", "{}/out.csv"], "--output"),
        (["predict", "run", "x.jpg", "-o", "folder.csv"], "--output"),
        (["predict", "run", "x.jpg", "-o", "folder"], "--output"),
        (["embed", "run", "x.jpg", "-o", "{}/out.npz"], "--output"),
        (["evaluate", "run", "-o", "{}/out.jsonl"], "--output"),
    ],
)
def test_a_place_that_cannot_be_written_to_is_refused_before_any_work(
    arguments: list[str],
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").write_text("mine", encoding="utf-8")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "folder").mkdir()
    assert cli.run([word.format("a file") for word in arguments]) == 1
    told = capsys.readouterr().err
    assert f"choose another place with {option}" in told
    assert "should not happen" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a file", "folder", "folder.csv"]


def test_a_full_disk_is_no_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(predictions.manifest, "write_atomically", full)
    with pytest.raises(ArtefactError, match=r"out\.csv: cannot write here \(No space left on device\)"):
        predictions.write(tmp_path / "out.csv", ROWS, 1)


def test_an_error_of_the_machine_is_told_with_its_place(
    failing: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.error = PermissionError(errno.EACCES, "Permission denied", "runs/x.json")
    assert cli.run(["fit", "photos"]) == 1
    assert capsys.readouterr().err == "error: runs/x.json: Permission denied\n"


def test_only_one_data_source_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["fit", "photos/", "more/"]) == 1
    assert "only one data source can be given" in capsys.readouterr().err


def test_texts_stand_whole_beside_their_rows(tmp_path: Path) -> None:
    long = "a film,\nand " + "very " * 40 + "good"
    rows = [
        Prediction("row 0", (("good", 0.75),), texts=(long,)),
        Prediction("row 1", (("bad", 0.5),), texts=("=a", "b")),
        Prediction("row 2", problem="is empty"),
    ]
    predictions.write(tmp_path / "out.csv", rows, 1)
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        first, second, third = csv.DictReader(file)
    assert (first["file"], first["text"], first["text_pair"], first["label"]) == ("row 0", long, "", "good")
    assert (second["text"], second["text_pair"]) == ("'=a", "b")
    assert (third["text"], third["problem"]) == ("", "is empty")
    predictions.write(tmp_path / "out.jsonl", rows, 1)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line.get("text") for line in lines] == [long, "=a", None]
    assert [line.get("text_pair") for line in lines] == [None, "b", None]


def test_what_was_not_read_does_not_count_as_predicted() -> None:
    assert predictions.summary(ROWS, Path("o.csv")) == (
        "3 predictions in o.csv, 1 row could not be read (named in the file)"
    )
    assert predictions.summary(ROWS[:2], Path("o.csv")) == "2 predictions in o.csv"


@pytest.mark.parametrize(
    ("asked", "classes", "whole", "labels"),
    [
        (None, 3, False, 1),
        (None, 3, True, 3),
        (None, 20, True, 20),
        (None, 21, True, 1),
        (2, 3, True, 2),
        (9, 3, False, 3),
    ],
)
def test_how_many_labels_a_file(asked: int | None, classes: int, whole: bool, labels: int) -> None:
    assert predictions.labels_a_file(asked, classes, whole=whole) == labels
    several = predictions.labels_a_file(asked, classes, whole=whole, several=True)
    assert several == (None if asked is None else labels), "of several labels those that a row has, unless told"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_answers_are_written_with_the_names_of_their_files(tmp_path: Path, suffix: str) -> None:
    logits = np.array([[4.0, 0.0], [3.0, 0.0]], np.float32)
    answers = Evaluation("test", np.array([0, 2]), logits, np.array([0, 1]), ("ant", "=bee"), ("a.jpg", "no", "=c.jpg"))
    predictions.write_answers(tmp_path / f"out{suffix}", answers)
    assert list(answers.frame()["name"]) == ["a.jpg", "=c.jpg"]
    lines = (tmp_path / f"out{suffix}").read_text(encoding="utf-8").splitlines()
    if suffix == ".csv":
        assert lines[0] == "file,label,predicted,confidence,correct,loss"
        assert lines[2].startswith("'=c.jpg,'=bee,ant,0.952574,false,3.0485")
    else:
        found = json.loads(lines[1])
        assert (found["file"], found["label"], found["predicted"]) == ("=c.jpg", "=bee", "ant")
        assert found["correct"] is False


def test_an_audit_tells_what_reading_the_data_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee", "Bee"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(8):
            Image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(tmp_path / f"photos/{name}/{index}.png")
    cli.run(["audit", str(tmp_path / "photos")])
    told = capsys.readouterr().out
    assert "'Bee'" in told
    assert "'bee'" in told


def test_a_backbone_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "builtin/tinny"]) == 1
    assert "no backbone is called 'builtin/tinny', did you mean 'builtin/tiny'?" in capsys.readouterr().err


@pytest.mark.parametrize("spelled", ["texts/new.csv", "texts/../texts/new.csv"])
def test_what_is_read_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str], spelled: str) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    table = folder / "new.csv"
    table.write_text("text\na film\n")
    output = f"{tmp_path}/{spelled}"
    for words in (["predict", "runs/x", str(table)], ["evaluate", "runs/x", "--data", str(table)]):
        assert cli.run([*words, "--output", output]) == 1
        assert "would be written over" in " ".join(capsys.readouterr().err.split())
    assert table.read_text() == "text\na film\n"
