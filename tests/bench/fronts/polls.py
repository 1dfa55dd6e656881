"""What a poll costs the API: processor time per answered request, for runs of very different lengths.

The client is a few keep-alive connections in this process, each asking again when it has its answer, never two at once.
The API's own processor time is what is counted (user and system), and its reciprocal is told as polls per second of a
core: that is the same on a machine that does other things beside. Every answer is looked at, so none is counted that
is not the one that was asked for; readers who follow a run check that each event comes once, in its place.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, cast
from urllib.parse import urlsplit

from tests.bench.figures import Claim, percentile
from tests.bench.fronts.ground import Ground
from tests.bench.log.report import Report

LENGTHS: Final = (100, 10_000, 100_000)  # events in the run
CONNECTIONS: Final = 32
SECONDS: Final = 4.0
WARM_S: Final = 0.5
NEWS: Final = 5  # events in an answer that has some
PACE: Final = 100  # events a second, of a run that goes on
FLAT: Final = 1.2  # so much dearer may a poll be in the longest run than in the shortest
CHANGED: Final = "poll, delta"
SAME: Final = "poll, 304"
LEAST: Final = {SAME: 4_000, CHANGED: 1_500}
LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)

Judge = Callable[[bytes], "bytes | None"]  # from a whole answer to what is asked next; None when it is a wrong one


class Asker(asyncio.Protocol):
    """One connection that asks, and asks again when it has its answer."""

    def __init__(self, ask: bytes, judge: Judge, until: float, over: "asyncio.Future[None]") -> None:
        self.took: list[float] = []
        self._ask = ask
        self._judge = judge
        self._until = until
        self._over = over
        self._came = b""
        self._asked = 0.0
        self._now = asyncio.get_running_loop().time
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._came += data
        head, blank, body = self._came.partition(b"\r\n\r\n")
        length = LENGTH.search(head + b"\r\n")
        if not blank or (length is not None and len(body) < int(length[1])):
            return
        answer, self._came = self._came, b""
        self.took.append(self._now() - self._asked)
        ask = self._judge(answer)
        if ask is None:
            self._end(RuntimeError(f"not the answer that was asked for: {answer[:400]!r}"))
        else:
            self._ask = ask
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(RuntimeError("the connection was closed"))

    def _next(self) -> None:
        assert self._transport is not None
        self._asked = self._now()
        if self._asked < self._until or not self.took:
            self._transport.write(self._ask)
        else:
            self._end(None)

    def _end(self, fault: Exception | None) -> None:
        if not self._over.done():
            if fault is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(fault)
        if self._transport is not None:
            self._transport.close()


@dataclass(frozen=True, slots=True)
class Polled:
    """One measurement."""

    polls: int
    cpu_us: float  # of the API, for one
    p50_ms: float
    p99_ms: float

    @property
    def per_core(self) -> float:
        """Polls per second of the API's processor time."""
        return 1e6 / self.cpu_us

    def tell(self, report: Report, name: str) -> None:
        more = {"cpu_us": self.cpu_us, "p50_ms": self.p50_ms, "p99_ms": self.p99_ms, "polls": self.polls}
        report.add(name, self.per_core, "/s a core", **more)


@dataclass(slots=True)
class Reader:
    """Follows a run: on from its cursor, and no event twice or left out."""

    ask: Callable[[int], bytes]
    after: int

    def judge(self, answer: bytes) -> bytes | None:
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        seqs = [event["seq"] for event in told["events"]]
        if seqs != [*range(self.after + 1, self.after + 1 + len(seqs))] or told["next_after"] != self.after + len(seqs):
            return None
        self.after = told["next_after"]
        return self.ask(self.after)


def request(ground: Ground, path: str, headers: str = "") -> bytes:
    """A plain GET."""
    host = urlsplit(ground.address).netloc
    return f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {ground.key}\r\n{headers}\r\n".encode()


async def ask_once(ground: Ground, path: str) -> bytes:
    """One answer, head and body."""
    answers: list[bytes] = []

    def keep(answer: bytes) -> bytes:
        answers.append(answer)
        return b""

    await _crowd(ground, request(ground, path), [keep], 0.0)
    return answers[0]


