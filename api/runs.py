"""The routes of runs: submit, list, state, cancel."""

from contextlib import suppress
from datetime import datetime
from http import HTTPStatus
from time import time_ns
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import Sight, see
from api.callers import MAY_STOP, Caller
from api.continuing import continued
from api.errors import BadRequest, Fault, InvalidInput, NotAllowed
from api.fronts.sources import LOG_AWAY, live, until_ended
from api.fronts.sse import StreamAnswer, event_stream
from api.lines import InLine, body_of, keep_in_bounds, line_of, lines, tag_of
from api.negotiation import (
    DIGITS,
    JSON,
    SSE,
    Number,
    asked_wait,
    has_version,
    idempotency_key,
    in_log,
    json_only,
    needs_json_body,
    preferred,
    size,
    trace_id,
)
from api.service import Asked, Service, Who
from api.shapes import RunInList, RunList, RunStatus, answer, is_done, links, state_body, version
from api.states import Known, Pages
from api.submission import judged, read_object, read_wish, submission
from eventstore import catalogue, log, readers, wakeups
from eventstore.catalogue import RunRow
from eventstore.domain.errors import AppendRefused, IdempotencyMismatch, LogUnavailable, UnknownRun
from eventstore.domain.events import CancelRequested, new_event
from eventstore.domain.lifecycle import Status
from eventstore.domain.record import rfc3339, to_us

REASON_MAX: Final = 500
NO_REASON: Final = "no reason given"
WISH_SCHEMA: Final = {
    "type": "object",
    "anyOf": [{"required": ["workflow", "input"]}, {"required": ["continues"]}],
    "additionalProperties": False,
    "properties": {
        "workflow": {"type": "string"},
        "input": {},
        "title": {"type": "string", "maxLength": 200},
        "continues": {"type": "string", "format": "uuid"},
    },
}
REASON_SCHEMA: Final = {"type": "object", "properties": {"reason": {"type": "string", "maxLength": REASON_MAX}}}

router = APIRouter(prefix="/v1/runs", tags=["runs"])


def _body(schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {JSON: {"schema": schema}}}}


@router.post(
    "",
    status_code=202,
    response_model=RunStatus,
    summary="Start a run",
    description="With `Accept: text/event-stream` the answer is the run's stream; with `Prefer: wait=N` it is the "
    "final state if the run ends in time. With an `Idempotency-Key` the same request starts one run, however often it "
    "is sent. With `continues` it takes up a run of yours that ended without a result: what that one had finished is "
    "not done again. Workflow and input are then that run's, and may be left out.",
    openapi_extra=_body(WISH_SCHEMA, required=True),
)
async def submit(request: Request, service: Asked, caller: Who) -> Response:
    media_type = preferred(request, [JSON, SSE])
    needs_json_body(request)
    wish = read_wish(await request.body(), service.settings.request_bytes_max)
    wish, earlier = await continued(service, caller, wish)
    offer, policy = await judged(service, caller, wish)
    if earlier is not None:
        earlier.check(offer)
    wanted = submission(
        caller,
        wish,
        offer,
        policy,
        idempotency_key(request),
        trace_id(request),
        service.settings.input_bytes_max,
        version=earlier.version if earlier is not None else None,
        continues=earlier.told if earlier is not None else None,
    )
    view = service.policies.view(offer.name, caller.role)
    wait_s = asked_wait(request, service.settings.poll_wait_s_max)
    # Looked for now: a run that was accepted must not be answered with a refusal.
    place = service.limits.stream(caller) if media_type == SSE or wait_s is not None else None
    async with service.engine.begin() as connection:
        opened = await catalogue.open_run(connection, wanted)
        if opened.verdict == "ok":
            await keep_in_bounds(connection, service, caller)
            if (policy_of_readers := offer.manifest.on_disconnect) is not None:
                await readers.expect(connection, opened.run_id, policy_of_readers)
    if opened.verdict == "mismatch":
        raise IdempotencyMismatch
    if opened.verdict == "out_of_range":
        raise LogUnavailable("The clocks of this server and of the log are too far apart to accept a run.")
    replayed = opened.verdict == "replayed"
    if not replayed:
        service.errands.run(service.handoff.hand_over(opened.run_id))

    location = links(opened.run_id)["self"]
    headers = {"Location": location, **({"Idempotent-Replayed": "true"} if replayed else {})}
    if media_type == SSE:
        assert place is not None
        figures = service.figures.stream("sse")
        source = place(live(service, opened.run_id, view, 0, figures))
        return StreamAnswer(source, event_stream(service.settings), service.waits, service.settings, figures, headers)
    if wait_s is not None:
        assert place is not None
        request.state.waited = True
        headers["Preference-Applied"] = f"wait={wait_s:g}"
        with place(service.readers.reading(opened.run_id)):
            ended = await until_ended(service.tails, service.waits, opened.run_id, wait_s, request.receive)
        if ended:
            return await _final(service, Sight(await _row(service, caller, opened.run_id), view), headers)
    row = _fresh(wanted, opened)
    if replayed or wait_s:
        with suppress(*LOG_AWAY):  # the run is accepted, whatever happens to the log now
            row = await _row(service, caller, opened.run_id)
    return answer(status_of(row, row.status), 202, {**headers, "Operation-Location": location, "Retry-After": "1"})


