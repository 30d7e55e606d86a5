"""The house stands: layers import downwards only, siblings do not know each other, and what is light stays light."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "headstart"
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import what is lower, or what lies in its own folder. Longest match wins.
RANK = {
    "headstart.core": 0,
    "headstart.measure": 1,
    "headstart.data": 2,
    "headstart.models": 3,
    "headstart.tasks": 3,
    "headstart.stages": 4,
    "headstart.engine": 5,
    "headstart.report": 6,
    "headstart.trackers": 6,
    "headstart.deploy": 6,
    "headstart.aliases": 7,
    "headstart.experiment": 7,
    "headstart.terminal": 7,
    "headstart.tables": 7,
    "headstart.results": 7,
    "headstart.verdicts": 7,
    "headstart.shipping": 7,
    "headstart.predictions": 7,
    "headstart.workflows": 7,
    "headstart.options": 7,
    "headstart.cli": 8,
    "headstart": 8,
}
# What must not load torch, or anything as heavy, just by being imported.
LIGHT = (
    "core",
    "measure",
    "data",
    "report",
    "aliases",
    "cli",
    "experiment",
    "terminal",
    "tables",
    "results",
    "predictions",
    "verdicts",
    "shipping",
    "options",
    "__init__",
)
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "accelerate",
    "sklearn",
    "scipy",
    "pandas",
    "datasets",
    "pyarrow",
}
SLOW = HEAVY - {"torch"}  # nowhere at module level, whatever the layer
SIBLINGS = ("data/modalities", "models/backbones", "stages/methods", "tasks", "trackers")
# One kind of backbone may be found inside another: a folder that transformers wrote, a timm network on the Hub.
INSIDE = {("local", "transformers"), ("transformers", "timm"), ("builtin", "timm"), ("builtin", "transformers")}
WINGS = ("headstart.report", "headstart.trackers", "headstart.deploy")


def module_name(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.AST, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """Imported modules with their lines; ``top_level`` leaves out functions and ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if top_level and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            if not top_level:
                continue  # types may be named upwards; nothing is loaded
            for other in node.orelse:
                yield from imports(other, top_level=True)
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module), node.lineno
            if str(node.module).startswith("headstart"):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    if (SOURCE.parent / name.replace(".", "/")).with_suffix(".py").is_file() or (
                        SOURCE.parent / name.replace(".", "/")
                    ).is_dir():
                        yield name, node.lineno
        else:
            yield from imports(node, top_level=top_level)


def rank(module: str) -> int:
    while module not in RANK:
        module = module.rpartition(".")[0]
    return RANK[module]


def upward(file: Path, tree: ast.AST) -> list[str]:
    own = module_name(file)
    room = own.split(".")[1] if "." in own else own
    found = []
    for name, line in imports(tree):
        if not name.startswith("headstart") or name == own or own.startswith("headstart.cli") or own == "headstart":
            continue
        if name == "headstart":
            if taken_from_the_door(tree) != {"__version__"}:
                found.append(f"{own}:{line} imports the front door")
        elif name.split(".")[1] != room and rank(name) > rank(own):
            found.append(f"{own}:{line} imports {name}")
        elif rank(name) == rank(own) and name.split(".")[1] != room and any(own.startswith(wing) for wing in WINGS):
            found.append(f"{own}:{line} imports another wing, {name}")
    return found


def taken_from_the_door(tree: ast.AST) -> set[str]:
    """What a module uses of ``headstart`` itself; the version is for everyone."""
    nodes = list(ast.walk(tree))
    doors = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "headstart"]
    used = {alias.name for node in doors for alias in node.names}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    return used | {node.attr for node in attributes if ast.unparse(node.value) == "headstart"}


def test_layers_import_downwards_only() -> None:
    found = [line for file in FILES for line in upward(file, ast.parse(file.read_text(encoding="utf-8")))]
    assert not found, "\n".join(found)


def test_every_file_has_a_rank() -> None:
    homeless = [module_name(file) for file in FILES if "." in module_name(file) and rank(module_name(file)) == 8]
    assert homeless == ["headstart.__main__", "headstart.cli"], "give the new module its place in RANK"


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("core/x.py", "from headstart.data import splits"),
        ("measure/x.py", "def f():\n    import headstart.stages.base"),
        ("engine/x.py", "from headstart import experiment"),
        ("report/x.py", "from headstart.deploy import predictor"),
        ("workflows/x.py", "import headstart.cli"),
        ("data/x.py", "import headstart"),
    ],
)
def test_an_upward_import_would_be_noticed(file: str, code: str) -> None:
    assert upward(SOURCE / file, ast.parse(code))


def test_naming_a_type_is_not_an_import() -> None:
    code = "if TYPE_CHECKING:\n    from headstart.experiment import Experiment"
    assert not upward(SOURCE / "data/x.py", ast.parse(code))


@pytest.mark.parametrize("folder", SIBLINGS)
def test_siblings_do_not_know_each_other(folder: str) -> None:
    package = f"headstart.{folder.replace('/', '.')}"
    for file in (SOURCE / folder).glob("*.py") if (SOURCE / folder).is_dir() else ():
        others = {
            name
            for name, _ in imports(ast.parse(file.read_text(encoding="utf-8")))
            if name.startswith(f"{package}.")
            and (sibling := name.split(".")[len(package.split("."))]) not in ("base", file.stem)
            and (file.stem, sibling) not in INSIDE
        }
        assert not others, f"{module_name(file)} imports its siblings {sorted(others)}"


def heavy_at_module_level(tree: ast.AST, banned: set[str]) -> list[str]:
    return [
        f"{name} in line {line}" for name, line in imports(tree, top_level=True) if name.partition(".")[0] in banned
    ]


@pytest.mark.parametrize("file", FILES, ids=module_name)
def test_heavy_libraries_are_imported_where_they_are_used(file: Path) -> None:
    is_light = file.relative_to(SOURCE).with_suffix("").parts[0] in LIGHT
    found = heavy_at_module_level(ast.parse(file.read_text(encoding="utf-8")), HEAVY if is_light else SLOW)
    assert not found, f"{module_name(file)}: {found}"


def test_a_heavy_import_would_be_noticed() -> None:
    assert heavy_at_module_level(ast.parse("class A:\n    import torch"), HEAVY)
    assert heavy_at_module_level(ast.parse("try:\n    from torch import nn\nexcept ImportError:\n    pass"), HEAVY)
    assert not heavy_at_module_level(ast.parse("def f():\n    import torch"), HEAVY)
    assert not heavy_at_module_level(ast.parse("if TYPE_CHECKING:\n    import torch"), HEAVY)
