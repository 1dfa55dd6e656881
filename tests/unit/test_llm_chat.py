"""Bodies that a well-behaved server does not send: the real SDK over a made-up transport."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx2
import openai
import orjson
import pytest

from worker.llm.chat import ChatModel
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece, TextPiece


async def _read(model: ChatModel) -> tuple[list[Piece], ModelEnd | ModelFault]:
    """The pieces, and the end or the fault that ended them."""
    pieces: list[Piece] = []
    try:
        async with aclosing(model.stream(ModelRequest("m", ({"role": "user", "content": "x"},)))) as stream:
            async for item in stream:
                if isinstance(item, ModelEnd):
                    return pieces, item
                pieces.append(item)
    except ModelFault as fault:
        return pieces, fault
    raise AssertionError("neither an end nor a fault")


class _Body(httpx2.AsyncByteStream):
    def __init__(self, *parts: bytes | Exception, hang: bool = False) -> None:
        self._parts = parts
        self._hang = hang
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part
        if self._hang:
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


def _frame(delta: dict[str, Any], finish: str | None = None) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + b"\n\n"


async def _read_body(body: _Body, **settings: Any) -> tuple[list[Piece], ModelEnd | ModelFault]:
    def handler(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=body)

    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    client = openai.AsyncOpenAI(api_key="x", base_url="http://model.invalid/v1", max_retries=0, http_client=http_client)
    model = ChatModel(client, **{"first_byte_s": 5.0, "between_pieces_s": 5.0, **settings})
    result = await _read(model)
    await model.aclose()
    assert body.closed
    return result


@pytest.mark.parametrize("broken", [httpx2.ReadError("reset"), httpx2.RemoteProtocolError("cut")])
async def test_a_break_after_the_finish_loses_usage_only(broken: Exception) -> None:
    pieces, end = await _read_body(_Body(_frame({"content": "a"}), _frame({}, "stop"), broken))
    assert pieces == [TextPiece("a")]
    assert isinstance(end, ModelEnd)
    assert (end.finish, end.usage, end.first_piece_ms is None) == ("stop", None, False)


async def test_an_end_without_the_done_line_is_an_end_if_there_was_a_finish() -> None:
    _, end = await _read_body(_Body(_frame({"content": "a"}), _frame({}, "stop")))
    assert isinstance(end, ModelEnd)


async def test_the_done_line_without_a_finish_is_no_end() -> None:
    _, fault = await _read_body(_Body(_frame({"content": "a"}), b"data: [DONE]\n\n"))
    assert isinstance(fault, ModelFault)
    assert fault.code == "stream_incomplete"


async def test_an_empty_body_is_no_end() -> None:
    _, fault = await _read_body(_Body())
    assert isinstance(fault, ModelFault)
    assert fault.code == "stream_incomplete"


async def test_a_body_that_stays_open_after_the_done_line_does_not_hold_the_answer() -> None:
    body = _Body(_frame({"content": "a"}, "stop") + b"data: [DONE]\n\n", hang=True)
    _, end = await _read_body(body)
    assert isinstance(end, ModelEnd)
    assert end.total_ms < 2_000


class _Chatter(httpx2.AsyncByteStream):
    """Comments without end, as some gateways send while a model is queued."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in itertools.count():
            await asyncio.sleep(0.001)
            yield b": still here\n\n"

    async def aclose(self) -> None:
        return


async def test_comments_alone_do_not_renew_the_deadline() -> None:
    def handler(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chatter())

    http_client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    client = openai.AsyncOpenAI(api_key="x", base_url="http://model.invalid/v1", max_retries=0, http_client=http_client)
    model = ChatModel(client, first_byte_s=0.1, between_pieces_s=60.0)
    async with asyncio.timeout(10):
        _, fault = await _read(model)
    await model.aclose()
    assert isinstance(fault, ModelFault)
    assert fault.code == "limit_first_byte_s"
