"""The client for programs that wait: every call of the API, and runs followed whatever happens to the network."""

import os
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
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
from runwire.watch import Watch, be_patient
from runwire.wire import NEVER_CONNECTED, head, options, read_bytes_max, timeout, told


class Follow(Iterator[Event]):
    """The events of one run, one after the other. `cursor` is the last one you got: go on from there another time."""

    def __init__(self, machine: Following, events: Generator[Event, None, None]) -> None:
        self.cursor = machine.cursor
        self._machine = machine
        self._events = events

    @property
    def transport(self) -> Transport:
        """How the events come at the moment: `sse`, or `poll` where no stream gets through."""
        return self._machine.transport

    def __next__(self) -> Event:
        event = next(self._events)
        self.cursor = max(self.cursor, event.seq)
        return event

    def close(self) -> None:
        """Let go of the connection. The run goes on."""
        self._events.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Client:
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
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        address = server_url(url or os.environ.get("RUNWIRE_URL", ""), allow_plain_http=allow_plain_http)
        self.url = str(address)
        self.pace = pace
        self.on_notice = on_notice
        self._sleep = sleep
        self._acquaintance = Acquaintance()
        set_up = options(address, key or os.environ.get("RUNWIRE_KEY", ""))
        self._http = httpx.Client(transport=transport, **set_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all connections."""
        self._http.close()

    def submit(
        self, workflow: str, given: Any, *, title: str | None = None, idempotency_key: str | None = None, **more: Any
    ) -> Json:
        """Start a run. Sent again because an answer was lost, it starts one run."""
        return self._ask(calls.submit({"workflow": workflow, "input": given, **more}, title, idempotency_key))

    def continue_run(self, run: RunId, *, title: str | None = None, idempotency_key: str | None = None) -> Json:
        """Start a run that takes up one which ended without a result: what was finished there is not done again."""
        return self._ask(calls.submit({"continues": calls.run_id(run)}, title, idempotency_key))

    def workflows(self) -> list[Json]:
        """What you may start."""
        return list(self._ask(calls.workflows())["workflows"])

    def workflow(self, name: str) -> Json:
        """One workflow: milestones, input and output schema, samples, limits."""
        return self._ask(calls.workflow(name))

    def runs(self, limit: int = 20, *, status: str | None = None, workflow: str | None = None) -> Iterator[Json]:
        """The newest runs that you may see."""
        before = None
        while limit > 0:
            page = self._ask(calls.runs(limit, status, workflow, before))
            yield from page["runs"][:limit]
            limit -= len(page["runs"])
            before = page.get("next")
            if not before or not page["runs"]:
                return

    def state(self, run: RunId, at: int | str | None = None) -> Json:
        """How a run stands, or stood after an event or at a time."""
        return self._ask(calls.state(run, at))

    def poll(self, run: RunId, after: int = 0, *, limit: int | None = None, wait_s: int | None = None) -> Json:
        """One page of news, and how the run stands. `follow(run, transport="poll")` asks for all of them."""
        return self._ask(calls.poll(run, after, limit, wait_s))

    def cancel(self, run: RunId, reason: str) -> Json:
        """Stop a run for good. After its end this changes nothing."""
        return self._ask(calls.cancel(run, reason))

    def decide(
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
            state = self.state(run)
            seen = seen or state["seen"]
            escalation = escalation or open_question(state)
        return self._ask(calls.decide(run, escalation, seen, choice, answer, note))

    def verification(self, run: RunId) -> Json:
        """What the server finds walking over a run's chain of evidence. For officers."""
        return self._ask(calls.verification(run))

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
    ) -> Follow:
        """A run's events from a cursor to its end, each once and in order, over any number of connections.

        `types` leaves out all others but the end; `snapshot` begins with the state (`ResetEvent`) and not with history.
        Pages hold up to `limit` events and wait up to `wait_s` for news.

        Leaving off does not stop the run. After `timeout_s` it raises TimeoutError.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        wish = Wish(after, transport, tuple(types), snapshot, limit, wait_s, until)
        return self._followed(wish, calls.run_path(run, "events"), {}, run)

    def replay(self, run: RunId, **asked: str) -> Follow:
        """A recorded run again: `speed`, `from`, `to`, `as`. For officers."""
        return self._followed(Wish(transport="sse", ends_itself=True), calls.audit_path(run, "replay"), asked, run)

    def end(self, run: RunId, *, timeout_s: float | None = None) -> Event | None:
        """The terminal event, as soon as it is there."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        state = self.state(run)
        after = int(state["seq"]) - bool(state["done"])
        wish = Wish(max(0, after), until=until)
        with self._followed(wish, calls.run_path(run, "events"), {}, run) as events:
            return next((event for event in events if event.terminal), None)

    def result(self, run: RunId, *, timeout_s: float | None = None) -> Mapping[str, Any]:
        """The validated output, as soon as it is there. Raises RunFailed or RunCancelled, with the partial result."""
        return output_of(self.end(run, timeout_s=timeout_s))

    def _followed(self, wish: Wish, path: str, params: Mapping[str, str], run: RunId) -> Follow:
        machine = Following(wish, self.pace, self._outage(), self.url, self._notice)
        return Follow(machine, self._events(machine, path, params, calls.run_path(run, "poll")))

    def _events(
        self, machine: Following, path: str, params: Mapping[str, str], poll_path: str
    ) -> Generator[Event, None, None]:
        while True:
            match machine.step(time.monotonic()):
                case Done():
                    return
                case Pause(seconds):
                    self._sleep(seconds)
                case Ask() as ask:
                    try:
                        answer = self._answer(Call("GET", poll_path, ask.params, ask.headers), ask.answer_s)
                    except httpx.RequestError as error:
                        machine.lost(told(error), time.monotonic(), connected=not isinstance(error, NEVER_CONNECTED))
                    else:
                        yield from machine.page(answer, time.monotonic())
                case Listen() as listen:
                    yield from self._listen(
                        machine, listen, Call("GET", path, {**params, **listen.params}, listen.headers)
                    )

    def _listen(self, machine: Following, listen: Listen, call: Call) -> Generator[Event, None, None]:
        watch = Watch()
        try:
            with closing(self._send(call, listen.answer_s)) as response:
                answer = head(response)
                if answer.status not in {200, 204}:
                    answer = _whole(response)
                if machine.opened(answer, time.monotonic()):
                    be_patient(response, listen.silence_s)
                    if listen.first_byte_s < listen.silence_s:
                        watch.over(response, listen.first_byte_s)
                    for piece in response.iter_bytes():
                        watch.stop()
                        yield from machine.feed(piece, time.monotonic())
                        if not machine.reading:
                            return
        except httpx.RequestError as error:
            if watch.stop() or isinstance(error, httpx.ReadTimeout):
                machine.silent(time.monotonic())
            else:
                machine.lost(told(error), time.monotonic(), connected=not isinstance(error, NEVER_CONNECTED))
        else:
            if watch.stop():
                machine.silent(time.monotonic())
            else:
                machine.closed(time.monotonic())
        finally:
            watch.stop()

    def _ask(self, call: Call) -> Json:
        tries = Tries(self._outage(), self.url)
        while True:
            try:
                outcome = tries.answered(self._answer(call, self.pace.answer_s), time.monotonic())
            except httpx.RequestError as error:
                outcome = tries.lost(told(error), time.monotonic())
                why = f"connection lost: {told(error)}"
            else:
                why = "the server is away"
            if isinstance(outcome, dict):
                return outcome
            self._notice(Notice(why, None, 0, outcome))
            self._sleep(outcome)

    def _answer(self, call: Call, answer_s: float) -> Answer:
        with closing(self._send(call, answer_s)) as response:
            return _whole(response)

    def _send(self, call: Call, read_s: float) -> httpx.Response:
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
            response = self._http.send(request, stream=True)
            target = redirected(request, response.status_code, response.headers)
            if target is None:
                return response
            response.close()
            url, params = target, None
        raise RedirectRefused("the server points from one place to the next")

    def _outage(self) -> Outage:
        return Outage(self.pace, self._acquaintance)

    def _notice(self, notice: Notice) -> None:
        self.on_notice(notice)


def _whole(response: httpx.Response) -> Answer:
    answer = head(response)
    body = bytearray()
    for piece in response.iter_bytes():
        body += piece
        if len(body) > read_bytes_max(answer):
            break
    return answer._replace(body=bytes(body))
