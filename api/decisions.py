"""Answers to questions that a run asks: POST /v1/runs/{id}/decisions.

A decision names the question it answers and the event and chain hash that the person was looking at. Both stand in the
log for good, so they are looked at here; whether somebody else was first is decided under the head's lock, and read
back from the log. That other branches of the run have gone on since then does not void an answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from time import time_ns
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from jsonschema import Draft202012Validator
from referencing import Registry
from sqlalchemy.ext.asyncio import AsyncConnection

from api.access import Sight, see
from api.callers import Caller
from api.errors import Fault, InvalidInput, MovedOn, NotAllowed
from api.negotiation import JSON, json_only, needs_json_body
from api.runs import spread, status_of
from api.service import Asked, Service, Who
from api.shapes import RunStatus, answer, links
from api.submission import faults_in, read_object
from eventstore import log
from eventstore.domain.disclosure import Policy, may_decide
from eventstore.domain.errors import RunClosed, UnknownRun
from eventstore.domain.events import Decision, new_event
from eventstore.domain.record import Fact, Recorded

NOTE_MAX: Final = 2_000
SEQ_MAX: Final = 2**31 - 1
CHAIN: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
FIELDS: Final = ("escalation", "choice", "answer", "seen", "note")
SCHEMA: Final = {
    "type": "object",
    "required": ["escalation", "seen"],
    "additionalProperties": False,
    "properties": {
        "escalation": {"type": "integer", "minimum": 1, "description": "seq of the question"},
        "choice": {"type": "string", "description": "one of the question's choices"},
        "answer": {"description": "a value of the question's schema, where it has no choices"},
        "seen": {
            "type": "object",
            "required": ["seq", "chain"],
            "additionalProperties": False,
            "properties": {"seq": {"type": "integer"}, "chain": {"type": "string", "pattern": "^[0-9a-f]{64}$"}},
            "description": "what the person was looking at, as the run's state says it under `seen`",
        },
        "note": {"type": "string", "maxLength": NOTE_MAX},
    },
}

router = APIRouter(prefix="/v1/runs", tags=["runs"])


@dataclass(frozen=True, slots=True)
class Said:
    """What a person decided, read but not yet judged."""

    escalation: int
    choice: str | None
    answer: Any
    seen_seq: int
    seen_chain: str
    note: str | None


@router.post(
    "/{run_id}/decisions",
    status_code=202,
    response_model=RunStatus,
    summary="Answer what a run asks",
    description="202 when this is the answer, 200 when the same one was given before, 409 when the run has moved on: "
    "answered otherwise, ended, or never asked. The policy of the workflow says which roles may answer.",
    openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": SCHEMA}}}},
)
async def decide(request: Request, service: Asked, caller: Who, run_id: str) -> Response:
    await json_only(request)
    needs_json_body(request)
    raw = await request.body()
    return await decide_on(service, caller, run_id, lambda: read_object(raw, service.settings.request_bytes_max))


async def decide_on(service: Service, caller: Caller, run_id: str, body: Callable[[], dict[str, Any]]) -> Response:
    """Answer what a run asks, on whichever front. What was said is read only when it is known that they may decide."""
    async with service.reading.connect() as connection:
        sight = await see(connection, service, caller, run_id)
        policy = service.policies.of(sight.run.workflow)
        if policy is None or not any(caller.role in roles for roles in policy.decide.values()):
            raise NotAllowed(f"No policy lets the role {caller.role} answer what runs of this workflow ask.")
        said = read_decision(body())
        question = await _question(connection, sight, caller, policy, said)
        _judge(question, said)
        seen = await _event(connection, sight, said.seen_seq)
    if seen is None or said.seen_seq < said.escalation or seen.chain.hex() != said.seen_chain:
        raise MovedOn("The log does not hold what you were looking at, or it came before the question. Look again.")
    return await _decided(service, sight, said, _decision(caller, question, said))


def read_decision(body: dict[str, Any]) -> Said:
    """The body of a decision. Approving a result will name the result where this names an escalation."""
    faults = [
        Fault("/" + name, f"unknown field; fields are {', '.join(FIELDS)}") for name in body if name not in FIELDS
    ]
    seen = body.get("seen")
    whole = seen if isinstance(seen, dict) and set(seen) == {"seq", "chain"} else {}
    choice, note = body.get("choice"), body.get("note")
    if not _is_seq(body.get("escalation")):
        faults.append(Fault("/escalation", "must be the seq of the question"))
    if not _is_seq(whole.get("seq")) or not CHAIN.fullmatch(str(whole.get("chain"))):
        faults.append(Fault("/seen", "must be the `seen` of the state that you were looking at: its seq and its chain"))
    if ("choice" in body) == ("answer" in body):
        faults.append(Fault("", "must hold either a choice or an answer"))
    if "choice" in body and not isinstance(choice, str):
        faults.append(Fault("/choice", "must be a text"))
    if "answer" in body and body["answer"] is None:
        faults.append(Fault("/answer", "must not be null"))
    if note is not None and not (isinstance(note, str) and len(note) <= NOTE_MAX):
        faults.append(Fault("/note", f"must be a text of at most {NOTE_MAX} characters"))
    if faults:
        raise InvalidInput(faults=faults)
    return Said(body["escalation"], choice, body.get("answer"), whole["seq"], whole["chain"], note or None)


def _is_seq(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= SEQ_MAX


async def _event(connection: AsyncConnection, sight: Sight, seq: int) -> Recorded | None:
    page = await log.read_after(connection, sight.run.run_id, seq - 1, limit=1)
    return page.events[0] if page.events else None


async def _question(connection: AsyncConnection, sight: Sight, caller: Caller, policy: Policy, said: Said) -> Fact:
    found = await _event(connection, sight, said.escalation)
    if found is None or found.type != "escalation":
        raise MovedOn(f"Nobody was asked anything at event {said.escalation}.")
    question = found.fact()
    if not may_decide(policy, caller.role, question.data["to"]):
        raise NotAllowed(f"This question is not put to the role {caller.role}.")
    return question


def _judge(question: Fact, said: Said) -> None:
    """An answer that the question has no place for is refused before it is anywhere."""
    choices, schema = question.data.get("choices", ()), question.data.get("answer_schema")
    if choices:
        if said.choice not in choices:
            raise InvalidInput(faults=[Fault("/choice", f"must be one of {', '.join(choices)}")])
        return
    if said.choice is not None:
        raise InvalidInput(faults=[Fault("/choice", "this question has no choices; give an answer")])
    # An empty registry: a schema that points outside itself is an error, never a download.
    validator = Draft202012Validator(schema or {}, registry=Registry())
    if faults := faults_in(validator, said.answer, "answer"):
        raise InvalidInput("The answer does not fit the question's schema.", faults=faults)


def _decision(caller: Caller, question: Fact, said: Said) -> Decision:
    closing = {
        name: question.data[name] for name in ("key", "place", "args", "under", "attempt") if name in question.data
    }
    return Decision(
        escalation=said.escalation,
        because="answered",
        by=caller.person,
        choice=said.choice,
        answer=said.answer,
        note=said.note,
        seen_seq=said.seen_seq,
        seen_chain=said.seen_chain,
        **closing,
    )


async def _decided(service: Service, sight: Sight, said: Said, body: Decision) -> Response:
    run, event = sight.run, new_event(body, time_ns() // 1_000)
    async with service.engine.begin() as connection:
        told = await log.control(connection, run.run_id, event)
    service.readers.seen(run.run_id)
    if told.verdict == "ok":
        service.tails.ask(run.run_id)
        service.errands.run(spread(service, run.run_id, told))
        return _answer(sight, told, 202)
    if told.verdict == "answered":
        assert told.seq is not None
        async with service.reading.connect() as connection:
            first = await _event(connection, sight, told.seq)
        assert first is not None
        if not _same(first.fact(), said):
            raise MovedOn(f"This question was answered otherwise before: event {told.seq}.")
        return _answer(sight, told, 200)
    if told.verdict == "unknown":
        raise UnknownRun
    if told.verdict == "closed":
        raise RunClosed
    raise MovedOn("The run takes no answer any more.")


def _same(first: Fact, said: Said) -> bool:
    """Whether a question was answered like this before. What nobody answered in time was not."""
    if first.data["because"] != "answered":
        return False
    before = [first.data.get("choice"), first.data.get("answer")]
    now = [said.choice, said.answer]
    return orjson.dumps(before, option=orjson.OPT_SORT_KEYS) == orjson.dumps(now, option=orjson.OPT_SORT_KEYS)


def _answer(sight: Sight, told: log.Control, status: int) -> Response:
    assert told.status is not None
    body = {**status_of(sight.run, told.status), "decision": {"seq": told.seq}}
    return answer(body, status, {"Location": links(sight.run.run_id)["self"], "Retry-After": "1"})
