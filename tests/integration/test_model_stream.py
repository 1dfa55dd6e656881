"""The real SDK against the real scripted server, over HTTP."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
import pytest_asyncio

from worker.llm.chat import ChatModel, create_chat_model
from worker.llm.model import (
    ModelEnd,
    ModelFault,
    ModelRequest,
    Piece,
    ReasoningPiece,
    TextPiece,
    ToolCallPiece,
    Usage,
)
from worker.llm.retrying import FailedAttempt, RetryPolicy, with_retries
from worker.llm.scripted_chat import Pace
from worker.llm.scripted_faults import Fault
from worker.llm.scripted_rules import parse_rules
from worker.llm.scripted_server import ScriptedServer
from worker.llm.settings import ModelSettings

TEXT = "Clause 4.1:\n\n  the cap is \N{EURO SIGN}2\N{NARROW NO-BREAK SPACE}million,\tuncapped \N{PILE OF POO}.  \n"
SCRIPT = [
    {"name": "text", "when": ["^say the text$"], "reasoning": "Let me  think.\n", "say": TEXT},
    {"name": "tool", "when": ["^look up (?P<what>\\w+)$"], "say": "Looking.", "tool_calls": [
        {"name": "policy_lookup", "arguments": {"topic": "{what}", "notes": ["\N{SECTION SIGN} 4", None]}},
        {"name": "count", "arguments": {}},
    ]},
    {"name": "finish", "when": ["^finish with (?P<word>\\w+)$"], "say": "x", "finish": "content_filter"},
    {"name": "echo", "when": ["^echo (?P<word>.+)$"], "say": "{word} {word} {word}"},
    {"name": "long", "when": ["^talk for long$"], "say": " ".join(str(number) for number in range(5_000))},
]  # fmt: skip
# How soon the server must have noticed that its client left.
NOTICED_S = 0.1


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def running() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer(parse_rules(orjson.dumps(SCRIPT), source="here"), pace=Pace(0)) as server:
        yield server


@pytest.fixture
def server(running: ScriptedServer) -> ScriptedServer:
    running.faults.clear()
    running.journal.clear()
    running.pace.pieces_per_s, running.pace.first_piece_s = 0.0, 0.0
    return running


@pytest_asyncio.fixture(loop_scope="session")
async def make_model(server: ScriptedServer) -> AsyncIterator[Callable[..., ChatModel]]:
    models: list[ChatModel] = []

    def make(**settings: Any) -> ChatModel:
        models.append(create_chat_model(settings_for(server.url, **settings)))
        return models[-1]

    yield make
    for model in models:
        await model.aclose()


@pytest.fixture
def model(make_model: Callable[..., ChatModel]) -> ChatModel:
    return make_model()


def settings_for(url: str, **settings: Any) -> ModelSettings:
    return ModelSettings(OPENAI_API_KEY=None, OPENAI_BASE_URL=None, RUNWIRE_SCRIPTED_URL=url, **settings)


def asking(text: str, **parameters: Any) -> ModelRequest:
    return ModelRequest("scripted-1", ({"role": "user", "content": text},), parameters)


async def read(model: ChatModel, request: ModelRequest) -> tuple[list[Piece], ModelEnd]:
    pieces, fault_or_end = await read_on(model, request)
    assert isinstance(fault_or_end, ModelEnd), fault_or_end
    return pieces, fault_or_end


async def read_on(model: ChatModel, request: ModelRequest) -> tuple[list[Piece], ModelEnd | ModelFault]:
    """The pieces, and the end or the fault that ended them."""
    pieces: list[Piece] = []
    end: ModelEnd | None = None
    try:
        async with aclosing(model.stream(request)) as stream:
            async for item in stream:
                assert end is None, "nothing comes after the end"
                if isinstance(item, ModelEnd):
                    end = item
                else:
                    pieces.append(item)
    except ModelFault as fault:
        return pieces, fault
    assert end is not None
    return pieces, end


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, TextPiece))


async def until(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is written down by the server, not signalled
            await asyncio.sleep(0)


def closed(server: ScriptedServer) -> bool:
    entries = server.journal.entries()
    return bool(entries) and entries[-1]["ended"] is not None


# --- answers


async def test_the_text_arrives_exactly_and_the_thinking_before_it(model: ChatModel) -> None:
    pieces, end = await read(model, asking("say the text"))
    assert text_of(pieces) == TEXT
    thinking = [piece for piece in pieces if isinstance(piece, ReasoningPiece)]
    assert "".join(piece.text for piece in thinking) == "Let me  think.\n"
    assert pieces[: len(thinking)] == thinking
    assert len(pieces) > 10
    assert (end.finish, end.finish_raw, end.pieces) == ("stop", "stop", len(pieces))


async def test_the_end_says_who_served_what_it_used_and_how_long_it_took(
    model: ChatModel, server: ScriptedServer
) -> None:
    pieces, end = await read(model, asking("say the text"))
    entry = server.journal.entries()[-1]
    assert (end.model_served, end.system_fingerprint, end.request_id) == ("scripted-1", "fp_scripted", entry["id"])
    thought = sum(isinstance(piece, ReasoningPiece) for piece in pieces)
    assert end.usage == Usage(input_tokens=3, output_tokens=len(pieces), reasoning_tokens=thought)
    assert end.first_piece_ms is not None
    assert 0 < end.first_piece_ms <= end.total_ms
    assert (entry["ended"], entry["pieces"], entry["rule"]) == ("finished", len(pieces), "text")


async def test_tool_calls_arrive_whole_after_the_text(model: ChatModel) -> None:
    pieces, end = await read(model, asking("look up liability"))
    calls = [piece for piece in pieces if isinstance(piece, ToolCallPiece)]
    assert [(call.index, call.name) for call in calls] == [(0, "policy_lookup"), (1, "count")]
    assert orjson.loads(calls[0].arguments) == {"topic": "liability", "notes": ["\N{SECTION SIGN} 4", None]}
    assert calls[0].id.startswith("call_")
    assert calls[0].id != calls[1].id
    assert pieces[-2:] == calls
    assert end.finish == "tool_calls"


async def test_the_same_question_is_answered_the_same(model: ChatModel) -> None:
    first, _ = await read(model, asking("look up cap"))
    again, _ = await read(model, asking("look up cap"))
    assert first == again


async def test_an_answer_that_is_too_long_ends_with_length_and_a_cut_call_is_not_given(model: ChatModel) -> None:
    pieces, end = await read(model, asking("say the text", max_completion_tokens=4))
    assert (end.finish, len(pieces)) == ("length", 4)
    pieces, end = await read(model, asking("look up cap", max_completion_tokens=3))
    assert (end.finish, pieces) == ("length", [TextPiece("Looking.")])


async def test_an_answer_stopped_by_content_rules_keeps_its_finish(model: ChatModel) -> None:
    _, end = await read(model, asking("finish with care"))
    assert end.finish == "content_filter"


async def test_a_connection_is_used_again_after_a_whole_answer(model: ChatModel, server: ScriptedServer) -> None:
    for _ in range(3):
        await read(model, asking("say the text"))
    assert len({entry["client"] for entry in server.journal.entries()}) == 1


async def test_many_answers_at_once_do_not_mix(model: ChatModel) -> None:
    answers = await asyncio.gather(*(read(model, asking(f"echo word{number}")) for number in range(100)))
    assert [text_of(pieces) for pieces, _ in answers] == [" ".join([f"word{n}"] * 3) for n in range(100)]


async def test_the_first_piece_is_given_before_the_last_is_made(
    make_model: Callable[..., ChatModel], server: ScriptedServer
) -> None:
    server.pace.pieces_per_s = 1.0
    async with aclosing(make_model().stream(asking("talk for long"))) as stream:
        assert await anext(stream) == TextPiece("0")
        assert server.journal.entries()[-1]["pieces"] == 1


async def test_the_typed_client_of_the_sdk_reads_the_same(server: ScriptedServer, model: ChatModel) -> None:
    messages: list[Any] = [{"role": "user", "content": "say the text"}]
    async with openai.AsyncOpenAI(api_key="any", base_url=server.url, max_retries=0) as client:
        stream = await client.chat.completions.create(model="scripted-1", messages=messages, stream=True)
        typed = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        whole = await client.chat.completions.create(model="scripted-1", messages=messages)
        models = [item.id async for item in client.models.list()]
    assert typed == whole.choices[0].message.content == TEXT
    assert whole.choices[0].finish_reason == "stop"
    assert models == ["scripted-1"]


# --- faults


@pytest.mark.parametrize(
    ("order", "code", "retryable"),
    [
        ({"kind": "429"}, "provider_busy", True),
        ({"kind": "429", "error_code": "insufficient_quota"}, "provider_refused", False),
        ({"kind": "500"}, "provider_busy", True),
        ({"kind": "503"}, "provider_busy", True),
        ({"kind": "400"}, "provider_refused", False),
        ({"kind": "401"}, "provider_refused", False),
        ({"kind": "404", "error_code": "model_not_found"}, "provider_refused", False),
        ({"kind": "400", "error_code": "content_filter"}, "content_filter", False),
        ({"kind": "not_a_stream"}, "malformed", True),
        ({"kind": "cut"}, "connection", True),
        ({"kind": "reset"}, "connection", True),
        ({"kind": "early_end"}, "stream_incomplete", True),
        ({"kind": "malformed"}, "malformed", True),
        ({"kind": "bad_utf8"}, "malformed", True),
        ({"kind": "error_frame"}, "provider_busy", True),
        ({"kind": "hang"}, "limit_between_pieces_s", True),
        ({"kind": "slow_first", "delay_s": 30.0}, "limit_first_byte_s", True),
    ],
)
async def test_each_fault_has_its_code_and_none_shows_the_words_of_the_provider(
    make_model: Callable[..., ChatModel], server: ScriptedServer, order: dict[str, Any], code: str, retryable: bool
) -> None:
    server.faults.add(Fault.model_validate(order))
    quick = 0.2 if code.startswith("limit_") else 30.0
    async with asyncio.timeout(4):  # sooner than the transport's own time-out behind ours
        pieces, fault = await read_on(make_model(first_byte_s=quick, between_pieces_s=quick), asking("say the text"))
    assert isinstance(fault, ModelFault)
    assert (fault.code, fault.retryable, pieces) == (code, retryable, [])
    assert "scripted provider text" not in f"{fault} {fault!r} {fault.message_safe}"
    assert fault.__cause__ is None
    assert fault.__suppress_context__ or fault.__context__ is None
    await until(lambda: closed(server))
    expected = "client_closed" if code.startswith("limit_") else order["kind"]
    assert server.journal.entries()[-1]["ended"] == expected
    again, _ = await read(make_model(), asking("say the text"))
    assert text_of(again) == TEXT


@pytest.mark.parametrize("kind", ["cut", "early_end", "malformed", "bad_utf8", "error_frame", "hang"])
@pytest.mark.parametrize("after", [1, 7, 10_000])
async def test_what_was_said_before_a_fault_is_given_and_nothing_else(
    make_model: Callable[..., ChatModel], server: ScriptedServer, kind: str, after: int
) -> None:
    model = make_model(between_pieces_s=0.2)
    whole, _ = await read(model, asking("say the text"))
    server.faults.add(Fault(kind=kind, after_pieces=after))
    pieces, fault = await read_on(model, asking("say the text"))
    assert isinstance(fault, ModelFault)
    assert pieces == whole[:after]


async def test_retry_after_is_read(model: ChatModel, server: ScriptedServer) -> None:
    server.faults.add(Fault(kind="429", retry_after_s=2.5))
    _, fault = await read_on(model, asking("say the text"))
    assert isinstance(fault, ModelFault)
    assert (fault.retry_after_s, fault.status, fault.request_id) == (2.5, 429, server.journal.entries()[-1]["id"])


async def test_a_fault_in_the_stream_names_the_request(model: ChatModel, server: ScriptedServer) -> None:
    for kind in ("early_end", "malformed", "cut"):
        server.faults.add(Fault(kind=kind, after_pieces=2))
        _, fault = await read_on(model, asking("say the text"))
        assert isinstance(fault, ModelFault)
        assert fault.request_id == server.journal.entries()[-1]["id"]


async def test_a_garbled_answer_is_whole_but_says_something_else(model: ChatModel, server: ScriptedServer) -> None:
    server.faults.add(Fault.model_validate({"kind": "garble", "replace": {"from": "million", "to": "thousand"}}))
    pieces, end = await read(model, asking("say the text"))
    assert text_of(pieces) == TEXT.replace("million", "thousand")
    assert end.finish == "stop"


async def test_nobody_at_the_address_is_a_connection_fault() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        model = create_chat_model(settings_for(f"http://127.0.0.1:{unheard.getsockname()[1]}/v1"))
        _, fault = await read_on(model, asking("x"))
        await model.aclose()
    assert isinstance(fault, ModelFault)
    assert (fault.code, fault.retryable) == ("connection", True)


async def test_a_busy_provider_is_asked_again_and_the_caller_hears_it_first(
    model: ChatModel, server: ScriptedServer
) -> None:
    server.faults.add(Fault(kind="429", retry_after_s=3))
    server.faults.add(Fault(kind="cut", after_pieces=3))
    heard: list[tuple[str, int | None, int]] = []
    waits: list[float] = []

    async def ask(_attempt: int) -> str:
        return text_of((await read(model, asking("say the text")))[0])

    async def raising(attempt: int) -> str:
        pieces, end = await read_on(model, asking("say the text"))
        if isinstance(end, ModelFault):
            raise end
        return f"{attempt} {text_of(pieces)}"

    async def on_failed(failed: FailedAttempt) -> None:
        heard.append((failed.fault.code, failed.next_attempt, len(server.journal.entries())))

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    assert await with_retries(raising, on_failed, policy=RetryPolicy(), sleep=sleep) == f"3 {TEXT}"
    assert heard == [("provider_busy", 2, 1), ("connection", 3, 2)]
    assert 3 <= waits[0] <= 3.5
    assert await ask(1) == TEXT


# --- leaving


async def test_closing_the_stream_closes_the_connection_at_once(model: ChatModel, server: ScriptedServer) -> None:
    server.pace.pieces_per_s = 1000.0
    stream = model.stream(asking("talk for long"))
    seen = [await anext(stream) for _ in range(3)]
    left_at = time.monotonic()
    await stream.aclose()
    await until(lambda: closed(server))
    entry = server.journal.entries()[-1]
    assert len(seen) == 3
    assert entry["ended"] == "client_closed"
    assert entry["closed_mono"] - left_at < NOTICED_S
    server.pace.pieces_per_s = 0.0
    await read(model, asking("talk for long"))
    assert server.journal.entries()[-2]["pieces"] == entry["pieces"] < 5_000, "it spoke on to nobody"


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "hang", "after_pieces": 2},
        {"kind": "hang"},
        {"kind": "slow_first", "delay_s": 60.0},
    ],
)
async def test_cancelling_the_reader_closes_the_connection_at_once(
    model: ChatModel, server: ScriptedServer, order: dict[str, Any]
) -> None:
    server.faults.add(Fault.model_validate(order))
    task = asyncio.create_task(read_on(model, asking("say the text")))
    pieces = order.get("after_pieces", 0)
    await until(lambda: bool(server.journal.entries()) and server.journal.entries()[-1]["pieces"] == pieces)
    left_at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: closed(server))
    entry = server.journal.entries()[-1]
    assert entry["ended"] == "client_closed"
    assert entry["closed_mono"] - left_at < NOTICED_S


async def test_a_hundred_readers_that_leave_together_leave_no_connection(
    model: ChatModel, server: ScriptedServer
) -> None:
    server.faults.add(Fault(kind="hang", after_pieces=1, times=100))
    tasks = [asyncio.create_task(read_on(model, asking(f"echo {number}"))) for number in range(100)]
    await until(lambda: sum(entry["pieces"] for entry in server.journal.entries()) == 100, within_s=20)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await until(lambda: all(entry["ended"] == "client_closed" for entry in server.journal.entries()))
    pieces, _ = await read(model, asking("say the text"))
    assert text_of(pieces) == TEXT


# --- steering and running the server


async def test_tests_and_drills_steer_the_server_over_http(server: ScriptedServer, model: ChatModel) -> None:
    base = server.url.removesuffix("/v1")
    async with httpx.AsyncClient(base_url=base, trust_env=False) as control:
        order = {"kind": "cut", "after_pieces": 2, "times": 2, "when": "text"}
        assert (await control.post("/scripted/faults", json=order)).status_code == 201
        _, fault = await read_on(model, asking("say the text"))
        assert isinstance(fault, ModelFault)
        assert (await control.get("/scripted/faults")).json()["waiting"][0]["times"] == 1
        assert (await control.delete("/scripted/faults")).json() == {"waiting": []}
        assert (await control.post("/scripted/faults", json={"kind": "boom"})).status_code == 400
        assert (await control.post("/scripted/faults", content=b"{")).status_code == 400
        seen = (await control.get("/scripted/journal")).json()["requests"]
        assert [(entry["ended"], entry["fault"], entry["pieces"]) for entry in seen] == [("cut", "cut", 2)]
        assert (await control.delete("/scripted/journal")).json() == {"requests": []}
        pace = await control.post("/scripted/pace", json={"pieces_per_s": 5, "first_piece_s": 0.5})
        assert pace.json() == {"pieces_per_s": 5.0, "first_piece_s": 0.5}
        assert (await control.post("/scripted/pace", json={"pieces_per_s": -5})).status_code == 400
        assert (await control.delete("/scripted/pace")).json() == {"pieces_per_s": 0.0, "first_piece_s": 0.0}


@pytest.mark.parametrize(
    ("content", "key", "status"),
    [
        (b"{", "Bearer any", 400),
        (b"[]", "Bearer any", 400),
        (b'{"model":"m"}', "Bearer any", 400),
        (b'{"model":"m","messages":["x"]}', "Bearer any", 400),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}]}', "", 401),
        (b'{"model":"m","messages":[{"role":"user","content":7}],"stream_options":7}', "Bearer any", 200),
    ],
)
async def test_a_request_that_cannot_be_answered_is_refused(
    server: ScriptedServer, content: bytes, key: str, status: int
) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        url = f"{server.url}/chat/completions"
        answered = await client.post(url, content=content, headers={"authorization": key})
    assert answered.status_code == status


def _start(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "worker.llm.scripted", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "RUNWIRE_SCRIPTED_PIECES_PER_S": "5", **environment},
    )


async def test_the_program_says_its_port_answers_and_ends_cleanly_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    (tmp_path / "a.script.json").write_bytes(orjson.dumps(SCRIPT))
    port_file = tmp_path / "port"
    port_file.write_text("1")  # left behind by an earlier start
    program = _start(tmp_path, "--port-file", str(port_file), "--scripts", str(tmp_path))
    try:
        assert program.stdout is not None
        url = (await asyncio.to_thread(program.stdout.readline)).strip()
        assert url == f"http://127.0.0.1:{port_file.read_text().strip()}/v1"
        model = create_chat_model(settings_for(url))
        async with aclosing(model.stream(asking("talk for long"))) as stream:
            assert await anext(stream) == TextPiece("0")
            program.send_signal(signal.SIGTERM)
            with pytest.raises(ModelFault) as caught:
                await anext(_only_pieces_after(stream, 1_000))
        await model.aclose()
        assert caught.value.code == "connection"
        output, errors = await asyncio.to_thread(program.communicate, timeout=10)
    finally:
        program.kill()
        program.communicate()
    assert (program.returncode, output, errors) == (0, "", "")
    assert not port_file.exists()


async def _only_pieces_after(stream: AsyncIterator[Piece | ModelEnd], count: int) -> AsyncIterator[Piece | ModelEnd]:
    for _ in range(count):
        await anext(stream)
    yield await anext(stream)


@pytest.mark.parametrize("what", ["port", "pace", "script"])
async def test_a_program_that_cannot_start_says_why_in_one_line(
    tmp_path: Path, server: ScriptedServer, what: str
) -> None:
    arguments = ["--scripts", str(tmp_path)]
    environment = {}
    if what == "port":
        arguments += ["--port", str(server.port)]
    elif what == "pace":
        environment["RUNWIRE_SCRIPTED_PIECES_PER_S"] = "fast"
    else:
        (tmp_path / "broken.script.json").write_text("[{}]")
    program = _start(tmp_path, *arguments, **environment)
    output, errors = await asyncio.to_thread(program.communicate, timeout=20)
    assert (program.returncode, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("scripted model server: ")