async def _crowd(ground: Ground, ask: bytes, judges: list[Judge], seconds: float) -> list[float]:
    """Ask for as long as that, each judge on a connection of its own; how long each answer took."""
    parts, loop = urlsplit(ground.address), asyncio.get_running_loop()
    until = loop.time() + seconds
    askers = []
    overs = [loop.create_future() for _ in judges]
    for judge, over in zip(judges, overs, strict=True):
        making = partial(Asker, ask, judge, until, over)
        _, asker = await loop.create_connection(making, str(parts.hostname), int(parts.port or 80))
        askers.append(asker)
    await asyncio.gather(*overs)
    return [each for asker in askers for each in asker.took]


async def _counted(ground: Ground, ask: bytes, judges: list[Judge], seconds: float) -> Polled:
    before = ground.cpu_s()
    took = await _crowd(ground, ask, judges, seconds)
    spent = ground.cpu_s() - before
    return Polled(len(took), spent * 1e6 / len(took), percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3)


async def measure(ground: Ground, path: str, wanted: bytes, headers: str, seconds: float) -> Polled:
    """The same question for as long as that; every answer must begin so."""
    ask = request(ground, path, headers)
    judges: list[Judge] = [lambda answer: ask if answer.startswith(wanted) else None] * CONNECTIONS
    await _crowd(ground, ask, judges, WARM_S)
    return await _counted(ground, ask, judges, seconds)


async def follow(ground: Ground, path: str, after: int, seconds: float) -> tuple[Polled, list[Reader]]:
    """Readers who go on from what they were told last."""
    readers = [Reader(lambda seq: request(ground, f"{path}{seq}"), after) for _ in range(CONNECTIONS)]
    judges: list[Judge] = [reader.judge for reader in readers]
    return await _counted(ground, request(ground, f"{path}{after}"), judges, seconds), readers


async def polls(report: Report, ground: Ground, quick: bool) -> None:
    """Answers of each kind, for each length of the run; then of a run that goes on."""
    seconds = SECONDS / 4 if quick else SECONDS
    lengths = LENGTHS[:2] if quick else LENGTHS
    found: dict[str, dict[int, Polled]] = {SAME: {}, CHANGED: {}}
    async with ground.writer() as writer:
        for length in lengths:
            [run] = await writer.order("open", runs=1)
            seq = (await writer.order("store", events=length - 2))[run]
            path = f"/v1/runs/{run}/poll?after="
            etag = re.search(rb"\r\netag: ([^\r]+)\r\n", await ask_once(ground, f"{path}{seq}"))
            assert etag is not None
            known = f"If-None-Match: {etag[1].decode()}\r\n"
            for name, query, wanted, headers in (
                (SAME, f"{seq}", b"HTTP/1.1 304", known),
                (CHANGED, f"{seq - NEWS}&partial=delta", b"HTTP/1.1 200", ""),
                ("poll, events and the draft's end", f"{seq - NEWS}", b"HTTP/1.1 200", ""),
            ):
                one = await measure(ground, path + query, wanted, headers, seconds)
                one.tell(report, f"{name}, {length:,} events in the run")
                found.setdefault(name, {})[length] = one
            pacing = asyncio.create_task(writer.order("pace", rate=PACE, seconds=seconds))
            one, readers = await follow(ground, f"/v1/runs/{run}/poll?partial=delta&after=", seq, seconds)
            await pacing
            one.tell(report, f"poll, following {PACE} events/s, {length:,} events before")
            assert min(reader.after for reader in readers) > seq, "nothing came"
            await writer.order("end")
    for name, costs in found.items():
        longest, shortest = costs[max(costs)], costs[min(costs)]
        if name in LEAST:
            longest.tell(report, name)
            report.claim(Claim(f"{name}, polls/s a core", longest.per_core, at_least=LEAST[name]))
            report.claim(Claim(f"{name}, longest run to shortest", longest.cpu_us / shortest.cpu_us, at_most=FLAT))
