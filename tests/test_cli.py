"""The command line: light, frozen verbs, clear errors, exit codes, and files that are safe to open."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from headstart import cli, predictions
from headstart.core.errors import ConfigError, DataError, NothingAccepted

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
        (KeyboardInterrupt(), 130, "resume with: headstart fit 'my photos' lr=1 --resume"),
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


def test_developers_see_the_traceback(failing: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
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


def row(name: str, *scores: tuple[str, float], problem: str = "") -> SimpleNamespace:
    pipeline = [{"label": label, "score": score} for label, score in scores]
    return SimpleNamespace(name=name, scores=scores, problem=problem, as_pipeline=lambda: pipeline)


ROWS = [
    row("a.jpg", ("ant", 0.75), ("bee", 0.25)),
    row("=HYPERLINK(1).jpg", ("@bee", 1.0)),
    row("bad\udc80.jpg", problem="cannot be read [truncated]"),
    row(' +1,"x"\n.jpg', ("-ant", 0.5)),
]


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
        predictions.check_suffix(tmp_path / "out.xlsx")
    with pytest.raises(ConfigError, match=r"\.npz"):
        predictions.write_features(tmp_path / "out.csv", np.ones((1, 1)), ("a",))
    assert cli.run(["predict", str(tmp_path), "x.jpg", "--output", "out.xlsx"]) == 1
