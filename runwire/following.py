"""What a reader of one run does next, without any I/O: listen to a stream, ask for a page, pause, or be done.

A shell (client.py, async_client.py) does what `step` says and tells what came of it. Whatever comes, in whatever order,
each event is given once and in order: only `_take` moves the cursor, and it lets nothing pass that is not behind it.

A stream that does not get through is read by short requests instead, with the same cursor, and tried again later. It
does not get through when it says nothing although it must have something to say, comes as something else, falls silent
twice, or breaks off three times before its first byte. The server itself being away is no such sign. To learn soon
whether a stream gets through again, it is asked for one event that is known already: that must come at once.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from runwire.envelopes import CHECKPOINT, NoEvent, event_of, gathered, place_of
from runwire.event import Event
from runwire.pace import ASKED_AGAIN_S_MAX, Outage, Pace
from runwire.problems import PROBLEM, TRY_AGAIN, Answer, Unreachable, problem_of
from runwire.sse import Parser, SseError

STREAM: Final = "text/event-stream"
STALLS_MAX: Final = 2
BREAKS_MAX: Final = 3

Transport = Literal["sse", "poll"]
Choice = Literal["auto", "sse", "poll"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something about the connection that a person may want to know; the run is not concerned."""

    text: str
    transport: Transport | None  # none: of a call that follows nothing
    cursor: int
    wait_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Listen:
    """Open a stream and feed what comes. The limits are for its answer, its first byte, and between two bytes."""

    params: Mapping[str, str]
    headers: Mapping[str, str]
    answer_s: float
    first_byte_s: float
    silence_s: float


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask for a page."""

    params: Mapping[str, str]
    headers: Mapping[str, str]
    answer_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """There is nothing more to come."""


Step = Listen | Ask | Pause | Done


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader wants: from where on, over which transport, which events, how many of them in a page, and until
    when. A snapshot comes before the events of a stream; where none gets through, the events come instead."""

    after: int = 0
    transport: Choice = "auto"
    types: tuple[str, ...] = ()
    snapshot: bool = False
    limit: int | None = None
    wait_s: int | None = None  # what a page may wait for news
    until: float | None = None
    ends_itself: bool = False  # a recording ends where it was told to, with or without the run's end


def _quiet(_: Notice) -> None:
    pass


@dataclass(slots=True)
class _Stream:
    """One connection."""

    opened_at: float = 0.0
    heard: bool = False
    parser: Parser = field(default_factory=Parser)


