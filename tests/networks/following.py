"""The clients that we ship, reading a run in the background behind some proxy."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

import httpx

from runwire import AsyncClient, Client, Event, Notice, Pace
from tests.contract.runs import Stage, Written
from tests.serving import DEADLINE_S, until

Kind = Literal["async", "sync"]
KINDS: Final[Sequence[Kind]] = ("async", "sync")
PACE: Final = Pace(first_byte_s=1.0, poll_wait_s=1, stream_again_s=60.0, waits_s=(0.01, 0.02), patience_s=DEADLINE_S)


@dataclass
class Followed:
    """What one client was told."""

    stage: Stage
    run: Written
    address: str
    proxy: str | None = None  # one that the client is told to go through
    seqs: list[int] = field(default_factory=list)
    transports: list[str] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    async def read_async(self) -> None:
        async with (
            AsyncClient(
                self.address,
                self.stage.api.key(),
                pace=PACE,
                on_notice=self.notices.append,
                transport=httpx.AsyncHTTPTransport(proxy=self.proxy),
            ) as client,
            client.follow(self.run.run_id) as events,
        ):
            async for event in events:
                self._take(event, events.transport)

    def read(self) -> None:
        with (
            Client(
                self.address,
                self.stage.api.key(),
                pace=PACE,
                on_notice=self.notices.append,
                transport=httpx.HTTPTransport(proxy=self.proxy),
            ) as client,
            client.follow(self.run.run_id) as events,
        ):
            for event in events:
                self._take(event, events.transport)

    def _take(self, event: Event, transport: str) -> None:
        self.transports.append(transport)
        self.seqs.append(event.seq)

    async def confirmed(self, count: int) -> None:
        """The reader has so many events, and no more."""
        await until(lambda: len(self.seqs) >= count)
        assert self.seqs == [*range(1, count + 1)]


@asynccontextmanager
async def following(
    kind: Kind, stage: Stage, run: Written, address: str, proxy: str | None = None
) -> AsyncIterator[Followed]:
    """A client of this kind follows the run while the block goes on, and then to its end."""
    followed = Followed(stage, run, address, proxy)
    task = asyncio.create_task(followed.read_async() if kind == "async" else asyncio.to_thread(followed.read))
    try:
        yield followed
        await asyncio.wait_for(task, DEADLINE_S)
    finally:
        task.cancel()
