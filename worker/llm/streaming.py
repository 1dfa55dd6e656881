"""A model over the OpenAI SDK, streamed: what is the same whichever of the provider's APIs is used.

The SDK makes the request and keeps the connections; the body is decoded here. Its typed stream takes a clean early
end for a finished answer, gives nothing at all for a JSON error with status 200, lets bare decoding errors through,
and costs ten times as much per chunk.
"""

import asyncio
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import anyio
import httpx2
import openai

from worker.llm.faults import fault_of_api_error, fault_of_silence, fault_of_transport, request_id_of
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece
from worker.llm.reading import Decoder, Reading
from worker.llm.settings import ModelSettings
from worker.llm.watching import Watch

CONNECTIONS_MAX = 512
CONNECT_S = 5.0
WRITE_S = 10.0
POOL_S = 5.0
# After the finish reason the answer is whole. What may follow is usage, worth a short wait, and the end of the body,
# which must be read for the connection to be used again.
USAGE_WAIT_S = 5.0
DRAIN_S = 0.1
FINISHES: Final = frozenset({"stop", "length", "content_filter", "tool_calls", "refused"})
# Our own deadlines are exact; the transport's read time-out stands behind them.
_BACKSTOP_S = 5.0
# What can break while a body is read; the last two are not wrapped by every version of the transport.
_BROKEN = (httpx2.RequestError, ssl.SSLError, anyio.EndOfStream)