class Following:
    """One reader's way from a cursor to the end of a run, over any number of connections."""

    def __init__(
        self, wish: Wish, pace: Pace, outage: Outage, url: str = "the server", notice: Callable[[Notice], None] = _quiet
    ) -> None:
        self.cursor = wish.after
        self.transport: Transport = "poll" if wish.transport == "poll" else "sse"
        self.done = False
        self.reading = False  # whether the open stream is worth reading on
        self._wish, self._pace, self._outage, self._url, self._tell = wish, pace, outage, url, notice
        self._shown = wish.after  # the last event that was given; the cursor may lie behind others that were withheld
        self._pause_s = 0.0
        self._stream = _Stream()
        self._listening = False
        self._retry_s = 0.0
        self._stalls = self._breaks = 0
        self._again_s, self._again_at = pace.stream_again_s, 0.0
        self._poll_wait_s = pace.poll_wait_s if wish.wait_s is None else wish.wait_s
        self._more, self._etag, self._wait_s = False, "", self._poll_wait_s
        self._snapshot = wish.snapshot
        self._asked = {"types": ",".join(wish.types)} if wish.types else {}
        self._at = ""
        self._doubted = False

    def step(self, now: float) -> Step:
        """What to do next. Raises TimeoutError when the time that was given is up."""
        if self.done:
            return Done()
        left_s = float("inf") if self._wish.until is None else self._wish.until - now
        if left_s <= 0:
            raise TimeoutError("the run has not ended in the time that was given")
        if self._pause_s:
            pause_s, self._pause_s = self._pause_s, 0.0
            return Pause(min(pause_s, left_s))
        again = self._wish.transport == "auto" and now >= self._again_at and not self._more
        self._listening = self.transport == "sse" or again
        return self._listen(left_s) if self._listening else self._ask(left_s)

    def _listen(self, left_s: float) -> Listen:
        probing = self.transport == "poll" or self._stalls > 0
        cursor = max(0, self._shown - 1) if probing else self.cursor
        headers = {"Accept": STREAM, "Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        if cursor:
            headers["Last-Event-ID"] = str(cursor)
        # The first event of a run is there from the beginning; later ones may keep a reader waiting.
        first_s = self._pace.first_byte_s if probing or not cursor else self._pace.silence_s
        self._stream, self.reading = _Stream(), False
        params = self._asked | ({"snapshot": "1"} if self._snapshot else {})
        return Listen(
            params,
            headers,
            min(self._pace.first_byte_s, left_s),
            min(first_s, left_s),
            min(self._pace.silence_s, left_s),
        )

    def _ask(self, left_s: float) -> Ask:
        wait_s = int(min(self._wait_s, left_s))
        asked = {"after": self.cursor, "limit": self._wish.limit, "wait": wait_s or None}
        params = self._asked | {name: str(value) for name, value in asked.items() if value is not None}
        headers = {"Accept": "application/json", "Cache-Control": "no-cache"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        return Ask(params, headers, min(self._pace.answer_s + wait_s, left_s))

    # What came of a stream.

    def opened(self, answer: Answer, now: float) -> bool:
        """It was answered; True when its body is to be read."""
        if answer.status == 204 and self._wish.transport == "sse":
            self._outage.over()
            self.done = True
        elif answer.status == 204 and self.transport == "sse":
            # There is nothing more to come. Other things answer like this too, so a short request has to say the same.
            self.transport, self._doubted, self._again_at = "poll", True, now + self._again_s
        elif answer.status == 200 and answer.kind == STREAM:
            self._outage.over()
            self._stream.opened_at = now
            self.reading = True
        elif self.transport == "poll":
            self._does_not_pass(f"answered with {answer.status}", now, answer.retry_after_s or 0.0)
        elif self._is_away(answer):
            self._breaks += answer.status == 429  # as many streams as may be open: short requests may get through
            self._away(answer, now)
            self._give_up_what_breaks(now)
        elif answer.status == 200 or (answer.kind != PROBLEM and self._wish.transport == "auto"):
            # A page of something on the way. Whether the server itself says no is learnt by a short request.
            self._does_not_pass(f"answered with {answer.status} {answer.kind or 'and nothing'}", now)
        else:
            raise problem_of(answer)
        return self.reading

    def feed(self, piece: bytes, now: float) -> list[Event]:
        """The events that are whole with this piece."""
        if piece and not self._stream.heard:
            self._stream.heard, self._breaks = True, 0
            if self.transport == "poll":
                self.transport = "sse"
                self._say("the stream gets through again")
        if now - self._stream.opened_at > self._pace.silence_s:
            self._stalls, self._again_s = 0, self._pace.stream_again_s
        events: list[Event] = []
        try:
            for sse in self._stream.parser.feed(piece):
                events += self._take(event_of(json.loads(sse.data), sse.event, in_log=bool(sse.id)))
        except (SseError, ValueError):
            self._does_not_pass("garbled", now)
        if (retry_s := self._stream.parser.retry_s) is not None:
            self._retry_s = min(retry_s, ASKED_AGAIN_S_MAX)
        if self.done or (self._wish.until is not None and now >= self._wish.until):
            self.reading = False
        return events

    def closed(self, now: float) -> None:
        """It ended."""
        if self.reading and self._wish.ends_itself:
            self.done = True
        elif self.reading:
            self._broke("the stream ended early", now)
        self.reading = False

    def silent(self, now: float) -> None:
        """It said nothing for too long, or was not answered."""
        self.reading = False
        self._stalls += 1
        if self._wish.until is not None and now >= self._wish.until:
            return
        if not self._stream.heard or self._stalls >= STALLS_MAX:
            self._does_not_pass("silent", now)
        else:
            self._then("the stream fell silent", self._outage.pause_s(least_s=self._retry_s))

    def _broke(self, why: str, now: float) -> None:
        if self.transport == "poll":
            self._does_not_pass("cut off", now)
            return
        self._breaks += not self._stream.heard
        self._then(why, self._outage.pause_s(least_s=self._retry_s))
        self._give_up_what_breaks(now)

    def _give_up_what_breaks(self, now: float) -> None:
        if self._breaks >= BREAKS_MAX and self._wish.transport == "auto":
            self._does_not_pass("cut off before its first byte", now)

    def _does_not_pass(self, how: str, now: float, asked_s: float = 0.0) -> None:
        """The way here lets no stream through."""
        self.reading = False
        if self._wish.transport == "sse":
            why = f"the stream is {how}"
            self._then(why, self._outage.wait_s(now, Unreachable(f"{self._url}: {why}"), least_s=self._retry_s))
            return
        if self.transport == "sse":
            self._etag, self._more, self._wait_s = "", False, self._poll_wait_s
        self.transport = "poll"
        self._breaks = self._stalls = 0
        self._again_at = now + max(self._again_s, asked_s)
        self._again_s = min(2 * self._again_s, self._pace.stream_again_s_max)
        self._say(f"the stream is {how}; asking by short requests")

    # What came of a page.

    def page(self, answer: Answer, now: float) -> list[Event]:
        """The events of a page that was asked for."""
        content = answer.content() if answer.status == 200 else None
        events: list[Event] = []
        if content is not None:
            try:
                events = self._news(content)
            except NoEvent:
                content = None
        if answer.status == 304 or content is not None:
            self._outage.over()
            self._etag = self._etag if content is None else answer.headers.get("etag", "") if not events else ""
            asked_s = answer.retry_after_s
            own_s = 0.0 if self._more or self._wait_s else 1.0
            if self._doubted and not self.done:
                self._say("the stream is answered with 204; asking by short requests")
            self._doubted = False
            self._pause_s = 0.0 if self.done else self._outage.spread_s(own_s if asked_s is None else asked_s)
            return events
        if answer.status in {408, 504}:
            self._wait_s //= 2  # something on the way does not bear the waiting
        if answer.status != 200 and not self._is_away(answer):
            raise problem_of(answer)
        self._away(answer, now)
        return events

    def _news(self, content: Mapping[str, object]) -> list[Event]:
        told, after = content.get("events"), content.get("next_after")
        if not isinstance(told, list) or not isinstance(after, int):
            raise NoEvent("this is no page of events")
        events = [one for each in told for one in self._take(event_of(each))]
        self.cursor = max(self.cursor, after)
        self._more = content.get("more") is True
        self.done = self.done or (content.get("done") is True and not self._more)
        return events

    # What came of either.

    def lost(self, why: str, now: float, *, connected: bool = True) -> None:
        """A connection broke, or never stood."""
        if self.reading:
            self.reading = False
            self._broke(f"connection lost: {why}", now)
        elif self._listening and self.transport == "poll":
            self._does_not_pass("cut off", now)
        else:
            wait_s = self._outage.wait_s(now, Unreachable(f"cannot reach {self._url}: {why}"), least_s=self._retry_s)
            self._then(f"connection lost: {why}", wait_s)
            if self._listening:
                self._breaks += connected
                self._give_up_what_breaks(now)
            elif connected:
                self._wait_s //= 2

    def _take(self, event: Event) -> list[Event]:
        """What of it is new. Only here does the cursor move with what is given."""
        if self.done:
            return []
        last = event.seq or place_of(event)
        if last > self.cursor:
            given = [event, *(piece for piece in gathered(event, self._at) if piece.seq > self.cursor)]
            self.cursor = last
            self._shown = self._shown if event.type == CHECKPOINT else last
            self._at, self._snapshot = event.at or self._at, False
            self._outage.moved_on()
            self.done = event.terminal
            return given if event.type != CHECKPOINT else []
        return [] if last else [event]

    def _is_away(self, answer: Answer) -> bool:
        """Whether to come back later. A key that was good is given the time of a restart before it counts as bad."""
        return answer.status in TRY_AGAIN or (answer.status == 401 and self._outage.trusted)

    def _away(self, answer: Answer, now: float) -> None:
        problem = problem_of(answer)
        self._then(f"the server answered {answer.status}", self._outage.wait_s(now, problem, answer.retry_after_s))

    def _then(self, why: str, wait_s: float) -> None:
        self._pause_s = wait_s
        self._say(f"{why}; going on after event {self.cursor}", wait_s)

    def _say(self, text: str, wait_s: float = 0.0) -> None:
        self._tell(Notice(text, self.transport, self.cursor, wait_s))