def _fresh(wanted: catalogue.Submission, opened: catalogue.Opened) -> RunRow:
    title, at_us = wanted.title, opened.recorded_us
    return RunRow(opened.run_id, wanted.tenant_id, wanted.subject, wanted.workflow, title, at_us, "queued", 1)


async def _row(service: Service, caller: Caller, run_id: UUID) -> RunRow:
    async with service.reading.connect() as connection:
        row = await catalogue.find_run(connection, caller.tenant_id, run_id)
    assert row is not None
    return row


def status_of(run: RunRow, status: Status) -> dict[str, Any]:
    """How a run stands, in short."""
    return {
        "id": run.run_id,
        "status": status,
        "done": is_done(status),
        "workflow": run.workflow,
        "title": run.title,
        "created_at": rfc3339(run.created_us),
        "links": links(run.run_id, status),
    }


@router.get("", summary="Your runs, newest first")
async def list_runs(
    request: Request,
    service: Asked,
    caller: Who,
    workflow: str | None = None,
    status: Status | None = None,
    limit: Annotated[Number | None, Query(ge=1)] = None,
    before: Annotated[UUID | None, Query(description="the `next` of the page before")] = None,
) -> RunList:
    await json_only(request)
    wanted = size(limit, service.settings.list_runs_default, service.settings.list_runs_max)
    async with service.reading.connect() as connection:
        found = await catalogue.list_runs(
            connection,
            caller.tenant_id,
            subject=caller.only_subject,
            workflow=workflow,
            status=status,
            before=before,
            limit=wanted + 1,
        )
        page = found[:wanted]
        places = await lines(connection, service, page)
    runs = [
        RunInList(
            id=run.run_id,
            workflow=run.workflow,
            title=run.title,
            status=run.status,
            created_at=rfc3339(run.created_us),
            seq=run.seq,
            queue=body_of(places.get(run.run_id)),
        )
        for run in page
    ]
    return RunList(runs=runs, next=page[-1].run_id if len(found) > wanted else None)


@router.get(
    "/{run_id}",
    summary="How a run stands, or stood",
    description="`at` is a seq or an RFC 3339 time: the state as it was there. The `ETag` changes with every event.",
)
async def show_run(
    request: Request,
    service: Asked,
    caller: Who,
    run_id: str,
    at: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    await json_only(request)
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, run_id)
        run, view = sight.run, sight.view
        if not sight.ended:
            service.readers.seen(run.run_id)
        place = await line_of(connection, service, run) if at is None else None
        if at is None and has_version(request, etag := version(view, run.seq, run.status, *tag_of(place))):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})
        pages = Pages(connection, run.run_id)
        known = await _state_then(service, pages, sight, at) if at else await service.states.at_end(pages, view)
    return _state(sight, known, {}, place if known.seq == run.seq else None)


