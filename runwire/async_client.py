"""The client for programs with an event loop: the same calls as `Client`, each to be awaited."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import httpx

from runwire import calls
from runwire.address import REDIRECTS_MAX, redirected, server_url
from runwire.calls import Call, RunId, Tries
from runwire.endings import open_question, output_of
from runwire.event import Event
from runwire.following import Ask, Choice, Done, Following, Listen, Notice, Pause, Transport, Wish
from runwire.pace import DEFAULT, Acquaintance, Outage, Pace
from runwire.problems import Answer, Json, RedirectRefused
from runwire.watch import be_patient
from runwire.wire import NEVER_CONNECTED, head, options, read_bytes_max, timeout, told


class AsyncFollow(AsyncIterator[Event]):
    """The events of one run, one after the other. `cursor` is the last one you got: go on from there another time."""

    def __init__(self, machine: Following, events: AsyncGenerator[Event, None]) -> None:
        self.cursor = machine.cursor
        self._machine = machine
        self._events = events

    @property
    def transport(self) -> Transport:
        """How the events come at the moment: `sse`, or `poll` where no stream gets through."""
        return self._machine.transport

    async def __anext__(self) -> Event:
        event = await anext(self._events)
        self.cursor = max(self.cursor, event.seq)
        return event

    async def aclose(self) -> None:
        """Let go of the connection. The run goes on."""
        await self._events.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncClient:
    """Talks to one server with one key. Without `url` and `key` it takes RUNWIRE_URL and RUNWIRE_KEY.

    `on_notice` hears what becomes of connections. The key is sent to this server only, and unencrypted only to this
    machine, unless `allow_plain_http` says otherwise.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        pace: Pace = DEFAULT,
        on_notice: Callable[[Notice], None] = lambda _: None,
        allow_plain_http: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        address = server_url(url or os.environ.get("RUNWIRE_URL", ""), allow_plain_http=allow_plain_http)
        self.url = str(address)
        self.pace = pace
        self.on_notice = on_notice
        self._sleep = sleep
        self._acquaintance = Acquaintance()
        set_up = options(address, key or os.environ.get("RUNWIRE_KEY", ""))
        self._http = httpx.AsyncClient(transport=transport, **set_up)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of all connections."""
        await self._http.aclose()

    async def submit(
        self, workflow: str, given: Any, *, title: str | None = None, idempotency_key: str | None = None, **more: Any
    ) -> Json:
        """Start a run. Sent again because an answer was lost, it starts one run."""
        return await self._ask(calls.submit({"workflow": workflow, "input": given, **more}, title, idempotency_key))

    async def continue_run(self, run: RunId, *, title: str | None = None, idempotency_key: str | None = None) -> Json:
        """Start a run that takes up one which ended without a result: what was finished there is not done again."""
        return await self._ask(calls.submit({"continues": calls.run_id(run)}, title, idempotency_key))

    async def workflows(self) -> list[Json]:
        """What you may start."""
        return list((await self._ask(calls.workflows()))["workflows"])

    async def workflow(self, name: str) -> Json:
        """One workflow: milestones, input and output schema, samples, limits."""
        return await self._ask(calls.workflow(name))

    async def runs(
        self, limit: int = 20, *, status: str | None = None, workflow: str | None = None
    ) -> AsyncIterator[Json]:
        """The newest runs that you may see."""
        before = None
        while limit > 0:
            page = await self._ask(calls.runs(limit, status, workflow, before))
            for run in page["runs"][:limit]:
                yield run
            limit -= len(page["runs"])
            before = page.get("next")
            if not before or not page["runs"]:
                return

    async def state(self, run: RunId, at: int | str | None = None) -> Json:
        """How a run stands, or stood after an event or at a time."""
        return await self._ask(calls.state(run, at))

    async def poll(self, run: RunId, after: int = 0, *, limit: int | None = None, wait_s: int | None = None) -> Json:
        """One page of news, and how the run stands. `follow(run, transport="poll")` asks for all of them."""
        return await self._ask(calls.poll(run, after, limit, wait_s))

    async def cancel(self, run: RunId, reason: str) -> Json:
        """Stop a run for good. After its end this changes nothing."""
        return await self._ask(calls.cancel(run, reason))

    async def decide(
        self,
        run: RunId,
        *,
        choice: str | None = None,
        answer: Any = None,
        note: str | None = None,
        escalation: int | None = None,
        seen: Mapping[str, Any] | None = None,
    ) -> Json:
        """Answer what a run asks: the one open question, or the one at event `escalation`.

        `seen` is what the state said under that name when the person looked; without it, it is asked for now.
        """
        if escalation is None or seen is None:
            state = await self.state(run)
            seen = seen or state["seen"]
            escalation = escalation or open_question(state)
        return await self._ask(calls.decide(run, escalation, seen, choice, answer, note))

    async def verification(self, run: RunId) -> Json:
        """What the server finds walking over a run's chain of evidence. For officers."""
        return await self._ask(calls.verification(run))

    def follow(
        self,
        run: RunId,
        after: int = 0,
        *,
        transport: Choice = "auto",
        types: Sequence[str] = (),
        snapshot: bool = False,
        limit: int | None = None,
        wait_s: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncFollow:
        """A run's events from a cursor to its end, each once and in order, over any number of connections.

        `types` leaves out all others but the end; `snapshot` begins with the state (`ResetEvent`) and not with history.
        Pages hold up to `limit` events and wait up to `wait_s` for news.

        Leaving off does not stop the run. `async with` lets go of the connection at once, and so does cancelling the
        task that waits for an event. After `timeout_s` it raises TimeoutError.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        wish = Wish(after, transport, tuple(types), snapshot, limit, wait_s, until)
        return self._followed(wish, calls.run_path(run, "events"), {}, run)

    def replay(self, run: RunId, **asked: str) -> AsyncFollow:
        """A recorded run again: `speed`, `from`, `to`, `as`. For officers."""
        return self._followed(Wish(transport="sse", ends_itself=True), calls.audit_path(run, "replay"), asked, run)

    async def end(self, run: RunId, *, timeout_s: float | None = None) -> Event | None:
        """The terminal event, as soon as it is there."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        state = await self.state(run)
        after = int(state["seq"]) - bool(state["done"])
        wish = Wish(max(0, after), until=until)
        async with self._followed(wish, calls.run_path(run, "events"), {}, run) as events:
            async for event in events:
                if event.terminal:
                    return event
        return None

    async def result(self, run: RunId, *, timeout_s: float | None = None) -> Mapping[str, Any]:
        """The validated output, as soon as it is there. Raises RunFailed or RunCancelled, with the partial result."""
        return output_of(await self.end(run, timeout_s=timeout_s))

    def _followed(self, wish: Wish, path: str, params: Mapping[str, str], run: RunId) -> AsyncFollow:
        machine = Following(wish, self.pace, self._outage(), self.url, self._notice)
        return AsyncFollow(machine, self._events(machine, path, params, calls.run_path(run, "poll")))

    async def _events(
        self, machine: Following, path: str, params: Mapping[str, str], poll_path: str
    ) -> AsyncGenerator[Event, None]:
        while True:
            match machine.step(time.monotonic()):
                case Done():
                    return
                case Pause(seconds):
                    await self._sleep(seconds)
                case Ask() as ask:
                    try:
                        answer = await self._answer(Call("GET", poll_path, ask.params, ask.headers), ask.answer_s)
                    except httpx.RequestError as error:
                        machine.lost(told(error), time.monotonic(), connected=not isinstance(error, NEVER_CONNECTED))
                    else:
                        for event in machine.page(answer, time.monotonic()):
                            yield event
                case Listen() as listen:
                    call = Call("GET", path, {**params, **listen.params}, listen.headers)
                    async with aclosing(self._listen(machine, listen, call)) as events:
                        async for event in events:
                            yield event

    async def _listen(self, machine: Following, listen: Listen, call: Call) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(await self._send(call, listen.answer_s)) as response:
                answer = head(response)
                if answer.status not in {200, 204}:
                    answer = await _whole(response)
                if not machine.opened(answer, time.monotonic()):
                    return
                be_patient(response, None)  # each byte has its own time-out here
                pieces, patience_s = response.aiter_bytes(), listen.first_byte_s
                while (piece := await _next(pieces, patience_s)) is not None:
                    patience_s = listen.silence_s
                    for event in machine.feed(piece, time.monotonic()):
                        yield event
                    if not machine.reading:
                        return
        except (httpx.ReadTimeout, _Silent):
            machine.silent(time.monotonic())
        except httpx.RequestError as error:
            machine.lost(told(error), time.monotonic(), connected=not isinstance(error, NEVER_CONNECTED))
        else:
            machine.closed(time.monotonic())

    async def _ask(self, call: Call) -> Json:
        tries = Tries(self._outage(), self.url)
        while True:
            try:
                outcome = tries.answered(await self._answer(call, self.pace.answer_s), time.monotonic())
            except httpx.RequestError as error:
                outcome = tries.lost(told(error), time.monotonic())
                why = f"connection lost: {told(error)}"
            else:
                why = "the server is away"
            if isinstance(outcome, dict):
                return outcome
            self._notice(Notice(why, None, 0, outcome))
            await self._sleep(outcome)

    async def _answer(self, call: Call, answer_s: float) -> Answer:
        async with aclosing(await self._send(call, answer_s)) as response:
            return await _whole(response)

    async def _send(self, call: Call, read_s: float) -> httpx.Response:
        url: str | httpx.URL = call.path
        params: Mapping[str, str] | None = call.params
        for _ in range(REDIRECTS_MAX):
            request = self._http.build_request(
                call.method,
                url,
                params=params or None,
                headers=call.headers,
                content=call.body,
                timeout=timeout(self.pace, read_s),
            )
            response = await self._http.send(request, stream=True)
            target = redirected(request, response.status_code, response.headers)
            if target is None:
                return response
            await response.aclose()
            url, params = target, None
        raise RedirectRefused("the server points from one place to the next")

    def _outage(self) -> Outage:
        return Outage(self.pace, self._acquaintance)

    def _notice(self, notice: Notice) -> None:
        self.on_notice(notice)


class _Silent(Exception):
    """No byte came in time."""


async def _next(pieces: AsyncIterator[bytes], patience_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(patience_s):
            return await anext(pieces, None)
    except TimeoutError:
        raise _Silent from None


async def _whole(response: httpx.Response) -> Answer:
    answer = head(response)
    body = bytearray()
    async for piece in response.aiter_bytes():
        body += piece
        if len(body) > read_bytes_max(answer):
            break
    return answer._replace(body=bytes(body))
