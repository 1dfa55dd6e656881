"""Which server a command talks to and with which key: what was said, else the `runwire up` of this folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.devkeys import stored_keys
from ops.exits import UNREACHABLE, USAGE, Complaint
from ops.places import default_data_dir
from ops.running import Running

DEFAULT_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Door:
    """An address and the keys to try, the fitting one first."""

    url: str
    keys: tuple[str, ...]


def data_dir(given: Path | None) -> Path:
    """The data folder that was named, else the one of the current folder."""
    return given.resolve() if given is not None else default_data_dir(Path.cwd())


def find_door(data: Path, environ: Mapping[str, str], roles: Sequence[str], key_file: Path | None = None) -> Door:
    """RUNWIRE_URL and RUNWIRE_KEY; without them the running `up` of this folder, with its key for one of the roles.

    The stored keys are only ever sent to the server that they were made for.
    """
    running = Running.found(data)
    url = (environ.get("RUNWIRE_URL") or (running.address if running else DEFAULT_URL)).rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise Complaint("RUNWIRE_URL must begin with http:// or https://", USAGE)
    if key_file is not None:
        return Door(url, (_key_in(key_file),))
    if key := environ.get("RUNWIRE_KEY", "").strip():
        return Door(url, (key,))
    stored = stored_keys(data) if running is not None and running.address == url else {}
    keys = tuple(stored[role] for role in roles if role in stored)
    if not keys:
        raise Complaint(
            f"no key for {url}",
            UNREACHABLE,
            "set RUNWIRE_KEY, or use --key-file; `runwire up` in this folder makes keys that are found by themselves",
        )
    return Door(url, keys)


def _key_in(file: Path) -> str:
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise Complaint(f"cannot read the key file {file}: {error}", USAGE) from error
    if not key or len(key.split()) != 1 or not key.isascii():
        raise Complaint(f"the key file {file} must hold one key and nothing else", USAGE)
    return key
