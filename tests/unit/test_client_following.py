"""The follower, without a network: whatever becomes of its requests, each event once, in order, to the end."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runwire.event import Event
from runwire.following import Ask, Choice, Done, Following, Listen, Notice, Pause, Wish
from runwire.pace import Acquaintance, Outage, Pace
from runwire.problems import Answer, NotAuthenticated, NotFound, Problem, TooMany, Unreachable

PACE = Pace(patience_s=1e9, first_patience_s=1e9)
RUN_ID = "01a1f83b-3005-7750-a8c2-bb000225aa39"
PROBLEM = "application/problem+json"
SSE = {"content-type": "text/event-stream; charset=utf-8"}

STREAM_TROUBLES = ["refused", "reset", "silent", "page", "503", "429", "401", "broken", "garbled", "lag"]


def envelope(seq: int, last: int) -> dict[str, Any]:
    kind = "result" if seq == last else "token"
    told = {"seq": seq, "run_id": RUN_ID, "type": kind, "at": "2026-11-20T07:12:53Z", "attempt": 1}
    return {**told, "final": seq == last, "data": {"text": f"piece {seq}"}}


def block(told: Mapping[str, Any]) -> bytes:
    place = f"id: {told['seq']}\n" if "seq" in told else ""
    return f"{place}event: {told['type']}\ndata: {json.dumps(told)}\n\n".encode()


def lagging(seqs: list[int]) -> dict[str, Any]:
    """Draft events gathered, as a server does for a slow reader."""
    pieces = [[seq, f"piece {seq}"] for seq in seqs]
    drafts = [{"type": "token", "attempt": 1, "shared": {}, "pieces": pieces[place::2]} for place in (0, 1)]
    data = {"first": seqs[0], "last": seqs[-1], "count": len(seqs), "drafts": drafts}
    return {"run_id": RUN_ID, "type": "lagging", "final": False, "data": data}


@dataclass
class World:
    """A run that is written while it is read, a server that tells it, and a network in between."""

    last: int
    withheld: frozenset[int]
    data: st.DataObject
    troubles: int
    choice: Choice
    now: float = 0.0
    stored: int = 1
    given: list[Event] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    good_steps: int = 0

    @property
    def shown(self) -> list[int]:
        return [seq for seq in range(1, self.last + 1) if seq not in self.withheld]

    def after(self, cursor: int) -> list[int]:
        return [seq for seq in self.shown if cursor < seq <= self.stored]

    def trouble(self, kinds: list[str]) -> str:
        """What happens to this request; nothing, when the network has had its fun."""
        self.stored = min(self.last, self.stored + self.data.draw(st.integers(0, 3)))
        if self.troubles > 0:
            self.troubles -= 1
            return self.data.draw(st.sampled_from(["none", *kinds]))
        self.stored, self.good_steps = self.last, self.good_steps + 1
        return "none"

    def follow(self, machine: Following) -> list[int]:
        while True:
            match machine.step(self.now):
                case Done():
                    return [event.seq for event in self.given if event.seq]
                case Pause(seconds):
                    assert seconds >= 0
                    self.now += seconds
                case Ask() as ask:
                    self.ask(machine, ask)
                case Listen() as listen:
                    self.listen(machine, listen)
            assert self.good_steps < 60, "it comes to no end although all is well"

    def listen(self, machine: Following, listen: Listen) -> None:
        cursor = int(listen.headers.get("Last-Event-ID", 0))
        assert cursor <= self.stored
        # Who wants a stream and nothing else has nothing to hold a 204 against.
        lies = [] if self.choice == "sse" else ["204"]
        match self.trouble(STREAM_TROUBLES + lies):
            case "refused":
                return machine.lost("refused", self.now, connected=False)
            case "reset":
                return machine.lost("reset", self.now)
            case "silent":
                self.now += listen.answer_s
                return machine.silent(self.now)
            case "page":
                assert not machine.opened(Answer(200, httpx.Headers({"content-type": "text/html"})), self.now)
                return None
            case "503" | "429" | "401" | "204" as status:
                answer = Answer(int(status), httpx.Headers({"content-type": PROBLEM, "retry-after": "1"}), b"{}")
                assert not machine.opened(answer, self.now)
                return None
            case trouble:
                pass
        if not self.after(cursor) and cursor == self.last:
            assert not machine.opened(Answer(204, httpx.Headers()), self.now)
            return None
        assert machine.opened(Answer(200, httpx.Headers(SSE)), self.now)
        self.pieces(machine, listen, self.body(cursor, trouble), trouble)
        return None

    def body(self, cursor: int, trouble: str) -> bytes:
        seqs = self.after(cursor)
        body = b":\nretry: 10\n" + b"".join(block(envelope(seq, self.last)) for seq in seqs)
        drafts = [seq for seq in seqs if seq != self.last]
        if trouble == "lag" and len(drafts) > 1:
            body = block(lagging(drafts)) + b"".join(block(envelope(seq, self.last)) for seq in seqs[len(drafts) - 1 :])
        return body + (b"id: 99\ndata: {\n\n" if trouble == "garbled" else b"")

    def pieces(self, machine: Following, listen: Listen, body: bytes, trouble: str) -> None:
        cuts = sorted(self.data.draw(st.lists(st.integers(0, len(body)), max_size=3)))
        ends = {"none": ["closed"]}.get(trouble, ["closed", "lost", "silent"]) if not self.troubles else None
        end = self.data.draw(st.sampled_from(ends or ["closed", "lost", "silent"]))
        whole = end == "closed" and self.data.draw(st.booleans())
        places = [0, *cuts, *([len(body)] if whole or not self.troubles else [])]
        for first, last in pairwise(places):
            self.now += self.data.draw(st.sampled_from([0.0, 1.0, 50.0]))
            self.given += machine.feed(body[first:last], self.now)
            if not machine.reading:
                return
        if end == "silent":
            self.now += listen.silence_s
            machine.silent(self.now)
        elif end == "lost":
            machine.lost("reset", self.now)
        else:
            machine.closed(self.now)

    def ask(self, machine: Following, ask: Ask) -> None:
        cursor = int(ask.params["after"])
        assert cursor <= self.stored
        match self.trouble(["refused", "reset", "502", "401", "page", "old"]):
            case "refused":
                return machine.lost("refused", self.now, connected=False)
            case "reset":
                return machine.lost("reset", self.now)
            case "502" | "401" as status:
                machine.page(Answer(int(status), httpx.Headers(), b"{}"), self.now)
                return None
            case "page":
                machine.page(Answer(200, httpx.Headers({"content-type": "text/html"}), b"<p>"), self.now)
                return None
            case "old":
                cursor = self.data.draw(st.integers(0, cursor))  # something on the way gives an old answer again
            case _:
                pass
        limit = self.data.draw(st.integers(1, 4))
        seqs = self.after(cursor)[:limit]
        after = seqs[-1] if len(self.after(cursor)) > limit else self.stored
        done = after == self.last
        etag = f'"{after}"'
        if ask.headers.get("If-None-Match") == etag and not seqs:
            machine.page(Answer(304, httpx.Headers({"etag": etag})), self.now)
            return None
        told = {"events": [envelope(seq, self.last) for seq in seqs], "next_after": after, "more": after < self.stored}
        body = json.dumps({**told, "done": done}).encode()
        self.given += machine.page(Answer(200, httpx.Headers({"etag": etag, "retry-after": "1"}), body), self.now)
        return None


def machine_for(world: World, after: int) -> Following:
    known = Acquaintance()
    known.trusted = True  # a 401 at first sight is a refusal, and not what this is about
    return Following(Wish(after, world.choice), PACE, Outage(PACE, known), notice=world.notices.append)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(["auto", "sse", "poll"]))
def test_whatever_happens_each_event_comes_once_and_in_order(data: st.DataObject, choice: Choice) -> None:
    last = data.draw(st.integers(1, 12))
    withheld = data.draw(st.frozensets(st.integers(2, max(2, last - 1)), max_size=4)) - {last}
    world = World(last, withheld, data, data.draw(st.integers(0, 25)), choice)
    after = data.draw(st.integers(0, last))
    world.stored = max(world.stored, after)
    assert world.follow(machine_for(world, after)) == [seq for seq in world.shown if seq > after]


class Alone:
    """A follower that the test leads by the hand."""

    def __init__(self, wish: Wish | None = None, pace: Pace | None = None) -> None:
        self.now = 0.0
        self.notices: list[Notice] = []
        outage = Outage(pace or Pace(), Acquaintance(), roll=lambda low, high: 1.0)
        self.machine = Following(wish or Wish(), pace or Pace(), outage, notice=self.notices.append)

    def step(self) -> Listen | Ask | Done:
        """The next step that is no pause; the pauses are taken."""
        self.paused_s = 0.0
        while isinstance(step := self.machine.step(self.now), Pause):
            self.paused_s += step.seconds
            self.now += step.seconds
        return step

    def listens(self) -> Listen:
        step = self.step()
        assert isinstance(step, Listen)
        return step

    def asks(self) -> Ask:
        step = self.step()
        assert isinstance(step, Ask)
        return step

    def hears(self, *told: Mapping[str, Any], retry: str = "") -> list[Event]:
        assert self.machine.opened(Answer(200, httpx.Headers(SSE)), self.now)
        return self.machine.feed(retry.encode() + b"".join(map(block, told)) or b":\n", self.now)

    def said(self, status: int, kind: str = PROBLEM, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.machine.opened(Answer(status, httpx.Headers({"content-type": kind} | named), b"{}"), self.now)

    def page(self, *told: Mapping[str, Any], after: int, **more: Any) -> list[Event]:
        headers = httpx.Headers({"etag": f'"{after}"', **more.pop("headers", {})})
        body = {"events": told, "next_after": after, "more": False, "done": False, **more}
        return self.machine.page(Answer(200, headers, json.dumps(body).encode()), self.now)


def test_the_servers_retry_is_waited_for_and_so_is_retry_after() -> None:
    alone = Alone()
    alone.listens()
    alone.hears(envelope(1, 9), retry="retry: 1500\n")
    alone.machine.closed(alone.now)
    assert alone.listens().headers["Last-Event-ID"] == "1"
    assert alone.paused_s == 1.5
    alone.said(503, Retry_After="7")
    alone.listens()
    assert alone.paused_s == 7.0


def test_tries_become_rarer_and_news_makes_them_quick_again() -> None:
    alone = Alone(pace=Pace(patience_s=100, first_patience_s=100))
    pauses = []
    for _ in range(6):
        alone.listens()
        pauses.append(alone.paused_s)
        alone.machine.lost("refused", alone.now, connected=False)
    assert pauses == [0, 0.2, 0.5, 1.0, 2.0, 4.0]
    alone.listens()
    alone.hears(envelope(1, 9))
    alone.machine.closed(alone.now)
    alone.listens()
    assert alone.paused_s == 0.2


def test_a_server_that_stays_away_is_given_up_after_the_patience_for_it() -> None:
    alone = Alone(pace=Pace(patience_s=20))
    alone.listens()
    alone.hears(envelope(1, 9))
    alone.machine.closed(alone.now)

    def lose() -> None:
        while True:
            alone.step()
            alone.machine.lost("refused", alone.now, connected=False)

    with pytest.raises(Unreachable):
        lose()
    assert 20 <= alone.now < 27


def test_who_asks_for_a_longer_wait_than_there_is_patience_for_is_told_on_at_once() -> None:
    alone = Alone()
    alone.listens()
    with pytest.raises(TooMany) as many:
        alone.said(429, Retry_After="3600")
    assert many.value.retry_after_s == 3600


def test_an_unknown_key_is_a_refusal_at_first_and_a_restart_later() -> None:
    first = Alone()
    first.listens()
    with pytest.raises(NotAuthenticated):
        first.said(401)
    later = Alone()
    later.listens()
    later.hears(envelope(1, 9))
    later.machine.closed(later.now)
    later.listens()
    later.said(401)
    assert later.listens().headers["Last-Event-ID"] == "1"


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (410, Problem)])
def test_what_the_server_itself_refuses_is_raised(status: int, kind: type[Problem]) -> None:
    alone = Alone()
    alone.listens()
    with pytest.raises(kind):
        alone.said(status)


def fallen_back(pace: Pace | None = None) -> Alone:
    alone = Alone(pace=pace)
    alone.listens()
    alone.said(200, "text/html")
    assert alone.asks().params["after"] == "0"
    assert alone.page(envelope(1, 9), envelope(2, 9), after=2)
    return alone


def test_a_stream_that_does_not_get_through_is_tried_again_later_and_ever_more_rarely() -> None:
    alone = fallen_back()
    tries: list[float] = []
    while len(tries) < 4:
        match alone.step():
            case Listen() as listen:
                tries.append(alone.now)
                assert listen.headers["Last-Event-ID"] == "1", "it asks for what it has: that must come at once"
                assert listen.first_byte_s == Pace().first_byte_s
                alone.machine.silent(alone.now)
            case Ask() as ask:
                assert ask.params["after"] == "2"
                alone.now += 10.0
                alone.page(after=2)
    gaps = [later - earlier for earlier, later in pairwise([0.0, *tries])]
    assert [round(gap, -1) for gap in gaps] == [60, 120, 240, 480]
    assert alone.machine.transport == "poll"


def test_a_stream_that_gets_through_again_takes_over_and_gives_nothing_twice() -> None:
    alone = fallen_back()
    alone.now += 60
    alone.listens()
    assert [event.seq for event in alone.hears(envelope(2, 9), envelope(3, 9))] == [3]
    assert alone.machine.transport == "sse"
    assert [notice.transport for notice in alone.notices] == ["poll", "sse"]


def test_a_stream_is_not_tried_while_pages_wait_to_be_read() -> None:
    alone = fallen_back()
    alone.now += 60
    alone.page(envelope(3, 9), after=3, more=True)
    assert alone.asks().params["after"] == "3"
    assert alone.paused_s == 0


def test_waiting_that_something_does_not_bear_is_given_up_bit_by_bit() -> None:
    alone = fallen_back()
    waits = []
    for _ in range(5):
        waits.append(alone.asks().params.get("wait"))
        alone.machine.page(Answer(504, httpx.Headers()), alone.now)
    assert waits == ["10", "5", "2", "1", None]


def test_a_page_is_asked_for_again_only_if_it_has_changed() -> None:
    alone = fallen_back()
    assert "If-None-Match" not in alone.asks().headers
    alone.page(after=2, headers={"retry-after": "3"})
    assert alone.asks().headers["If-None-Match"] == '"2"'
    assert alone.paused_s == 3.0
    alone.machine.page(Answer(304, httpx.Headers({"retry-after": "4"})), alone.now)
    assert alone.asks().headers["If-None-Match"] == '"2"'
    assert alone.paused_s == 4.0


def test_what_was_gathered_for_a_slow_reader_comes_as_the_events_that_it_was() -> None:
    alone = Alone()
    alone.listens()
    given = alone.hears(envelope(1, 9), lagging([2, 3, 4]), envelope(5, 9))
    assert [(event.seq, event.type) for event in given] == [
        (1, "token"),
        (0, "lagging"),
        (2, "token"),
        (3, "token"),
        (4, "token"),
        (5, "token"),
    ]
    assert [event.data.get("text") for event in given[2:]] == ["piece 2", "piece 3", "piece 4", "piece 5"]
    assert {event.at for event in given if event.seq} == {"2026-11-20T07:12:53Z"}


def test_whoever_is_cut_off_behind_gathered_text_goes_on_behind_it() -> None:
    alone = Alone()
    alone.listens()
    alone.hears(envelope(1, 9), lagging([2, 3, 4]))
    alone.machine.lost("reset", alone.now)
    assert alone.listens().headers["Last-Event-ID"] == "4"
    assert [event.seq for event in alone.hears(lagging([3, 4, 5, 6]), envelope(7, 9))] == [0, 5, 6, 7]


def test_a_snapshot_is_asked_for_once_and_is_a_place_to_go_on_from() -> None:
    alone = Alone(Wish(snapshot=True))
    assert alone.listens().params == {"snapshot": "1"}
    [reset] = alone.hears({"run_id": RUN_ID, "type": "reset", "data": {"status": "running", "seen": {"seq": 7}}})
    assert (reset.type, reset.seq, reset.data["status"]) == ("reset", 0, "running")
    alone.machine.closed(alone.now)
    again = alone.listens()
    assert (dict(again.params), again.headers["Last-Event-ID"]) == ({}, "7")


def test_a_checkpoint_is_a_place_and_no_event() -> None:
    alone = Alone(Wish(types=("finding", "result")))
    assert alone.listens().params == {"types": "finding,result"}
    checkpoint = {"seq": 57, "run_id": RUN_ID, "type": "checkpoint", "final": False, "data": {}}
    assert alone.hears(envelope(1, 99), checkpoint)[1:] == []
    alone.machine.closed(alone.now)
    assert alone.listens().headers["Last-Event-ID"] == "57"


def test_frames_that_are_not_known_pass_through_and_move_nothing() -> None:
    alone = Alone()
    alone.listens()
    given = alone.hears(envelope(1, 9), {"type": "weather", "sun": True}, {**envelope(2, 9), "type": "newer"})
    assert [(event.seq, event.type, event.data) for event in given[1:]] == [
        (0, "weather", {"type": "weather", "sun": True}),
        (2, "newer", {"text": "piece 2"}),
    ]


def test_nothing_is_read_after_the_end() -> None:
    alone = Alone()
    alone.listens()
    assert [event.seq for event in alone.hears(envelope(5, 5), envelope(6, 9))] == [5]
    assert isinstance(alone.step(), Done)


def test_the_time_that_was_given_bounds_every_wait() -> None:
    alone = Alone(Wish(until=5.0))
    assert alone.listens().answer_s == 5.0
    alone.hears(envelope(1, 9))
    alone.now = 5.0
    alone.machine.silent(alone.now)
    with pytest.raises(TimeoutError):
        alone.step()


def test_a_connection_that_stalls_twice_is_no_way_for_a_stream() -> None:
    alone = Alone()
    alone.listens()
    alone.hears(envelope(1, 9), envelope(2, 9))
    alone.machine.silent(alone.now)
    again = alone.listens()
    assert (again.headers["Last-Event-ID"], again.first_byte_s) == ("1", Pace().first_byte_s)
    assert alone.hears(envelope(2, 9), envelope(3, 9))
    alone.machine.silent(alone.now)
    assert alone.asks().params["after"] == "3"


def test_limits_of_open_streams_leave_short_requests() -> None:
    alone = Alone()
    for _ in range(3):
        alone.listens()
        alone.said(429, Retry_After="1")
    assert alone.asks().params["after"] == "0"


def test_a_server_that_is_down_is_not_taken_for_a_way_that_lets_no_stream_through() -> None:
    alone = Alone()
    for status in (502, 503, 504, 500, 502):
        alone.listens()
        alone.said(status, "text/html")
        alone.listens()
        alone.machine.lost("refused", alone.now, connected=False)
    alone.listens()
