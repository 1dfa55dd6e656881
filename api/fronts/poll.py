"""The polling front, for networks that let only short requests through: what is new, and how the run stands.

Every answer carries all that a page needs to be drawn again, so a reader that missed any number of answers is whole
after the next one. The cost of an answer is that of the new events: the state is folded from where it was.
"""

from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import Sight, see
from api.fronts.feed import Feed
from api.fronts.pages import page_of
from api.fronts.sources import until_shown
from api.lines import InLine, body_of, line_of, tag_of
from api.negotiation import After, Limit, Wait, asked_wait, has_version, in_log, json_only
from api.service import Asked, Service, Who
from api.shapes import RETRY_AFTER_S, answer, links, version
from api.states import Pages
from eventstore.domain.transcript import public

SHOWN = ("status", "done", "milestone", "milestones", "questions", "partial", "result", "error")

router = APIRouter(prefix="/v1/runs", tags=["events"])


@router.get(
    "/{run_id}/poll",
    summary="What is new in a run, and how it stands",
    description="Ask again with `after` = `next_after`, at once while `more` is true and after `Retry-After` seconds "
    "otherwise; `done` says that the run has ended. A page of large events is shorter than `limit`: only `more` tells "
    "of what is left. With `wait` or `Prefer: wait=N` the answer comes with the next event that you may see, or when "
    "the time is up. With `If-None-Match`, 304 says that nothing has changed.",
    response_class=Response,
)
async def poll(
    request: Request,
    service: Asked,
    caller: Who,
    run_id: str,
    after: After = None,
    limit: Limit = None,
    wait: Wait = None,
) -> Response:
    await json_only(request)
    asked = (after or 0, limit or 0)
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, run_id)
        place = await _place(connection, service, sight)
    cursor = in_log(after or 0, sight.run.seq)
    headers: dict[str, str] = {}
    wait_s = asked_wait(request, service.settings.poll_wait_s_max, wait)
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s:g}"
    if wait_s and not sight.ended:
        request.state.waited = True
        etag = _version(sight, sight.run.seq, sight.run.status, asked, place)
        seen = sight.run.seq if has_version(request, etag) else cursor
        view, run = sight.view, sight.run
        with service.limits.stream(caller)(service.readers.reading(run.run_id)):
            await until_shown(service.tails, service.waits, run.run_id, view, seen, wait_s, request.receive)
        async with service.reading.connect() as connection:
            sight = await see(connection, service, caller, run_id)
            place = await _place(connection, service, sight)
    if not sight.ended:
        service.readers.seen(sight.run.run_id)
    if has_version(request, etag := _version(sight, sight.run.seq, sight.run.status, asked, place)):
        return Response(status_code=304, headers={**headers, "ETag": etag, **_advice(sight.run.status)})
    return await _news(service, sight, asked, headers, place)


async def _place(connection: AsyncConnection, service: Service, sight: Sight) -> InLine | None:
    """Only of a run that was never begun: of others nobody who polls expects one, and asking costs each poll."""
    return await line_of(connection, service, sight.run) if sight.run.status == "queued" else None


async def _news(
    service: Service, sight: Sight, asked: tuple[int, int], headers: dict[str, str], place: InLine | None
) -> Response:
    after, limit = asked
    run_id, view = sight.run.run_id, sight.view
    async with service.reading.connect() as connection:
        pages = Pages(connection, run_id)
        # The state first: it reads the new events anyway, and the page, made of the same, ends where the state does.
        known = await service.states.at_end(pages, view)
        page = await page_of(pages, Feed(view, after, known.seq), limit or None, service.settings)
    service.figures.delivered("poll", len(page.frames))
    state = public(known.state)
    place = place if known.seq == sight.run.seq else None
    body: dict[str, Any] = {"id": run_id, **page.body(known.seq), **{name: state[name] for name in SHOWN}}
    body["queue"] = body_of(place)
    etag = _version(sight, known.seq, known.state.status, asked, place)
    advice = {"Retry-After": "0"} if body["more"] else _advice(known.state.status)
    return answer({**body, "links": links(run_id, known.state.status)}, 200, {**headers, "ETag": etag, **advice})


def _version(sight: Sight, seq: int, status: str | None, asked: tuple[int, int], place: InLine | None) -> str:
    return version(sight.view, seq, status, *asked, *tag_of(place))


def _advice(status: str | None) -> dict[str, str]:
    """When to ask again: not at all once the run has ended, and less often while it only waits for its turn."""
    seconds = RETRY_AFTER_S.get(status or "")
    return {"Retry-After": seconds} if seconds else {}