async def _state_then(service: Service, pages: Pages, sight: Sight, at: str) -> Known:
    if DIGITS.fullmatch(at):
        known = await service.states.at(pages, sight.view, seq=in_log(int(at), sight.run.seq))
    else:
        try:
            moment = datetime.fromisoformat(at.replace(" ", "+"))  # an unescaped `+` arrives as a blank
        except ValueError:
            moment = None
        if moment is None or moment.tzinfo is None:
            raise BadRequest(faults=[Fault("/query/at", "must be a seq or an RFC 3339 time with its offset")])
        known = await service.states.at(pages, sight.view, at_us=to_us(moment))
    if known.seq == 0:
        raise BadRequest(faults=[Fault("/query/at", "lies before the beginning of this run")])
    return known


def _state(sight: Sight, known: Known, headers: dict[str, str], place: InLine | None = None) -> Response:
    etag = version(sight.view, known.seq, known.state.status, *tag_of(place))
    return answer(state_body(sight.run.run_id, known, body_of(place)), 200, {**headers, "ETag": etag})


async def _final(service: Service, sight: Sight, headers: dict[str, str]) -> Response:
    async with service.reading.connect() as connection:
        known = await service.states.at_end(Pages(connection, sight.run.run_id), sight.view)
    return _state(sight, known, headers)


@router.delete(
    "/{run_id}",
    status_code=202,
    response_model=RunStatus,
    summary="Stop a run",
    openapi_extra=_body(REASON_SCHEMA, required=False),
)
@router.post(
    "/{run_id}/cancel",
    status_code=202,
    response_model=RunStatus,
    summary="Stop a run",
    description="202 while it stops, 200 with the final state when it has ended; asking again changes nothing.",
    openapi_extra=_body(REASON_SCHEMA, required=False),
)
async def cancel(request: Request, service: Asked, caller: Who, run_id: str) -> Response:
    await json_only(request)
    raw = await request.body()
    if raw:
        needs_json_body(request)
    body = read_object(raw, service.settings.request_bytes_max) if raw else {}
    return await stop_run(service, caller, run_id, body)


async def stop_run(service: Service, caller: Caller, run_id: str, body: dict[str, Any]) -> Response:
    """Stop a run, on whichever front it was asked."""
    reason = _reason(body)
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, run_id)
    if caller.role not in MAY_STOP:
        raise NotAllowed(f"The role {caller.role} reads runs and does not stop them.")
    if not sight.ended:
        asked = new_event(CancelRequested(by=caller.person, reason=reason), time_ns() // 1_000)
        async with service.engine.begin() as connection:
            told = await _requested(connection, sight.run.run_id, asked)
        if told.verdict != "closed":
            service.tails.ask(sight.run.run_id)
            service.errands.run(spread(service, sight.run.run_id, told))
            headers = {"Location": links(sight.run.run_id)["self"], "Retry-After": "1"}
            return answer(status_of(sight.run, "stopping"), 202, headers)
    return await _final(service, sight, {})


async def _requested(connection: AsyncConnection, run_id: UUID, asked: Any) -> log.Control:
    told = await log.control(connection, run_id, asked)
    if told.verdict == "unknown":
        raise UnknownRun
    if told.verdict == "refused":
        raise AppendRefused(told.verdict)
    return told


async def spread(service: Service, run_id: UUID, told: log.Control) -> None:
    """Let the worker and the readers know. A run that nobody owns goes to a worker, which will act on what was said."""
    await wakeups.publish(service.redis, wakeups.CONTROL, run_id.hex)
    if told.seq is not None:
        await wakeups.publish(service.redis, wakeups.MOVED, wakeups.moved_payload([(run_id, told.seq)]))
    if not told.owned:
        await service.handoff.hand_over(run_id)


def _reason(body: dict[str, Any]) -> str:
    faults = [Fault("/" + name, "unknown field; the only one is reason") for name in body if name != "reason"]
    reason = body.get("reason") or NO_REASON
    if not isinstance(reason, str) or len(reason) > REASON_MAX:
        faults.append(Fault("/reason", f"must be a text of at most {REASON_MAX} characters"))
    if faults:
        raise InvalidInput(faults=faults)
    return str(reason)
