"""What one caller may ask for: counted exactly, shared between processes, refused with the time to come back."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

import api.limits
from api.callers import Caller
from api.errors import TooManyRequests, TooManyStreams, told
from api.figures import ApiFigures
from api.limits import Limits
from api.settings import ApiSettings

module: Any = api.limits  # whose clock is set
ADA = ("acme", "ada")


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def caller(subject: str = "ada", key_id: str = "1", tenant: str = "acme") -> Caller:
    return Caller(key_id, UUID(int=1), tenant, subject, "user")


def settings(**more: Any) -> ApiSettings:
    return ApiSettings(database_url="postgresql:///", redis_url="redis://", **more)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def limits(rate: float = 10.0, window_s: float = 2.0, streams: int = 3) -> Limits:
    bounds = settings(caller_requests_per_s=rate, caller_requests_window_s=window_s, caller_streams_max=streams)
    return Limits(bounds, ApiFigures().refusals)


def taken(ask: Callable[[], None], tries: int) -> int:
    """How many of these are let through."""
    through = 0
    for _ in range(tries):
        try:
            ask()
        except TooManyRequests:
            continue
        through += 1
    return through


def test_a_rested_caller_may_ask_a_windows_worth_at_once_and_then_at_the_rate(clock: Clock) -> None:
    some = limits()
    assert taken(lambda: some.request(caller()), 100) == 20
    clock.now += 1.0
    assert taken(lambda: some.request(caller()), 100) == 10
    clock.now += 60.0
    assert taken(lambda: some.request(caller()), 100) == 20


def test_whoever_comes_back_when_told_is_let_in(clock: Clock) -> None:
    some = limits()
    taken(lambda: some.request(caller()), 100)
    with pytest.raises(TooManyRequests) as refused:
        some.request(caller())
    answer = told("x", refused.value)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["ratelimit"] == '"requests";r=0;t=1'
    assert answer.headers["ratelimit-policy"] == '"requests";q=20;w=2'
    clock.now += float(answer.headers["retry-after"])
    some.request(caller())


def test_callers_are_people_of_a_tenant_whatever_key_they_show(clock: Clock) -> None:
    some = limits()
    assert taken(lambda: some.request(caller()), 100) == 20
    assert taken(lambda: some.request(caller(key_id="2")), 100) == 0
    assert taken(lambda: some.request(caller("bob")), 100) == 20
    assert taken(lambda: some.request(caller(tenant="other")), 100) == 20


@given(rate=st.floats(0.5, 1_000), window_s=st.floats(2, 60), gaps=st.lists(st.floats(0, 3), max_size=60))
def test_no_stretch_of_time_holds_more_than_its_share_and_a_windows_worth(
    rate: float, window_s: float, gaps: list[float]
) -> None:
    clock, some = Clock(), limits(rate, window_s)
    before, module.monotonic = module.monotonic, clock
    try:
        through = 0
        for gap in gaps:
            clock.now += gap
            through += taken(lambda: some.request(caller()), 5)
        assert through <= rate * (window_s + sum(gaps)) + 1
    finally:
        module.monotonic = before


def test_streams_are_counted_while_they_are_open_and_no_longer() -> None:
    some = limits()
    places = [some.stream(caller())(nullcontext(n)) for n in range(3)]
    assert [place.__enter__() for place in places] == [0, 1, 2]
    with pytest.raises(TooManyStreams) as refused:
        some.stream(caller())
    assert told("x", refused.value).headers["ratelimit-policy"] == '"streams";q=3;qu="concurrent-requests"'
    some.stream(caller("bob"))
    places[0].__exit__(None, None, None)
    some.stream(caller())
    some.stream(caller())  # room that nobody opened a stream in is room still


def test_a_stream_that_cannot_open_gives_its_place_back() -> None:
    some = limits(streams=1)

    class Broken:
        def __enter__(self) -> None:
            raise RuntimeError

        def __exit__(self, *_: object) -> None: ...

    for _ in range(3):
        with pytest.raises(RuntimeError), some.stream(caller())(Broken()):
            pass


def test_what_the_others_leave_is_given_here_and_an_even_share_at_least(clock: Clock) -> None:
    some = limits(rate=100, window_s=1)
    some.request(caller())
    for _ in range(30):
        some.heard(ADA, [(80.0, 0)])
    assert some.use(caller()).interval_s == pytest.approx(1 / 50)
    for _ in range(30):
        some.heard(ADA, [(20.0, 0)])
    assert some.use(caller()).interval_s == pytest.approx(1 / 80)
    for _ in range(30):
        some.heard(ADA, [])
    assert some.use(caller()).interval_s == pytest.approx(1 / 100)


@settings_of_hypothesis(max_examples=15, deadline=None)
@given(asked=st.lists(st.integers(2, 60), min_size=2, max_size=5))
def test_all_processes_together_come_to_the_rate_however_the_requests_are_spread(asked: list[int]) -> None:
    clock = Clock()
    before, module.monotonic = module.monotonic, clock
    try:
        processes = [limits(rate=20, window_s=1) for _ in asked]
        last: list[int] = []
        for _ in range(40):
            through = 0
            for one, number in zip(processes, asked, strict=True):
                through += taken(partial(one.request, caller()), number)
            clock.now += 1.0
            last = [*last[-9:], through]
            told_of = [one.told(1.0).get(ADA) for one in processes]
            for own, one in enumerate(processes):
                if told_of[own] is not None:
                    one.heard(ADA, [use for other, use in enumerate(told_of) if other != own and use is not None])
        average = sum(last) / len(last)
        assert min(sum(asked), 15) <= average <= 25
    finally:
        module.monotonic = before


def test_streams_on_other_processes_count(clock: Clock) -> None:
    some = limits(streams=3)
    some.request(caller())
    some.heard(ADA, [(0.0, 2), (0.0, 0)])
    with some.stream(caller())(nullcontext()), pytest.raises(TooManyStreams):
        some.stream(caller())


def test_only_callers_who_use_much_are_told_of_and_those_who_left_are_forgotten(clock: Clock) -> None:
    some = limits(rate=100, window_s=1, streams=40)
    for _ in range(50):
        some.request(caller())
    some.request(caller("bob"))
    with some.stream(caller("eve"))(nullcontext()), some.stream(caller("eve"))(nullcontext()):
        assert some.told(1.0) == {ADA: (50.0, 0), ("acme", "eve"): (0.0, 2)}
    clock.now += 10.0
    assert some.told(1.0) == {}
    assert some.told(1.0) == {}
    assert not some._uses


@pytest.mark.parametrize(
    ("bad", "hint"),
    [
        ({"caller_requests_per_s": 0.5, "caller_requests_window_s": 1}, "caller_requests_per_s times"),
        ({"caller_streams_max": 20_000}, "connections_max"),
        ({"unheard_timeout_s": 5}, "send_timeout_s"),
        ({"websocket_origins": "https://a.example https://b.example/x"}, "origins"),
        ({"websocket_origins": "*"}, "origins"),
    ],
)
def test_limits_that_do_not_fit_together_stop_the_start(bad: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        settings(**bad)
