"""Rules that hold for every file: size, what is banned, what must not leak, and what the front door promises."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import headstart
from headstart.core import registry

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "headstart"
FILES = sorted(SOURCE.rglob("*.py"))
VERBS = (
    "audit",
    "bench",
    "demo",
    "doctor",
    "embed",
    "evaluate",
    "export",
    "fit",
    "models",
    "plan",
    "predict",
    "push",
    "report",
    "serve",
)
MAX_LINES = 320
VAGUE = {"utils", "util", "helpers", "helper", "manager", "common", "misc", "tools"}


def tracked() -> list[Path]:
    """Text files that are committed; all of ours where this is no checkout."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return [file for folder in ("src", "tests") for file in (ROOT / folder).rglob("*.py")]
    return [ROOT / name for name in done.stdout.split("\0") if name]


def texts() -> Iterator[tuple[str, str]]:
    for file in tracked():
        try:
            yield file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_files_stay_short_and_are_named_by_what_they_are(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert file.stem not in VAGUE
    assert file.parent.name not in VAGUE


def banned(tree: ast.AST) -> list[str]:
    """Calls and imports that could run what a file says, or that hide what they load."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [str(node.module)]
            found += [f"{name} in line {node.lineno}" for name in names if name.partition(".")[0] in BANNED_MODULES]
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"):
            found.append(f"{name} in line {node.lineno}")
        elif name.rpartition(".")[2] in ("extract", "extractall", "unpack_archive"):
            found.append(f"{name} in line {node.lineno}: members may lead out of the folder, and have no size")
        elif name == "torch.load" and given.get("weights_only") != "True":
            found.append(f"torch.load without weights_only=True in line {node.lineno}")
        if given.get("trust_remote_code", "False") != "False":
            found.append(f"trust_remote_code in line {node.lineno}")
        if given.get("allow_pickle", "False") != "False":
            found.append(f"allow_pickle in line {node.lineno}")
        if given.get("shell", "False") != "False":
            found.append(f"shell=True in line {node.lineno}")
    return found


BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_nothing_runs_what_a_file_says(file: Path) -> None:
    assert not banned(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "eval('1')",
        "exec(text)",
        "yaml.load(file)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "zipfile.ZipFile(path).extractall(folder)",
        "tarfile.open(path).extractall(folder, filter='data')",
        "archive.extract(member)",
        "shutil.unpack_archive(path, folder)",
        "unpack_archive(path)",
    ],
)
def test_a_banned_call_would_be_noticed(code: str) -> None:
    assert banned(ast.parse(code))


def test_what_is_allowed_is_let_through() -> None:
    assert not banned(ast.parse("torch.load(path, weights_only=True); np.load(path, allow_pickle=False); model.eval()"))


# Written in pieces, so that this file does not contain what it looks for.
HOSTS = (
    "py" + "pi.org",
    "python" + "hosted",
    "anaconda" + ".org",
    "extra-" + "index-url",
    "find-" + "links =",
    "--index" + "-url",
)
PATHS = re.compile(r"(?<![\w.<}])/(?:home|root|work|Users|opt)/[A-Za-z.]")


def leaks(text: str) -> list[str]:
    return [host for host in HOSTS if host in text] + [match[0] for match in PATHS.finditer(text)]


def test_no_file_names_a_registry_or_a_machine() -> None:
    found = [f"{name}: {leak}" for name, text in texts() for leak in leaks(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text", ["see https://" + HOSTS[0], "open('/ho" + "me/me/x')", "cd /ro" + "ot/x", "/wo" + "rk/main"]
)
def test_a_leak_would_be_noticed(text: str) -> None:
    assert leaks(text)
    assert not leaks("https://example.org/home/x, ~/.cache, src/work/x.py")


def test_constraints_hold_versions_and_hashes_only() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith(" ")]
    assert all(re.match(r"[a-z0-9][a-z0-9._-]*==\S+( ; .+)? \\$", line) for line in pins), "name==version, then hashes"
    assert all(re.match(r" {4}--hash=sha256:[0-9a-f]{64}( \\)?$", line) for line in lines if line not in pins)
    names = {line.partition("==")[0] for line in pins}
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    missing = {re.split(r"[<>=\[ ]", line)[0].lower() for line in wanted} - names
    assert not missing, f"make lock: {missing}"


def test_the_front_door_is_sorted_and_true() -> None:
    assert list(headstart.__all__) == sorted(headstart.__all__)
    for name in headstart.__all__:
        assert getattr(headstart, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = headstart.fitt  # type: ignore[attr-defined]


def test_the_verbs_are_few_and_known() -> None:
    from headstart.cli import app

    names = sorted(command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands)
    assert tuple(names) == VERBS, "a new verb is a promise: change this list knowingly"


@pytest.mark.parametrize(
    "package",
    [
        "headstart.data.modalities",
        "headstart.models.backbones",
        "headstart.stages.methods",
        "headstart.deploy.runtimes",
    ],
)
def test_every_alternative_in_a_registry_can_be_imported(package: str) -> None:
    for name in registry.names(package):
        importlib.import_module(f"{package}.{name}")


def tree_of(readme: str) -> list[str]:
    """Paths of the tree that README draws with ``├──``; folders end in ``/``."""
    found: list[str] = []
    stack: list[str] = []
    for line in readme.splitlines():
        match = re.match(r"^((?:│   |    )*)(?:├── |└── )(\S+)", line)
        if not match:
            if re.match(r"^\S+/$", line.strip()) and "──" not in line:
                stack = [line.strip().rstrip("/")]
            continue
        depth = len(match[1]) // 4 + 1
        stack = [*stack[:depth], match[2].rstrip("/")]
        found.append("/".join(stack))
    return found


def test_the_tree_in_the_readme_is_true() -> None:
    paths = tree_of((ROOT / "README.md").read_text(encoding="utf-8"))
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing, f"README draws what is not there: {missing}"


def test_the_tree_is_read_as_drawn() -> None:
    lines = ("src/headstart/", "├── core/          errors", "│   └── errors.py   x", "├── data/", "│   └── modalities/")
    drawn = "\n".join((*lines, "│       └── image.py", "└── cli.py"))
    assert tree_of(drawn) == [
        "src/headstart/core",
        "src/headstart/core/errors.py",
        "src/headstart/data",
        "src/headstart/data/modalities",
        "src/headstart/data/modalities/image.py",
        "src/headstart/cli.py",
    ]
