"""What the documents tell people to type: every command, file and line of Python is one that Headstart takes."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import headstart
from headstart import cli, experiment

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md", ROOT / "pretraining" / "README.md"]
)
GUIDES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
ELIDED = re.compile(r"…|\bRUN\b|--help|^\w+ \w+$")  # a form or a name, not a command to type
FORMS = ("key=value",)  # of settings
SETTLE = ("fit", "plan", "audit")  # verbs that take settings


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in this language; "" are those to type."""
    return [text for found, text in FENCED.findall(page.read_text(encoding="utf-8")) if found == language]


def commands(page: Path) -> Iterator[str]:
    """Every line to type, and every whole one that a sentence names."""
    for block in blocks(page, ""):
        yield from map(str.strip, block.splitlines())
    named = INLINE.findall(FENCED.sub("", page.read_text(encoding="utf-8")))
    yield from (line for line in (" ".join(text.split()) for text in named) if not ELIDED.search(line))


def told(page: Path, *starts: str) -> list[list[str]]:
    """The words behind such a start, of every command."""
    found = []
    for line in commands(page):
        start = next((each for each in starts if line.startswith(f"{each} ")), None)
        if start:
            found.append(shlex.split(line.removeprefix(start), comments=True))
    return found


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The verb of a command line and what it is given, as the program parses it; nothing is run."""
    program: Any = typer.main.get_command(cli.app)
    context = program.make_context("headstart", list(words))
    name, verb, rest = program.resolve_command(context, [*context._protected_args, *context.args])
    return name, verb.make_context(name, rest, parent=context).params


def settled(given: dict[str, Any]) -> experiment.Experiment:
    """The settings of a command line with all that they decide before data are read."""
    flags = ("backbone", "weights", "plan", "name", "output_dir", "seed", "device")
    named = {flag: given[flag] for flag in flags if flag in given}
    found = cli._experiment(given["words"], given["config"], offline=False, **named)
    if found.plan != "auto":
        found.stages(found.data.modality if found.data.modality != "auto" else "image")
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_the_documents_is_one_that_the_program_takes(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in told(page, "headstart", "torchrun --nproc_per_node 2 -m headstart"):
        verb, given = parsed(words)
        if verb in SETTLE:
            settled(given)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_setting_that_a_sentence_names_is_one(page):
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    ours = re.sub(r"^\| .*? \| (?=.* \|$)", "", prose, flags=re.MULTILINE)  # beside what other tools call it
    for text in (" ".join(found.split()) for found in INLINE.findall(ours)):
        if re.fullmatch(r"([a-z_][\w.]*=\S+ ?)+", text) and text not in FORMS:
            experiment.load(None, shlex.split(text)).stages()


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_found(page):
    """A fence of another kind would hide them from these tests."""
    assert {language for language, _ in FENCED.findall(page.read_text(encoding="utf-8"))} <= {"", "python", "yaml"}
    assert len(told(page, "headstart")) >= 10


def test_a_command_that_is_wrong_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    for wrong in ("headstart fit photos/ --bogus 1", "headstart fits photos/", "headstart fit photos/ lrr=1e-3"):
        page.write_text(f"say\n```\n{wrong}   # why\n```\nand `headstart fit RUN`, `headstart fit … x=1`")
        (words,) = told(page, "headstart")
        with pytest.raises(Exception, match=r"bogus|fits|lrr"):
            settled(parsed(words)[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_module_target_and_script_of_the_documents_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in told(page, "make"):
        assert words[0] in targets, words
    for words in told(page, "python -m"):
        assert (ROOT / f"{words[0].replace('.', '/')}.py").exists() or (ROOT / words[0].replace(".", "/")).is_dir()
    for words in told(page, "python"):
        if words[0].endswith(".py"):
            assert (ROOT / words[0]).exists(), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_of_settings_in_the_documents_is_read(page, tmp_path):
    for number, block in enumerate(blocks(page, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block, encoding="utf-8")
        experiment.load(file).stages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_call_in_the_documents_is_of_what_the_package_has(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "headstart":
                assert node.attr in headstart.__all__, f"headstart.{node.attr}"
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "headstart.fit":
                named = {each.arg: each.value for each in node.keywords if each.arg not in (None, "resume")}
                written = {key: ast.literal_eval(item) for key, item in named.items() if _is_plain(item)}
                experiment.load(**written).stages()


def _is_plain(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name | ast.Call | ast.Lambda) for part in ast.walk(node))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target