def create_client(settings: ModelSettings) -> openai.AsyncOpenAI:
    """Open the one client of a process. Whoever calls this closes it."""
    endpoint = settings.endpoint()
    read_s = max(settings.first_byte_s, settings.between_pieces_s) + _BACKSTOP_S
    timeout = httpx2.Timeout(connect=CONNECT_S, read=read_s, write=WRITE_S, pool=POOL_S)
    # The SDK's transport with a parser in C: half of what a worker spent went into reading bodies in Python.
    http_client = openai.DefaultAioHttpClient(
        base_url=endpoint.base_url,
        timeout=timeout,
        limits=httpx2.Limits(max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX // 4),
        # A redirect would post the prompt to an address that nobody configured.
        follow_redirects=False,
        # A proxy from the environment stands between us and the provider, never between us and this machine.
        trust_env=urlsplit(endpoint.base_url).hostname not in {"localhost", "127.0.0.1", "::1"},
    )
    return openai.AsyncOpenAI(
        api_key=endpoint.api_key.get_secret_value(),
        base_url=endpoint.base_url,
        max_retries=0,  # retrying.py decides, and the log hears of each attempt
        timeout=timeout,
        http_client=http_client,
    )


@dataclass(slots=True)
class _Measured:
    """Moments of one answer on the injected clock."""

    began: float
    first_piece: float = 0.0
    ended: float = 0.0
    pieces: int = 0


class StreamedModel(ABC):
    """Answers over HTTP. Holds connections only; every stream stands alone."""

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        *,
        first_byte_s: float,
        between_pieces_s: float,
        accept_unfinished_calls: bool = False,
        heard: Callable[[str, Mapping[str, str]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._host = client.base_url.host
        self._first_byte_s = first_byte_s
        self._between_pieces_s = between_pieces_s
        self._accept_unfinished_calls = accept_unfinished_calls
        self._heard = heard  # gets the head of each answer, by model
        self._clock = clock

    @abstractmethod
    def _send(self, request: ModelRequest) -> Any:
        """The SDK's raw streaming call for this request, not yet entered."""

    @abstractmethod
    def _decoder(self) -> Decoder:
        """What reads one answer."""

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """Give the pieces of one answer, then its end. Raises ModelFault; never retries.

        The deadline is renewed by data only: a server that sends comments to keep the connection open is not
        answering. No time-out is open while a piece is with the reader, whose own time does not count.
        """
        loop = asyncio.get_running_loop()
        measured = _Measured(began=self._clock())
        reading = Reading(self._decoder())
        async with AsyncExitStack() as stack:
            first_s = min(self._first_byte_s, request.first_byte_s or self._first_byte_s)
            between_s = min(self._between_pieces_s, request.between_pieces_s or self._between_pieces_s)
            deadline = loop.time() + first_s
            response = await self._open(stack, request, deadline)
            request_id = request_id_of(response.headers)
            body = await stack.enter_async_context(aclosing(response.iter_bytes()))
            watch = Watch()
            stack.callback(watch.close)
            while not reading.done:
                try:
                    data = await _read(watch, body, deadline, begun=reading.frames > 0)
                    if data is None:
                        break
                    frames_before = reading.frames
                    for piece in reading.feed(data):
                        if measured.pieces == 0:
                            measured.first_piece = self._clock()
                        measured.pieces += 1
                        yield piece
                except ModelFault as fault:
                    if reading.decoder.finish_raw is not None:
                        break  # the answer is whole, only its usage is lost
                    _known(fault, reading, request_id)
                    raise
                if reading.frames > frames_before:
                    finished = reading.decoder.finish_raw is not None
                    deadline = loop.time() + (USAGE_WAIT_S if finished else between_s)
            if reading.done:
                await _drain(watch, body, loop.time() + DRAIN_S)
        for piece in self._forgotten(reading):
            measured.pieces += 1
            yield piece
        measured.ended = self._clock()
        yield _end(reading, measured, request_id, self._host)

    def _forgotten(self, reading: Reading) -> list[Piece]:
        """The tool calls of an answer whose provider forgets to say that it ended, where that is allowed."""
        return reading.decoder.close_unfinished() if self._accept_unfinished_calls else []

    async def _open(self, stack: AsyncExitStack, request: ModelRequest, deadline: float) -> Any:
        """Send the request and return the response once its head says that a stream follows."""
        try:
            async with asyncio.timeout_at(deadline):
                response = await stack.enter_async_context(self._send(request))
        except openai.APIError as error:
            raise fault_of_api_error(error) from None
        except TimeoutError:
            raise fault_of_silence(begun=False) from None
        if self._heard is not None:
            self._heard(request.model, response.headers)
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != "text/event-stream":
            message = "The model server answered with something that is no stream."
            raise ModelFault(
                "malformed",
                message,
                retryable=True,
                status=response.status_code,
                request_id=request_id_of(response.headers),
            )
        return response


async def _read(watch: Watch, body: AsyncIterator[bytes], deadline: float, *, begun: bool) -> bytes | None:
    """The next bytes, or None at the end."""
    try:
        return await watch.read(body, deadline)
    except TimeoutError:
        raise fault_of_silence(begun=begun) from None
    except _BROKEN as error:
        raise fault_of_transport(error) from None


async def _drain(watch: Watch, body: AsyncIterator[bytes], deadline: float) -> None:
    """Read to the end of the body, but do not wait for it: closing an unread connection only costs the next one."""
    try:
        while await _read(watch, body, deadline, begun=True) is not None:
            pass
    except ModelFault:
        return


def _known(fault: ModelFault, reading: Reading, request_id: str | None) -> ModelFault:
    """The fault with what is known of the request that met it."""
    fault.request_id = request_id
    fault.usage = reading.decoder.usage
    return fault


def _end(reading: Reading, measured: _Measured, request_id: str | None, host: str) -> ModelEnd:
    """The end of an answer that said why it ended; any other is no end, whatever the SDK makes of it."""
    decoder = reading.decoder
    if decoder.finish is None or decoder.finish_raw is None:
        message = "The model's answer ended before it was complete."
        raise _known(ModelFault("stream_incomplete", message, retryable=True), reading, request_id)
    if decoder.finish not in FINISHES:
        # What it means for the text nobody here knows: it may have been cut, filtered or handed to somebody else.
        message = "The model's answer ended for a reason that is not known here."
        raise _known(ModelFault("unknown_finish", message, retryable=True, retries_max=1), reading, request_id)
    return ModelEnd(
        finish=decoder.finish,
        finish_raw=decoder.finish_raw,
        usage=decoder.usage,
        model_served=decoder.model_served,
        request_id=request_id,
        system_fingerprint=decoder.system_fingerprint,
        first_piece_ms=(measured.first_piece - measured.began) * 1000 if measured.pieces else None,
        total_ms=(measured.ended - measured.began) * 1000,
        pieces=measured.pieces,
        refusal=decoder.refusal,
        host=host,
    )
