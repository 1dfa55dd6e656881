"""The route of a run's events: one stream, as server-sent events or JSON lines, or one page of the same."""

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api.access import see
from api.fronts.feed import Feed
from api.fronts.pages import page_of
from api.fronts.sources import live
from api.fronts.sse import StreamAnswer, wire_for
from api.negotiation import JSON, NDJSON, SSE, After, Limit, place, preferred
from api.service import Asked, Who
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
STREAMS: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {SSE: {"itemSchema": ENVELOPE}, NDJSON: {"itemSchema": ENVELOPE}, JSON: {}}},
    204: {"description": "the cursor is at the terminal event: there is nothing more to come"},
}


async def events(
    request: Request, service: Asked, caller: Who, run_id: str, after: After = None, limit: Limit = None
) -> Response:
    """The events of a run after a cursor: what is stored, then what comes, to the terminal event.

    As `application/json` it is one page, and a page of large events is shorter than `limit`: only `more` tells of what
    is left.
    """
    media_type = preferred(request, [SSE, NDJSON, JSON])
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, run_id)
        run = sight.run
        cursor = place(request, after, run.seq)
        if media_type == JSON:
            feed = Feed(sight.view, cursor)
            page = await page_of(Pages(connection, run.run_id), feed, limit, service.settings)
            service.figures.delivered("page", len(page.frames))
            if not sight.ended:
                service.readers.seen(run.run_id)
            return answer(
                {**page.body(max(run.seq, feed.cursor)), "done": feed.closed or (sight.ended and cursor == run.seq)}
            )
    if sight.ended and cursor == run.seq:
        return Response(status_code=204)
    source = service.limits.stream(caller)(live(service.tails, service.readers, run.run_id, sight.view, cursor))
    figures = service.figures.stream("sse" if media_type == SSE else "ndjson")
    return StreamAnswer(source, wire_for(media_type, service.settings), service.waits, service.settings, figures)


router.add_api_route("/{run_id}/events", events, methods=["GET"], responses=STREAMS, response_class=Response)
router.add_api_route("/{run_id}/events", events, methods=["HEAD"], include_in_schema=False)
