"""What request headers ask for: a format, a wait, a version that the reader has already, a place to go on from."""

import re
from collections.abc import Sequence
from time import time_ns
from typing import Annotated, Final

from fastapi import Query
from pydantic import BeforeValidator
from starlette.requests import Request

from api.errors import BadCursor, BadRequest, Fault, NotAcceptable, UnsupportedMedia
from api.fronts.drafts import Drafts
from eventstore.domain.events import BODIES

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"
WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?([0-9]{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)
DIGITS: Final = re.compile(r"[0-9]{1,10}", re.ASCII)
TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def _plain_digits(value: object) -> object:
    if isinstance(value, str) and not DIGITS.fullmatch(value):
        raise ValueError("plain digits are expected")
    return value


# A number in a query as people write one: `+5`, ` 5 ` and `1_000` are slips, not numbers.
Number = Annotated[int, BeforeValidator(_plain_digits)]
After = Annotated[Number | None, Query(ge=0, description="the last seq that you have; 0 for all")]
Limit = Annotated[Number | None, Query(ge=1, description="how many events at most")]
Types = Annotated[
    str | None, Query(max_length=400, description="names of event types, split by commas; the end always comes")
]
Wait = Annotated[Number | None, Query(ge=0, description="seconds to wait for news; capped by the server")]


Draft = Annotated[
    Drafts, Query(description="the draft: its end, all of it, what was added to what your cursor stands for, or none")
]
Turn = Annotated[
    str | None,
    Query(
        max_length=40,
        description="anything that you did not send before: it makes the address a new one, and is not looked at",
    ),
]


def preferred(request: Request, offers: Sequence[str]) -> str:
    """The best format on offer, in the reader's eyes and then in our order; NotAcceptable when there is none."""
    accept = ",".join(request.headers.getlist("accept")) or "*/*"
    asked = [_weighed(part) for part in accept.split(",") if part.strip()]
    best, best_weight = None, 0.0
    for offer in offers:
        ranges = {offer: 2, offer.partition("/")[0] + "/*": 1, "*/*": 0}
        fits = [(ranges[name], weight) for name, weight in asked if name in ranges]
        weight = max(fits)[1] if fits else 0.0
        if weight > best_weight:
            best, best_weight = offer, weight
    if best is None:
        raise NotAcceptable(allowed=offers)
    return best


def _weighed(part: str) -> tuple[str, float]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return name, float(parameter[2:])
            except ValueError:
                return name, 0.0
    return name, 1.0


async def json_only(request: Request) -> None:
    """For routes that answer in JSON."""
    preferred(request, [JSON])


def needs_json_body(request: Request) -> None:
    """For routes that read JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise UnsupportedMedia(allowed=[JSON])


def asked_wait(request: Request, most_s: float, named: int | None = None) -> float | None:
    """The seconds that the reader will wait, by parameter or `Prefer: wait=`, capped; None if it named none."""
    if named is None:
        preference = WAIT.search(",".join(request.headers.getlist("prefer")))
        if preference is None:
            return None
        named = int(preference[1])
    return min(float(named), most_s)


def versions(request: Request) -> list[str]:
    """The versions that the reader has, without their quotes."""
    known = request.headers.get("if-none-match")
    return [tag.strip().removeprefix("W/").strip('"') for tag in known.split(",")] if known else []


def next_turn() -> str:
    """What makes an address one that nobody has asked before, as far as caches go."""
    return f"{time_ns() // 1_000_000:x}"


def has_version(request: Request, etag: str) -> bool:
    """Whether the reader already has this version."""
    known = request.headers.get("if-none-match", "")
    return known.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in known.split(",")]


def size(asked: int | None, default: int, most: int) -> int:
    """How many are wanted."""
    if asked is not None and asked > most:
        raise BadRequest(faults=[Fault("/query/limit", f"must be at most {most}")])
    return asked or default


def named_place(request: Request, after: int | None) -> int | None:
    """Where a stream is to go on: `Last-Event-ID` before `?after=`; None when neither was said."""
    if header := request.headers.get("last-event-id", "").strip():
        if not DIGITS.fullmatch(header):
            raise BadCursor("Last-Event-ID must be the seq of the last event that you have.")
        return int(header)
    return after


def place(request: Request, after: int | None, last_seq: int) -> int:
    """Where a stream goes on; only a place that this log has had."""
    return in_log(named_place(request, after) or 0, last_seq)


def in_log(cursor: int, last_seq: int) -> int:
    """The cursor, unless it lies beyond the log's end."""
    if cursor > last_seq:
        raise BadCursor(f"The log of this run ends at {last_seq}.")
    return cursor


def types_in(asked: str | None) -> frozenset[str] | None:
    """The event types that a reader wants; None for all. A name that is none is a slip, and its event never comes."""
    if asked is None:
        return None
    types = frozenset(name.strip() for name in asked.split(","))
    if not types <= BODIES.keys():
        raise BadRequest(faults=[Fault("/query/types", f"must be of these, split by commas: {', '.join(BODIES)}")])
    return types


def trace_id(request: Request) -> str | None:
    """The caller's trace, if it sent one that can be read."""
    found = TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    return found[1] if found else None


def idempotency_key(request: Request) -> str | None:
    """The caller's name for this request, if it gave one."""
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= 200 or not key.isascii() or not key.isprintable():
        raise BadRequest("Idempotency-Key must be 1 to 200 printable ASCII characters.")
    return key
