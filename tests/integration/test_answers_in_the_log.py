"""What a model's answer leaves in a real log: text as it was released, provenance, and what every attempt has cost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import orjson
import pytest
import pytest_asyncio
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore.domain.record import Fact
from eventstore.domain.run import fold
from eventstore.recorder import Recorder
from tests.running import Runs
from tests.writing import new_tenant
from worker.__main__ import clock_us
from worker.declare import Check, workflow
from worker.digests import digest
from worker.holding import Redaction
from worker.llm.provider import create_model
from worker.llm.retrying import RetryPolicy
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings
from worker.registry import WORKFLOWS
from worker.run import Run
from worker.runner import Bench, advance
from worker.settings import WorkerSettings

NUMBER = Redaction(r"\b\d{3}[- ]\d{4}\b", "[number]")
SAID = "Call 555 1234 now. It is 555-9876, or so. The end is 555 0000"
RELEASED = "Call [number] now. It is [number], or so. The end is [number]"
LISTED = '{"parts": [{"name": "a", "size": 1}, {"name": "b", "size": 12}, {"name": "c", "size": 3}]}'
# Long enough that a wrong item near its beginning is met before the model is done, on a busy machine as well.
MANY = orjson.dumps({"parts": [{"name": f"p{n}", "size": n} for n in range(60)]}).decode().replace(",", ", ")
SCRIPT = [
    {"name": "said", "when": ["^say it$"], "reasoning": "The number is 555 1234.", "say": SAID},
    {"name": "list", "when": ["^list them$"], "say": LISTED},
    {"name": "many", "when": ["^list many$"], "say": MANY},
    {"name": "on and on", "when": ["^on and on$"], "say": "and on " * 2_000},
]


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")
    ask: str


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: str


@workflow(
    "asked",
    version=1,
    title="Asked",
    summary="Asks a model once.",
    input=Question,
    output=Reply,
    milestones=("Asking",),
    partial=lambda view: {"text": view.text("answer")},
)
async def asked(run: Run, question: Question) -> Reply:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": question.ask}]
    said = await run.model("say", messages, section="answer", hold="sentence", redact=[NUMBER])
    reply = Reply(text=said.text)
    return await run.validate(reply, [Check("said something", lambda value: bool(value.text))])


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    size: int


class Parts(BaseModel):
    model_config = ConfigDict(extra="forbid")
    parts: list[Part]


@workflow(
    "listed",
    version=1,
    title="Listed",
    summary="Reads a list from a model, item by item.",
    input=Question,
    output=Parts,
    milestones=("Listing",),
    partial=lambda view: {"parts": view.findings},
)
async def listed(run: Run, question: Question) -> Parts:
    reading = run.items("list", [{"role": "user", "content": question.ask}], Parts, "parts")
    async for part in reading:
        await run.finding(part, item=part.name)
    assert reading.value is not None
    return await run.validate(reading.value, [Check("some", lambda value: bool(value.parts))])


@workflow(
    "overheard",
    version=1,
    title="Overheard",
    summary="Reads a model piece by piece.",
    input=Question,
    output=Reply,
    milestones=("Asking",),
    partial=lambda view: {"text": view.text("answer")},
)
async def overheard(run: Run, question: Question) -> Reply:
    messages = [{"role": "user", "content": question.ask}]
    reading = run.model("say", messages, section="answer", hold="sentence", redact=[NUMBER]).text()
    reply = Reply(text="".join([piece async for piece in reading]))
    return await run.validate(reply, [Check("said something", lambda value: bool(value.text))])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as server:
        yield server


@pytest.fixture(params=["chat", "responses"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Carry = Callable[..., Awaitable[list[Fact]]]


@pytest.fixture
def carry(
    server: ScriptedServer,
    api_engine: AsyncEngine,
    worker_engine: AsyncEngine,
    owner_engine: AsyncEngine,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> Carry:
    """Submits a question, carries it to its end over an API, gives its log."""
    for declared in (asked, listed, overheard):
        monkeypatch.setitem(WORKFLOWS, declared.name, declared)
    server.faults.clear()
    settings: dict[str, Any] = {"OPENAI_API_KEY": None, "OPENAI_BASE_URL": None, "RUNWIRE_SCRIPTED_URL": server.url}

    async def carry(ask: str, api: str, name: str = "asked") -> list[Fact]:
        runs = Runs(api_engine, await new_tenant(owner_engine))
        run_id = await runs.submit(name, {"ask": ask})
        model = create_model(ModelSettings(**settings, responses_models="responses"))
        recorder = Recorder(worker_engine, redis, lease_s=600, heartbeat_s=1, clock_us=clock_us)
        bench = Bench(
            engine=worker_engine,
            recorder=recorder,
            model=model,
            model_name=api,
            retries=RetryPolicy(first_wait_s=0.001, jitter_s=0.001),
            workflows=WORKFLOWS,
            settings=WorkerSettings(),
            lease_s=600,
            owner="test",
            clock_us=clock_us,
        )
        recording = asyncio.create_task(recorder.run())
        await advance(bench, run_id, asyncio.Event())
        facts = await runs.ended(run_id)
        recording.cancel()
        with suppress(asyncio.CancelledError):
            await recording
        await model.aclose()
        return facts

    return carry


def only(facts: list[Fact], type_: str) -> Fact:
    [fact] = [fact for fact in facts if fact.type == type_]
    return fact


def text_of(facts: list[Fact], type_: str) -> str:
    return "".join(fact.data["text"] for fact in facts if fact.type == type_)


async def test_the_log_and_the_result_hold_the_text_as_it_was_released(carry: Carry, api: str) -> None:
    facts = await carry("say it", api)
    assert facts[-1].type == "result"
    assert text_of(facts, "token") == facts[-1].data["output"]["text"] == RELEASED
    assert text_of(facts, "reasoning") == "The number is [number]."
    stored = orjson.dumps([fact.data for fact in facts])
    assert all(secret not in stored for secret in (b"1234", b"9876", b"555 0000"))


async def test_whoever_reads_a_stream_gets_the_text_as_it_was_released(carry: Carry, api: str) -> None:
    facts = await carry("say it", api, "overheard")
    assert facts[-1].data["output"]["text"] == text_of(facts, "token") == RELEASED


async def test_an_answer_says_where_it_came_from(carry: Carry, api: str) -> None:
    told = only(await carry("say it", api), "model_call").data
    assert (told["model"], told["model_served"], told["host"]) == (api, api, "127.0.0.1")
    assert (told["finish"], told["finish_raw"]) == ("stop", "stop" if api == "chat" else "completed")
    assert told["request_id"].startswith("req_")
    assert told.get("system_fingerprint") == ("fp_scripted" if api == "chat" else None)
    system, user = told["message_digests"]
    assert system == digest({"role": "system", "content": "Be kind."})
    assert system != user
    assert told["output_digest"] == digest(RELEASED)
    assert "tools_digest" not in told
    assert told["usage"]["source"] == "provider"


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("cut", "estimated"),  # the provider had no time to say
        ("failed", "provider"),
    ],
)
async def test_a_dead_attempt_is_paid_for_and_says_so(
    carry: Carry, server: ScriptedServer, kind: str, source: str
) -> None:
    server.faults.add(Fault(kind=kind, after_pieces=15))
    facts = await carry("say it", "responses")
    dead = only(facts, "retry").data["usage"]
    assert dead["source"] == source
    assert dead["output_tokens"] > 0
    lived = only(facts, "model_call").data["usage"]
    state = fold(facts)
    assert state.usage.output_tokens == dead["output_tokens"] + lived["output_tokens"]
    assert facts[-1].data["usage"]["output_tokens"] == state.usage.output_tokens
    assert text_of([fact for fact in facts if fact.seq > only(facts, "retry").seq], "token") == RELEASED


async def test_an_attempt_that_never_began_to_answer_costs_nothing(
    carry: Carry, server: ScriptedServer, api: str
) -> None:
    server.faults.add(Fault(kind="503"))
    assert "usage" not in only(await carry("say it", api), "retry").data


async def test_too_much_held_ends_the_run_with_nothing_shown(carry: Carry, api: str) -> None:
    facts = await carry("on and on", api)
    assert (facts[-1].type, facts[-1].data["code"]) == ("error", "limit_hold_chars_max")
    assert text_of(facts, "token") == ""


def findings_of(facts: list[Fact]) -> list[str]:
    return [fact.data["item"] for fact in facts if fact.type == "finding"]


async def test_the_items_of_a_list_are_findings_before_the_model_is_done(carry: Carry, api: str) -> None:
    facts = await carry("list them", api, "listed")
    assert facts[-1].data["output"] == orjson.loads(LISTED)
    assert findings_of(facts) == ["a", "b", "c"]
    assert {fact.data.get("under") for fact in facts if fact.type == "finding"} <= {"list#1", None}


async def test_a_list_that_turns_out_wrong_breaks_the_stream_and_what_was_made_of_it_is_taken_back(
    carry: Carry, server: ScriptedServer, api: str
) -> None:
    server.faults.add(Fault.model_validate({"kind": "garble", "replace": {"from": '"size":1}', "to": '"size":"x"}'}}))
    server.pace.pieces_per_s = 100.0
    try:
        facts = await carry("list many", api, "listed")
    finally:
        server.pace.pieces_per_s = 0.0
    retry = only(facts, "retry")
    assert retry.data["reason"] == "malformed"
    dead = {seq for first, last in retry.data["superseded"] for seq in range(first, last + 1)}
    before = [fact for fact in facts if fact.seq < retry.seq and fact.type in {"token", "finding"}]
    assert findings_of(before) == ["p0"], "a closed item was acted on before the model was done"
    assert {fact.seq for fact in before} <= dead
    assert facts[-1].data["output"] == orjson.loads(MANY)
    assert [value["name"] for _, value in fold(facts).findings.values()] == [f"p{n}" for n in range(60)]
