"""What the two clients share of httpx: how it is set up, and how what it brings is told to the machines."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import httpx

from runwire.address import is_loopback
from runwire.pace import Pace
from runwire.problems import Answer

BODY_BYTES_MAX: Final = 64 * 2**20
PROBLEM_BYTES_MAX: Final = 256 * 2**10
NEVER_CONNECTED: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_NO_KEY: Final = "no key: give key=, or set RUNWIRE_KEY"


def options(url: httpx.URL, key: str) -> dict[str, Any]:
    """How httpx is made for one server. No proxy leads back to this machine; streams are as many as are followed."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ValueError(_NO_KEY if not key else "the key must be printable ASCII without blanks")
    return {
        "base_url": url,
        "headers": {"Authorization": f"Bearer {key}", "User-Agent": f"runwire-python/{_version()}"},
        "trust_env": not is_loopback(url.host),
        "follow_redirects": False,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20),
    }


def timeout(pace: Pace, read_s: float) -> httpx.Timeout:
    """The waits of one request."""
    return httpx.Timeout(pace.connect_s, read=read_s)


def read_bytes_max(answer: Answer) -> int:
    """How much of a body is worth reading: nothing of a stream, little of what is no answer of ours."""
    return BODY_BYTES_MAX if answer.status == 200 else PROBLEM_BYTES_MAX


def told(error: Exception) -> str:
    """A fault of the network in a few words."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def head(response: httpx.Response) -> Answer:
    """What is known of an answer before its body."""
    return Answer(response.status_code, response.headers)


def _version() -> str:
    try:
        return version("runwire")
    except PackageNotFoundError:  # run from a folder
        return "0"
