"""Debian packages as a source of writing: which ones, how they are fetched, and what lies in them.

``apt`` does the fetching, in a state folder of its own, so that the machine's package lists stay as they are and
nothing is installed. What a package holds is read from the archive's stream without unpacking it.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Prose, dictionaries and thesauri by name. The packages with Indonesian message catalogues are found by their contents.
NAMED = (
    # dictionaries and thesauri
    *("dict-freedict-eng-ind", "dict-gcide", "dict-devil", "dict-jargon", "wordnet-base", "mythes-id", "mythes-en-us"),
    "unicode-cldr-core",
    # English prose: quotations, novels, scripture and its commentaries, games that tell stories
    *("fortunes", "fortunes-min", "fortune-anarchism", "r-cran-janeaustenr", "sword-text-web", "sword-comm-tdavid"),
    *("sword-comm-mhcc", "crawl-common", "endless-sky-data", "freedroidrpg-data", "wesnoth-1.16-data"),
    *("cataclysm-dda-data", "unknown-horizons", "gcompris-qt-data"),
    # documentation, in one language or both
    *("debian-handbook", "debian-reference-en", "debian-reference-id", "gnome-user-docs", "libreoffice-help-id"),
    *("kicad-doc-id", "manpages-id", "mediawiki", "debian-faq", "developers-reference", "debian-history"),
    *("installation-guide-amd64", "minetest-data"),
)
LARGEST = 36_000_000  # bytes of an archive that is fetched only for its catalogue
CATALOGUE = re.compile(r"(?:/locale/id/LC_MESSAGES/[^/]+\.mo|/help/id/[^/]+/[^/]+\.(?:page|xml))$")
NO_PROSE = re.compile(r"webkit|-source$|^libreoffice-core")  # the same catalogue again, in a very large archive

CONFIGURATION = """Dir::State::lists "{lists}";
Dir::Cache "{cache}";
Acquire::IndexTargets {{
  deb::Contents-deb {{ MetaKey "$(COMPONENT)/Contents-$(ARCHITECTURE)"; ShortDescription "Contents";
    Description "Contents of $(ARCHITECTURE)"; Identifier "Contents"; DefaultEnabled "true"; KeepCompressed "true"; }};
  deb::Contents-all {{ MetaKey "$(COMPONENT)/Contents-all"; ShortDescription "Contents";
    Description "Contents of all"; Identifier "Contents"; DefaultEnabled "true"; KeepCompressed "true"; }};
}};
"""


@dataclass(frozen=True)
class Package:
    """One fetched archive."""

    name: str
    version: str
    path: Path

    def members(self, wanted: re.Pattern[str]) -> Iterator[tuple[str, bytes]]:
        """Path inside the archive (``/usr/…``) and content of each regular file whose path matches ``wanted``."""
        command = ["dpkg-deb", "--fsys-tarfile", str(self.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            with tarfile.open(fileobj=io.BufferedReader(process.stdout), mode="r|") as archive:  # type: ignore[arg-type]
                for member in archive:
                    path = member.name.removeprefix(".")
                    if member.isfile() and wanted.search(path):
                        content = archive.extractfile(member)
                        assert content is not None
                        yield path, content.read()


class Apt:
    """Fetches from the machine's Debian mirror into ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        lists, cache = self.folder / "lists", self.folder / "cache"
        for place in (lists / "partial", cache / "archives" / "partial", self.folder / "archives"):
            place.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "apt.conf"
        configuration.write_text(CONFIGURATION.format(lists=lists, cache=cache), encoding="utf-8")
        self.environment = {**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C.UTF-8"}

    def update(self) -> None:
        """Fetch the lists of packages and of their contents."""
        self._run("apt-get", "update", "-q")

    def read_lists(self, part: str) -> Iterator[str]:
        """Lines of every fetched list whose file name holds ``part``."""
        for path in sorted((self.folder / "lists").glob(f"*{part}*")):
            yield from self._run("/usr/lib/apt/apt-helper", "cat-file", str(path)).splitlines()

    def sizes(self) -> dict[str, int]:
        """Bytes of each package's archive."""
        found, name = {}, ""
        for line in self.read_lists("_Packages"):
            if line.startswith("Package: "):
                name = line[9:]
            elif line.startswith("Size: "):
                found[name] = int(line[6:])
        return found

    def with_catalogues(self) -> list[str]:
        """Packages that hold Indonesian messages or help and are no larger than ``LARGEST``."""
        sizes, found = self.sizes(), set()
        for line in self.read_lists("_Contents-"):
            path, _, owners = line.rpartition(" ")
            if CATALOGUE.search("/" + path.strip()):
                found |= {owner.rpartition("/")[2] for owner in owners.split(",")}
        kept = {name for name in found if sizes.get(name, LARGEST + 1) <= LARGEST and not NO_PROSE.search(name)}
        return sorted(kept)

    def fetch(self, names: list[str]) -> list[Package]:
        """Download what is not there yet; the packages in the order of their names."""
        place = self.folder / "archives"
        have = {package.name for package in self._fetched(place)}
        missing = [name for name in names if name not in have]
        for start in range(0, len(missing), 200):
            self._run("apt-get", "download", "-q", *missing[start : start + 200], place=place)
        wanted = set(names)
        return [package for package in self._fetched(place) if package.name in wanted]

    @staticmethod
    def _fetched(place: Path) -> list[Package]:
        parts = [(path.name.split("_"), path) for path in sorted(place.glob("*.deb"))]
        return [Package(name, version.replace("%3a", ":"), path) for (name, version, *_), path in parts]

    def _run(self, *command: str, place: Path | None = None) -> str:
        done = subprocess.run(
            command, cwd=place, env=self.environment, capture_output=True, text=True, errors="replace"
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:3])} … failed: {done.stderr.strip()[-500:]}")
        return done.stdout


def licences(copyright_file: bytes) -> list[str]:
    """Short names of the licences that a package's copyright file states; where it is free text, that it is."""
    names = re.findall(r"^License:[ \t]*(\S[^\n]*)$", copyright_file.decode("utf-8", "replace"), re.MULTILINE)
    return sorted({name.strip() for name in names}) or ["see its copyright file"]
