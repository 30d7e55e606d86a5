"""Uploading a prepared folder to the Hugging Face Hub: looked at first, refused within seconds, and no secret told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import ConfigError, HeadstartError, MissingExtra, Unreachable

TIMEOUT_S = 4.0
OWNED = "headstart.json"  # the file by which a repository is known to hold a model of Headstart
SECRET = re.compile(r"\bhf_\w{8,}|(?i:bearer)\s+\S+|(?<=://)[^/@\s]+(?=@)")
LOGIN = "log in with `hf auth login`, or set HF_TOKEN; a fine-grained token needs the right to write"
_NAME = r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9_])?"


@dataclass(frozen=True)
class Repository:
    """A model repository that exists: its visibility, and the names of its files."""

    private: bool
    files: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        return not set(self.files) - {".gitattributes"}


def check_name(repo: str) -> str:
    """``owner/name`` as the Hub spells it.

    Raises:
        ConfigError: not a name that the Hub takes.
    """
    if re.fullmatch(f"{_NAME}/{_NAME}", repo) and len(repo) <= 96 and not re.search(r"\.\.|--|\.git$", repo):
        return repo
    remedy = "give it as owner/name, such as my-name/pets: letters, digits, single - and ., and _"
    raise ConfigError(f"{repo[:100]!r} is not a name of a repository on the Hub", where="push", remedy=remedy)


def token() -> str:
    """The user's own token, as the Hub's client finds it.

    Raises:
        ConfigError: there is none. MissingExtra: the client is not installed.
    """
    found = _client().get_token()
    if not found:
        raise ConfigError("no token of the Hugging Face Hub is on this machine", where="push", remedy=LOGIN)
    return str(found)


def look(repo: str, secret: str) -> Repository | None:
    """What stands under this name, or None; one request without retries, so that a missing network shows at once.

    Raises:
        Unreachable: the Hub does not answer. ConfigError: it does not accept the token.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    api = _client().HfApi(token=secret)
    with _told(repo, secret):
        try:
            info = api.model_info(repo, timeout=TIMEOUT_S)
        except RepositoryNotFoundError:
            api.whoami()  # the Hub says "not found" to a token that it does not know, too
            return None
    return Repository(bool(info.private), tuple(sibling.rfilename for sibling in info.siblings or ()))


def insist_free(repo: str, found: Repository | None, *, private: bool, update: bool) -> None:
    """Refuse to write over what is there unless that was asked for, and never make public by accident.

    Raises:
        ConfigError: the name is taken and ``update`` was not asked for, or a private push goes to a public repository.
    """
    if found is None:
        return
    if not found.is_empty and not update:
        holds = "a model that Headstart pushed" if OWNED in found.files else "something that Headstart did not push"
        what = f"'{repo}' exists on the Hub and holds {holds}"
        raise ConfigError(
            what, where="push", remedy="--update writes over it (its history stays); or take another name"
        )
    if private and not found.private:
        what = f"'{repo}' is public, and a private push was asked for"
        raise ConfigError(what, where="push", remedy="--public says that everyone may see it; or take another name")


def upload(
    folder: Path, files: Sequence[str], repo: str, secret: str, *, private: bool, stale: Sequence[str], message: str
) -> str:
    """Create the repository where it is missing, and commit exactly ``files``; the commit's address.

    Args:
        stale: files of an earlier push, removed in the same commit where they are not among ``files``.

    Raises:
        Unreachable: the Hub broke off. ConfigError: it does not let this token write there.
    """
    api = _client().HfApi(token=secret)
    with _told(repo, secret):
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(files),
            delete_patterns=list(stale) or None,
            commit_message=message,
        )
    return str(done.commit_url)


def secrets() -> dict[str, str]:
    """What must stay on this machine, by name: the Hub's token, and values that the environment calls secret."""
    named = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIALS?|PRIVATE_KEY)$", re.IGNORECASE)
    found = {f"${name}": value for name, value in os.environ.items() if named.search(name) and len(value) >= 8}
    held = _client().get_token()
    return found | ({"the Hub's token": str(held)} if held else {})


def scrubbed(text: str, secret: str = "") -> str:
    """``text`` without tokens and without names and passwords in addresses."""
    return SECRET.sub("***", text.replace(secret, "***") if secret else text)


@contextmanager
def _told(repo: str, secret: str) -> Iterator[None]:
    """Every error of the client as one of ours. Its own is not chained: it may hold headers and addresses."""
    try:
        yield
    except HeadstartError:
        raise
    except Exception as error:  # the client's network errors have no common base class
        told = _error(error, repo, secret)
    else:
        return
    raise told from None


def _error(error: Exception, repo: str, secret: str) -> HeadstartError:
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):  # "Error while uploading …"
        error = error.__cause__
    offline = "`push --dry-run` writes the same folder without a network"
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable("offline was asked for (HF_HUB_OFFLINE)", where="push", remedy=offline)
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
    said = scrubbed(str(getattr(error, "server_message", None) or error).strip().partition("\n")[0][:300], secret)
    if status == 401:
        return ConfigError(f"the Hub does not accept the token ({said})", where="push", remedy=LOGIN)
    if status in (402, 403, 404):
        what = f"the Hub does not let this token write to '{repo}' ({said})"
        return ConfigError(what, where="push", remedy=f"push under your own name or organisation; {LOGIN}")
    if status is not None or isinstance(error, ValueError):
        return Unreachable(f"the Hub refused '{repo}' (status {status}: {said})", where="push", remedy=offline)
    return Unreachable(
        f"the Hub does not answer, or broke off ({type(error).__name__}: {said})", where="push", remedy=offline
    )


def _client() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError as error:
        raise MissingExtra("huggingface_hub", "train", "the Hugging Face Hub") from error
    return huggingface_hub
