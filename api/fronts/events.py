"""The route of a run's events: one stream, as server-sent events or JSON lines, or one page of the same."""

from contextlib import AbstractContextManager
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from api.access import see
from api.callers import Caller
from api.errors import DATABASE_AWAY, BadRequest, Fault
from api.fronts.feed import OWN_TYPES, Feed
from api.fronts.opening import Wish, late, start, streamed
from api.fronts.pages import page_of
from api.fronts.sources import Source
from api.fronts.sse import StreamAnswer, wire_for
from api.keys import key_in
from api.negotiation import JSON, NDJSON, SSE, After, Limit, Types, in_log, named_place, preferred, types_in
from api.service import Asked, Reader, Service
from api.shapes import answer
from api.states import Pages

router = APIRouter(prefix="/v1/runs", tags=["events"])

ENVELOPE: Final = {
    "type": "object",
    "required": ["seq", "run_id", "type", "at", "attempt", "final", "data"],
    "properties": {
        "seq": {"type": "integer"},
        "run_id": {"type": "string", "format": "uuid"},
        "type": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "attempt": {"type": "integer"},
        "final": {"type": "boolean"},
        "data": {"type": "object"},
    },
}
OWN: Final = {
    "type": "object",
    "description": "What a stream says of itself. Only a checkpoint has a `seq`; the others are not in the log.",
    "required": ["run_id", "type", "final", "data"],
    "properties": {
        "seq": {"type": "integer"},
        "run_id": {"type": "string", "format": "uuid"},
        "type": {"enum": list(OWN_TYPES)},
        "final": {"const": False},
        "data": {"type": "object"},
    },
}
ITEM: Final = {"anyOf": [ENVELOPE, OWN]}
STREAMS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {SSE: {"itemSchema": ITEM}, NDJSON: {"itemSchema": ITEM}, JSON: {}}},
    204: {"description": "the cursor is at the terminal event: there is nothing more to come"},
}
NO_SNAPSHOT: Final = Fault("/query/snapshot", "is for streams; ask for the state, or poll, to get both")


async def events(
    request: Request,
    service: Asked,
    caller: Reader,
    run_id: str,
    after: After = None,
    limit: Limit = None,
    types: Types = None,
    snapshot: Annotated[bool, Query(description="begin with the state at the cursor, or at the end")] = False,
) -> Response:
    """The events of a run after a cursor: what is stored, then what comes, to the terminal event.

    `Last-Event-ID` wins over `after`. With `types` only those come, and the terminal event; a stream then tells its
    place now and then (`checkpoint`). With `snapshot` a stream begins with a `reset`: the state at the cursor or, when
    none is named, at the end, so that no history comes. A reader too slow for the run gets draft text gathered
    (`lagging`) and everything else as it is. A stream ends when it is old; go on from your cursor.

    As `application/json` it is one page, and a page of large events is shorter than `limit`: only `more` tells of what
    is left.
    """
    media_type = preferred(request, [SSE, NDJSON, JSON])
    wish = Wish(run_id, named_place(request, after), types_in(types), snapshot)
    if media_type == JSON:
        return await _page(service, caller, wish, limit)
    figures = service.figures.stream("sse" if media_type == SSE else "ndjson")
    place = service.limits.stream(caller)
    source: AbstractContextManager[Source]
    try:
        begun = await start(service, caller, wish)
    except DATABASE_AWAY as fault:
        service.figures.database.met(fault)
        source = late(service, key_in(request), wish, figures)
    else:
        if begun.over:
            return Response(status_code=204)
        source = streamed(service, begun, wish, figures)
    wire = wire_for(media_type, service.settings)
    return StreamAnswer(place(source), wire, service.waits, service.settings, figures)


async def _page(service: Service, caller: Caller, wish: Wish, limit: int | None) -> Response:
    if wish.snapshot:
        raise BadRequest(faults=[NO_SNAPSHOT])
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, wish.run_id)
        run = sight.run
        cursor = in_log(wish.cursor or 0, run.seq)
        feed = Feed(wish.view(sight), cursor)
        page = await page_of(Pages(connection, run.run_id), feed, limit, service.settings)
    service.figures.delivered("page", len(page.frames))
    if not sight.ended:
        service.readers.seen(run.run_id)
    return answer({**page.body(max(run.seq, feed.cursor)), "done": feed.closed or (sight.ended and cursor == run.seq)})


router.add_api_route("/{run_id}/events", events, methods=["GET"], responses=STREAMS, response_class=Response)
router.add_api_route("/{run_id}/events", events, methods=["HEAD"], include_in_schema=False)
