"""The short way of a poll: past the framework, for the many that are asked in the plain form.

Nothing is decided here. What a poll asks for, who may ask and what is answered is in api/fronts/poll.py, and a poll in
any other form (a parameter escaped, unknown or out of its range) goes the long way, where it is validated and
refused. The framework's way through dependencies and models costs several times what such an answer does.
"""

import re
from typing import Final, cast, get_args

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import AWAY, EXPECTED, refused
from api.fronts.drafts import Drafts
from api.fronts.poll import Wanted, polled, router
from api.service import Service, caller_of
from eventstore.domain.events import BODIES

PATH: Final = re.compile(r"/v1/runs/([^/]+)/poll")
NUMBER: Final = re.compile(rb"[0-9]{1,9}")
PLAIN: Final = re.compile(rb"[A-Za-z0-9]{1,40}")
NUMBERS: Final = (b"after", b"limit", b"wait")
DRAFTS: Final = {name.encode(): name for name in get_args(Drafts)}
TYPES: Final = frozenset(name.encode() for name in BODIES)
ROUTE: Final = router.routes[0]  # whose template stands in the figures


class ShortPath:
    """Answers plain polls itself, and hands on everything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = PATH.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") else None
        wanted = plain(scope["query_string"]) if path is not None else None
        if path is None or wanted is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = ROUTE
        request = Request(scope, receive)
        try:
            service: Service = scope["app"].state.service
            caller = await caller_of(request, service)
            answer = await polled(request, service, caller, path[1], wanted)
        except (*EXPECTED, *AWAY) as fault:
            answer = await refused(request, fault)
        await answer(scope, receive, send)


def plain(query: bytes) -> Wanted | None:
    """What a query in the plain form asks for; None if it is not in that form."""
    numbers: dict[bytes, int] = {}
    draft: str = "recent"
    wanted: frozenset[str] | None = None
    for part in query.split(b"&") if query else ():
        name, _, value = part.partition(b"=")
        if name in NUMBERS and NUMBER.fullmatch(value):
            numbers[name] = int(value)
        elif name == b"partial" and value in DRAFTS:
            draft = DRAFTS[value]
        elif (
            name == b"types"
            and (types := TYPES.intersection(value.split(b",")))
            and len(types) == value.count(b",") + 1
        ):
            wanted = frozenset(each.decode() for each in types)
        elif not (name == b"turn" and PLAIN.fullmatch(value)):
            return None
    if numbers.get(b"limit") == 0:
        return None
    return Wanted(numbers.get(b"after", 0), numbers.get(b"limit"), numbers.get(b"wait"), cast(Drafts, draft), wanted)
