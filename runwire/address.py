"""Where the key may go: to the server that was named, over TLS, and nowhere else."""

import ipaddress
from collections.abc import Mapping
from typing import Final

import httpx

from runwire.problems import RedirectRefused

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REDIRECTS_MAX: Final = 3
_PORTS: Final = {"http": 80, "https": 443}


def server_url(url: str, *, allow_plain_http: bool) -> httpx.URL:
    """The server's address. A ValueError unless the key is safe on the way there."""
    parsed = httpx.URL(url.rstrip("/"))
    if parsed.scheme not in _PORTS or not parsed.host:
        raise ValueError("the server's URL must begin with http:// or https://")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("the server's URL must hold no user, no query and no fragment")
    if parsed.scheme == "http" and not allow_plain_http and not is_loopback(parsed.host):
        raise ValueError(
            f"the key would travel unencrypted to {parsed.host}: use https://, or say allow_plain_http=True"
        )
    return parsed


def is_loopback(host: str) -> bool:
    """Whether it is this machine by its number or by the one name that may mean nothing else."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def redirected(request: httpx.Request, status: int, headers: Mapping[str, str]) -> httpx.URL | None:
    """Where to send the request instead; None when it was answered."""
    if status not in REDIRECTS:
        return None
    try:
        target = request.url.join(headers.get("location", ""))
    except httpx.InvalidURL:
        raise RedirectRefused("the server pointed to an address that cannot be read") from None
    upgraded = (request.url.scheme, _port(request.url), target.scheme, _port(target)) == ("http", 80, "https", 443)
    same = (request.url.scheme, _port(request.url)) == (target.scheme, _port(target))
    if request.url.host != target.host or not (same or upgraded):
        raise RedirectRefused(f"the server pointed to {target.host or 'nowhere'}, where the key must not be sent")
    if request.method != "GET" and status not in {307, 308}:
        raise RedirectRefused("the server pointed elsewhere in a way that would change the request")
    return target


def _port(url: httpx.URL) -> int | None:
    return url.port or _PORTS.get(url.scheme)
