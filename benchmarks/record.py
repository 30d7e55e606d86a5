"""What stands beside every number: the machine, how busy it was, and a results file that survives interruptions.

python -m benchmarks.record a.json b.json benchmarks/results/transfer.json    # lay files of one benchmark together
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("headstart", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "safetensors", "fastai",
            "transformers", "tokenizers", "soundfile", "soxr")  # fmt: skip
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8")
REFERENCE_SIZE, REFERENCE_BYTES = 1024, 64 * 2**20  # a child's peak of memory holds its parent's on Linux
DISTURBED = 1.25  # a reference product or copy slower than this times the best of the file: the host was busy


def machine(packages: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The fingerprint of this machine and its software; ``packages`` replaces the versions of this interpreter's."""
    facts = {
        "cpu": platform.machine(),
        "cores": os.cpu_count(),
        "flags": [],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": dict(packages) if packages is not None else versions(),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = dict(line.split("\t", 1) for line in cpuinfo.read_text().splitlines() if "\t" in line)
        told = {name: value.strip(": \t") for name, value in lines.items()}
        family = f"family {told.get('cpu family', '?')}, model {told.get('model', '?')}"
        flags = set(told.get("flags", "").split())
        facts |= {"cpu": f"{told.get('model name', '?')} ({family})", "flags": [f for f in FLAGS if f in flags]}
    facts["id"] = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return facts


def versions() -> dict[str, str]:
    """The installed versions of what decides the numbers."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit of the headstart that is imported, with "+" where its files differ from it; empty if unknown."""
    found = importlib.util.find_spec("headstart")
    if found is None or found.origin is None:
        return ""
    folder = Path(found.origin).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")


def threads() -> int | None:
    """The limit on threads that the runs inherit, None where there is none."""
    told = os.environ.get("OMP_NUM_THREADS")
    return int(told) if told else None


def reference(repeats: int = 7) -> dict[str, float]:
    """What tells whether the host is busy with other work: milliseconds (median) of one matrix product of fixed size,
    which stays in a core's own caches, and of one copy of 64 MB, through what others may use up while that is quick."""
    left = np.random.default_rng(0).standard_normal((REFERENCE_SIZE, REFERENCE_SIZE), dtype=np.float32)
    source = np.ones(REFERENCE_BYTES, np.uint8)
    target = source.copy()
    works: dict[str, Callable[[], Any]] = {
        "reference_ms": lambda: left @ left,
        "copy_ms": lambda: np.copyto(target, source),
    }
    return {name: _milliseconds(work, repeats) for name, work in works.items()}


def _milliseconds(work: Callable[[], Any], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return round(1000 * statistics.median(seconds), 2)


def around(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, list[float]]:
    """What ``reference`` gave before and after a run, as it is kept with it."""
    return {name: [before[name], after[name]] for name in before}


def disturbed(run: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the host was busy around a run: a reference took ``DISTURBED`` times the quickest of ``runs``.

    Only runs on the same machine with as many threads are compared; a file of busy runs alone cannot tell. Of older
    runs only the product is known.
    """

    def alike(other: Mapping[str, Any]) -> bool:
        return other["machine"] == run["machine"] and other.get("threads") == run.get("threads")

    def slow(name: str) -> bool:
        quickest = min(min(other[name]) for other in runs if alike(other) and name in other)
        return max(run[name]) > DISTURBED * quickest

    return any(slow(name) for name in ("reference_ms", "copy_ms") if name in run)


class Results:
    """One JSON file: {"benchmark", "settings", "machines", "runs"}; it is written anew after every run.

    A run is known by its key, a mapping of plain values, such as {"set": "photo", "seed": 3, "plan": "probe"}. What the
    file holds already is not run again, so an interrupted benchmark continues where it stopped.
    """

    def __init__(self, path: Path, benchmark: str, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.value: dict[str, Any] = {"benchmark": benchmark, "settings": dict(settings), "machines": {}, "runs": []}
        if path.is_file():
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["settings"] != json.loads(json.dumps(self.value["settings"])):
                raise SystemExit(f"{path} was made with other settings: move it away, or give another --output")
            self.value = stored

    @property
    def runs(self) -> list[dict[str, Any]]:
        return self.value["runs"]

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The run of this key, or None."""
        return next((run for run in self.runs if run["key"] == key), None)

    def add(self, key: Mapping[str, Any], facts: Mapping[str, Any], *, where: Mapping[str, Any] | None = None) -> None:
        """Keep a run (an earlier one of the same key gives way) and write the file."""
        at = dict(where) if where is not None else machine()
        name = at.pop("id")
        self.value["machines"][name] = at
        self.value["runs"] = [run for run in self.runs if run["key"] != key]
        self.runs.append({"key": dict(key), "machine": name, **facts})
        write(self.path, self.value)


def write(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text + "\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def first_reaching(epochs: Sequence[Mapping[str, Any]], accuracy: float) -> float | None:
    """The seconds at which a peer's epochs first reach ``accuracy``; None where they never do."""
    return next((epoch["seconds"] for epoch in epochs if epoch["accuracy"] >= accuracy), None)


def measured(
    command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None, accepted: Sequence[int] = (0,)
) -> dict[str, Any]:
    """Run a command as a process of its own, its output going to ``log``.

    Args:
        accepted: exit codes that count as done: of ``headstart fit``, 2 says that no stage beat the baseline.

    Returns:
        seconds (wall), cpu_seconds (user and system, children included), peak_rss_mb, and what ``reference`` gave
        before and after.

    Raises:
        RuntimeError: the command failed; the message holds the end of its output.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = reference()
    with open(log, "w", encoding="utf-8") as out:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in accepted:
        end = log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"{' '.join(command)} ended with {child.returncode}:\n{end}")
    return {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_rss_mb": round(usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2), 1),
        **around(before, reference()),
    }


def merge(paths: Sequence[Path], into: Path) -> None:
    """Lay files of one benchmark together, such as those of sets that ran side by side; a later file's run wins.

    Raises:
        SystemExit: they were made with other settings.
    """
    for path in paths:
        part = json.loads(path.read_text(encoding="utf-8"))
        whole = Results(into, part["benchmark"], part["settings"])
        for run in part["runs"]:
            facts = {name: value for name, value in run.items() if name not in ("key", "machine")}
            whole.add(run["key"], facts, where={"id": run["machine"], **part["machines"][run["machine"]]})


if __name__ == "__main__":
    *parts, whole = [Path(each) for each in sys.argv[1:]]
    merge(parts, whole)
