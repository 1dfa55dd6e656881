"""The polling front, for networks that let only short requests through: what is new, and how the run stands.

Every answer carries all that a page needs to be drawn again, so a reader that missed any number of answers is whole
after the next one. The cost of an answer is that of the new events: where the run stands is asked for many requests at
once, its newest events and its folded state are at hand, and what was made of a state is made once.

A poll's cursor stands in its address, and `links.next` is an address that was never asked before. So a cache that keeps
what it was told not to keep can repeat an old answer only to who asks the old question, and no answer, however old,
holds a `next_after` before the cursor that it was asked with.
"""

from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import APIRouter, Request, Response

from api.access import Sight, sight_of
from api.callers import Caller
from api.fronts import drafts
from api.fronts.advice import retry_after
from api.fronts.drafts import Drafts
from api.fronts.feed import Feed, View
from api.fronts.pages import Page, page_of
from api.fronts.sources import until_shown
from api.lines import InLine, body_of, in_line, tag_of
from api.negotiation import (
    After,
    Draft,
    Limit,
    Turn,
    Types,
    Wait,
    asked_wait,
    in_log,
    json_only,
    next_turn,
    types_in,
    versions,
)
from api.pressing import pressed
from api.service import Asked, Service, Who
from api.shapes import is_done, links, seen_of, version
from api.states import Known, Pages
from eventstore.catalogue import RunRow
from eventstore.domain.transcript import milestones, public_partial

VARY: Final = "Accept-Encoding, Authorization, X-API-Key"

