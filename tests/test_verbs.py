"""The verbs of the command line by themselves: their exit codes, and what they do unless told otherwise."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from headstart import cli, tables
from headstart.measure.prediction import Prediction


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``stand_in("push.push", value)``: a workflow that gives a value, and the list of what it is called with."""

    def put(name: str, value: Any) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []
        module, _, function = name.partition(".")
        found = importlib.import_module(f"headstart.workflows.{module}")
        monkeypatch.setattr(found, function, lambda *given, **options: asked.append(options) or value)
        return asked

    return put


@pytest.mark.parametrize(("read", "code"), [(2, 0), (1, 0), (0, 1)])
def test_predict_fails_where_nothing_could_be_read(stand_in: Any, read: int, code: int) -> None:
    rows = [Prediction("a.jpg", (("ant", 0.9),))] * read + [Prediction("b.jpg", (), "cannot be read")] * (2 - read)
    model = SimpleNamespace(classes=("ant", "bee"), several=False, predict=lambda *given, **options: rows)
    stand_in("predict.answerer", model)
    assert cli.run(["predict", "runs/photos", "new"]) == code


@pytest.mark.parametrize("wrong", [False, True])
def test_audit_and_plan_tell_where_no_training_should_start(
    stand_in: Any, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    problems = ["something"] * wrong
    splits = SimpleNamespace(present=dict, counts=dict)
    stand_in("audit.audit", (splits, SimpleNamespace(findings=[], checked=3, errors=problems)))
    stand_in("plan.plan", SimpleNamespace(problems=problems))
    for name in ("counts", "findings", "plan"):
        monkeypatch.setattr(tables, name, lambda *given: "")
    assert cli.run(["audit", "photos"]) == (2 if wrong else 0)
    assert cli.run(["plan", "photos"]) == (2 if wrong else 0)


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("warning", 0), ("error", 1)])
def test_doctor_fails_where_something_does_not_work(stand_in: Any, status: str, code: int) -> None:
    asked = stand_in("doctor.examine", [SimpleNamespace(topic="a", name="b", value="c", remedy="", status=status)])
    assert cli.run(["doctor", "--offline"]) == code
    assert asked == [{"hub": False}]


def test_a_push_is_private_and_a_server_is_of_this_machine_unless_told(stand_in: Any) -> None:
    pushed = stand_in("push.push", SimpleNamespace(files={}, address="there", folder="here"))
    assert cli.run(["push", "runs/photos", "me/pets"]) == 0
    assert cli.run(["push", "runs/photos", "me/pets", "--public", "--update", "--dry-run"]) == 0
    told = [(each["private"], each["update"], each["dry_run"], each["allow_module"]) for each in pushed]
    assert told == [(True, False, False, False), (False, True, True, False)]
    server = SimpleNamespace(answer=lambda on_start: (3, 0))
    served = stand_in("serve.prepare", server)
    assert cli.run(["serve", "runs/photos"]) == 0
    assert cli.run(["serve", "runs/photos", "--host", "0.0.0.0", "--allow-host", "pets.example"]) == 0
    told = [(each["host"], each["port"], list(each["names"])) for each in served]
    assert told == [("127.0.0.1", 8000, []), ("0.0.0.0", 8000, ["pets.example"])]
