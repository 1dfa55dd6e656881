"""The command line's way to a server: the client that we ship, with its faults as one line and an exit code."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self

import httpx

import runwire
from eventstore.domain.lifecycle import TERMINAL_TYPES
from ops.exits import FAILED, UNREACHABLE, USAGE, Complaint
from ops.printable import one_line
from runwire.problems import Json

HINT: Final = "is it running? `runwire up` starts it; RUNWIRE_URL names another"
OUTSIDE_THE_LOG: Final = {"lagging", "reset"}


class Stopped(Exception):
    """The caller asked the client to stop while it waited."""


class Refused(Complaint):
    """The server understood the request and said no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message, UNREACHABLE if status in {401, 403} else FAILED)
        self.status = status


class Frame(NamedTuple):
    """One event of a run as the server tells it. `lagging` and `reset` have no place in the log: their seq is 0."""

    name: str
    data: Json

    @property
    def seq(self) -> int:
        """Its place in the log."""
        return int(self.data.get("seq", 0)) if self.name not in OUTSIDE_THE_LOG else 0

    @property
    def terminal(self) -> bool:
        """Whether the run ends with it."""
        return self.name in TERMINAL_TYPES


class Client:
    """Talks to one server with one key. `notice` hears why it waits and how long."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        notice: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
        pace: runwire.Pace | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.notice = notice
        self._stop = stop or threading.Event()
        try:
            self._client = runwire.Client(
                url,
                key,
                pace=pace or runwire.Pace(first_patience_s=0.0),  # a person is told at once that nothing is there
                on_notice=self._notice,
                allow_plain_http=True,  # whoever sets RUNWIRE_URL has said so
                transport=transport,
                sleep=self._pause,
            )
        except ValueError as error:
            raise Complaint(one_line(str(error)), USAGE) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def go_on(self, run_id: str, title: str | None = None) -> Json:
        """Start a run that takes up one which ended without a result."""
        with _in_one_line():
            return self._client.continue_run(run_id, title=title)

    def submit(self, workflow: str, given: Any, title: str | None = None) -> Json:
        """Start a run."""
        with _in_one_line():
            return self._client.submit(workflow, given, title=title)

    def workflows(self) -> list[Json]:
        """What can be run."""
        with _in_one_line():
            return self._client.workflows()

    def runs(self, limit: int, status: str | None, workflow: str | None) -> Iterator[Json]:
        """The newest runs that this key may see."""
        with _in_one_line():
            yield from self._client.runs(limit, status=status, workflow=workflow)

    def state(self, run_id: str, at: str | None = None) -> Json:
        """The folded state of a run, now or at a place in its log."""
        with _in_one_line():
            return self._client.state(run_id, at)

    def cancel(self, run_id: str, reason: str) -> Json:
        """Ask a run to stop."""
        with _in_one_line():
            return self._client.cancel(run_id, reason)

    def decide(self, run_id: str, escalation: int, seen: Mapping[str, Any], **said: Any) -> Json:
        """Answer what a run asks. The same answer sent again changes nothing."""
        with _in_one_line():
            return self._client.decide(run_id, escalation=escalation, seen=seen, **said)

    def verify(self, run_id: str) -> Json:
        """What the server found walking over the run's chain."""
        with _in_one_line():
            return self._client.verification(run_id)

    def follow(self, run_id: str, after: int = 0) -> Iterator[Frame]:
        """The run's events from a cursor to its end, each once, over any number of connections."""
        return self._frames(lambda: self._client.follow(run_id, after))

    def polled(self, run_id: str, after: int, wait_s: int, limit: int) -> Iterator[Frame]:
        """The same by short requests."""
        return self._frames(lambda: self._client.follow(run_id, after, transport="poll", wait_s=wait_s, limit=limit))

    def replay(self, run_id: str, asked: Mapping[str, str]) -> Iterator[Frame]:
        """A recorded run again, at the pace that was asked for."""
        return self._frames(lambda: self._client.replay(run_id, **asked))

    def _frames(self, follow: Callable[[], runwire.Follow]) -> Iterator[Frame]:
        with _in_one_line(), follow() as events:
            for event in events:
                yield Frame(event.type, dict(event.envelope))

    def _notice(self, notice: runwire.Notice) -> None:
        self.notice(one_line(notice.text) + (f"; next try in {notice.wait_s:.1f} s" if notice.wait_s else ""))

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


@contextmanager
def _in_one_line() -> Iterator[None]:
    """The client's faults as complaints."""
    try:
        yield
    except runwire.Problem as problem:
        raise Refused(problem.status, one_line(str(problem))) from problem
    except runwire.Unreachable as fault:
        raise Complaint(one_line(str(fault)), UNREACHABLE, HINT) from fault
    except runwire.RunwireError as fault:
        raise Complaint(one_line(str(fault)), FAILED) from fault
