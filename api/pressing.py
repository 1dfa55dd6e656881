"""Answers made smaller for who asks for it: gzip, for answers to polls only.

Streams are never compressed, for a compressor keeps back what a reader waits for. Whether an answer may be compressed
at all is a question of secrets: where text that an attacker chooses stands beside a secret, and the attacker can make a
victim ask again and again and sees the lengths, the lengths tell the secret. Here no answer to a poll holds a
credential, none repeats free text from the request, and nobody but the holder of a key can make a browser send it, as
keys travel in headers and not in cookies. Answers that hold credentials (tickets) are never given to this function.
"""

import asyncio
import re
import zlib
from collections.abc import Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

JSON: Final = "application/json"
LEVEL: Final = 1  # half of the gain of the best for a tenth of its time
ASIDE_BYTES: Final = 131_072  # from here on in a thread: it would hold everybody else up
CODING: Final = re.compile(r"\s*([a-z0-9*-]+)\s*(?:;\s*q=([01](?:\.[0-9]{0,3})?)\s*)?", re.IGNORECASE | re.ASCII)


async def pressed(request: Request, body: bytes, headers: Mapping[str, str], bytes_min: int) -> Response:
    """An answer in JSON, compressed if the reader takes that and it is worth it."""
    if bytes_min and len(body) >= bytes_min and takes_gzip(request.headers.get("accept-encoding", "")):
        smaller = _gzip(body) if len(body) < ASIDE_BYTES else await asyncio.to_thread(_gzip, body)
        if len(smaller) < len(body):
            return Response(smaller, 200, {**headers, "Content-Encoding": "gzip"}, JSON)
    return Response(body, 200, headers, JSON)


def takes_gzip(accepted: str) -> bool:
    """Whether this Accept-Encoding takes gzip: named, or by `*`, and not with a weight of nothing."""
    weights = {
        found[1].lower(): float(found[2] or 1) for part in accepted.split(",") if (found := CODING.fullmatch(part))
    }
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _gzip(body: bytes) -> bytes:
    press = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
    return press.compress(body) + press.flush()