router = APIRouter(prefix="/v1/runs", tags=["events"])


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a poll asks for."""

    after: int = 0
    limit: int | None = None
    wait: int | None = None
    partial: Drafts = "recent"
    types: frozenset[str] | None = None

    @property
    def form(self) -> str:
        """What is to be in an answer, apart from where it begins and ends."""
        return self.partial if self.types is None else f"{self.partial}.{'+'.join(sorted(self.types))}"

    def tag(self) -> str:
        """What an ETag must hold of it."""
        return f"{self.after}.{self.limit or 0}:{self.form}"

    def view(self, sight: Sight) -> View:
        """Which events come."""
        return sight.view if self.types is None else sight.view.only(self.types)

    def next(self, run_id: UUID, next_after: int) -> str:
        """Where to ask on from here."""
        own: dict[str, Any] = {"limit": self.limit, "wait": self.wait}
        given = {name: value for name, value in own.items() if value is not None}
        if self.partial != "recent":
            given["partial"] = self.partial
        if self.types is not None:
            given["types"] = ",".join(sorted(self.types))
        return f"/v1/runs/{run_id}/poll?" + urlencode({"after": next_after, **given, "turn": next_turn()}, safe=",")


@router.api_route(
    "/{run_id}/poll",
    methods=["GET"],
    summary="What is new in a run, and how it stands",
    description="Ask again at `links.next`, or with `after` = `next_after`: at once while `more` is true and after "
    "`Retry-After` seconds otherwise; `done` says that the run has ended. A page of large events is shorter than "
    "`limit`: only `more` tells of what is left. With `wait` or `Prefer: wait=N` the answer comes with the next event "
    "that you may see, or when the time is up. With `If-None-Match`, 304 says that nothing has changed. `partial` is "
    "the draft: its end (`recent`), all of it (`full`), what was added to what your cursor stands for (`delta`), or "
    "`none`.",
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
    partial: Draft = "recent",
    types: Types = None,
    turn: Turn = None,
) -> Response:
    wanted = Wanted(after or 0, limit, wait, partial, types_in(types))
    return await polled(request, service, caller, run_id, wanted)


router.add_api_route("/{run_id}/poll", poll, methods=["HEAD"], include_in_schema=False)


async def polled(request: Request, service: Service, caller: Caller, run_id: str, wanted: Wanted) -> Response:
    """The answer to one poll."""
    await json_only(request)
    sight = await sight_of(service, caller, run_id)
    place = await _place(service, sight)
    run = sight.run
    cursor = in_log(wanted.after, run.seq)
    known = versions(request)
    headers: dict[str, str] = {}
    wait_s = asked_wait(request, service.settings.poll_wait_s_max, wanted.wait)
    if wait_s is not None:
        headers["Preference-Applied"] = f"wait={wait_s:g}"
    if wait_s and not sight.ended:
        request.state.waited = True
        seen = run.seq if _has(known, sight, wanted, place) else cursor
        with service.limits.stream(caller)(service.readers.reading(run.run_id)):
            await until_shown(
                service.tails, service.waits, run.run_id, wanted.view(sight), seen, wait_s, request.receive
            )
        sight = await sight_of(service, caller, run_id)
        place = await _place(service, sight)
    if not sight.ended:
        service.readers.seen(run.run_id)
    if known and _has(known, sight, wanted, place):
        return _unchanged(service, sight, wanted, headers, place)
    return await _news(request, service, sight, wanted, headers, place)


async def _place(service: Service, sight: Sight) -> InLine | None:
    """Only of a run that was never begun: of others nobody who polls expects one, and asking costs each poll."""
    place = await service.places.of(sight.run.run_id) if sight.run.status == "queued" else None
    return in_line(place) if place is not None else None


def _has(known: list[str], sight: Sight, wanted: Wanted, place: InLine | None) -> bool:
    """Whether the reader has this answer already. One who has read to the end may show the version of any answer that
    was made there, whatever it was asked with: there is nothing that it lacks."""
    if not known:
        return False
    core = _core(sight.view, sight.run.seq, sight.chain, sight.run.status, place)
    if f"{core};{wanted.tag()}" in known or "*" in known:
        return True
    form = ":" + wanted.form
    return wanted.after == sight.run.seq and any(tag.startswith(core + ";") and tag.endswith(form) for tag in known)


def _core(view: View, seq: int, chain: bytes, status: str | None, place: InLine | None) -> str:
    return version(view, seq, status, chain[:4].hex(), *tag_of(place))[1:-1]


def _unchanged(
    service: Service, sight: Sight, wanted: Wanted, headers: dict[str, str], place: InLine | None
) -> Response:
    core = _core(sight.view, sight.run.seq, sight.chain, sight.run.status, place)
    headers |= _about(service, sight.run, sight.run.status, place, core, wanted, wanted.after)
    return Response(status_code=304, headers=headers)


def _about(
    service: Service, run: RunRow, status: str | None, place: InLine | None, core: str, wanted: Wanted, after: int
) -> dict[str, str]:
    """What is said about an answer: its version, and when and where to ask on."""
    about = {"ETag": f'W/"{core};{wanted.tag()}"', "Vary": VARY}
    if not is_done(status):
        about["Retry-After"] = retry_after(service, run, status, place)
        about["Link"] = f'<{wanted.next(run.run_id, after)}>; rel="next"'
    return about


async def _news(
    request: Request,
    service: Service,
    sight: Sight,
    wanted: Wanted,
    headers: dict[str, str],
    place: InLine | None,
) -> Response:
    run, view = sight.run, sight.view
    pages = Pages(service.reading, run.run_id, await service.newest.upto(run, sight.chain))
    # The state first: it reads the new events anyway, and the page, made of the same, ends where the state does.
    known = await service.states.at_end(pages, view)
    feed = Feed(wanted.view(sight), wanted.after, known.seq)
    page = await page_of(pages, feed, wanted.limit, service.settings, keep=wanted.partial == "delta")
    service.figures.delivered("poll", len(page.frames))
    place = place if known.seq == run.seq else None
    status, more = known.state.status, page.next_after < known.seq
    core = _core(view, known.seq, known.chain, status, place)
    headers |= _about(service, run, status, place, core, wanted, page.next_after)
    if more:
        headers["Retry-After"] = "0"
    addresses = links(run.run_id, status)
    if more or not is_done(status):
        addresses["next"] = wanted.next(run.run_id, page.next_after)
    first = orjson.dumps({"id": run.run_id, **page.body(known.seq)})
    last = orjson.dumps({"queue": body_of(place), "links": addresses})
    partial = await _draft(service, pages, view, known, page, wanted)
    body = b"".join((first[:-1], b",", _standing(known), b',"partial":', partial, b",", last[1:]))
    return await pressed(request, body, headers, service.settings.poll_gzip_bytes_min)


def _standing(known: Known) -> bytes:
    """How the run stands, as members of an object; made once for each state."""
    if (told := known.told.get("standing")) is None:
        state = known.state
        told = orjson.dumps(
            {
                "status": state.status,
                "done": is_done(state.status),
                "milestone": dict(state.milestone) if state.milestone else None,
                "milestones": milestones(state),
                "questions": [{"seq": seq, **asked} for seq, asked in state.questions.items()],
                "result": {"final": True, **state.result} if state.result is not None else None,
                "error": dict(state.error) if state.error else None,
                "seen": seen_of(known),
            }
        )[1:-1]
        known.keep("standing", told)
    return told


async def _draft(service: Service, pages: Pages, view: View, known: Known, page: Page, wanted: Wanted) -> bytes:
    """The draft as the reader wants it."""
    if wanted.partial == "none":
        return b"null"
    if wanted.partial == "full":
        return orjson.dumps(public_partial(known.state))
    if wanted.partial == "recent":
        if (told := known.told.get("recent")) is None:
            told = orjson.dumps(drafts.recent(known.state, service.settings.poll_draft_chars))
            known.keep("recent", told)
        return told
    at_end = page.next_after == known.seq
    if at_end and is_done(known.state.status):
        return orjson.dumps(drafts.whole(known.state))
    added = drafts.added([fact for entry in page.taken if (fact := view.fact(entry)) is not None], wanted.after)
    if added is None:
        there = known if at_end else await service.states.at(pages, view, seq=page.next_after)
        return orjson.dumps(drafts.whole(there.state))
    return orjson.dumps(added)
