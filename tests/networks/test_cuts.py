"""Behind a proxy that cuts every connection, wherever and whenever it does, no event is lost and none comes twice."""

import asyncio
import json
from dataclasses import dataclass, field
from functools import partial

import httpx
import pytest

from eventstore.domain.lifecycle import TERMINAL_TYPES
from tests.contract.runs import Stage, Written
from tests.networks.cutting import Cutting, cutting
from tests.networks.following import following
from tests.networks.reading import DATA, begun
from tests.serving import DEADLINE_S, until

WORDS = [f"piece {number} " for number in range(30)]
CUTS = (1_500, 2_011, 2_900)  # bytes until the cut, the answer's head counted; a frame has about 300
NDJSON = "application/x-ndjson"


@dataclass
class Returning:
    """A reader who keeps the whole events of what came, and comes back with its cursor after every cut."""

    stage: Stage
    address: str
    run: Written
    accept: str = "text/event-stream"
    envelopes: list[bytes] = field(default_factory=list)
    came: bytes = b""

    @property
    def cursor(self) -> int:
        return int(json.loads(self.envelopes[-1])["seq"]) if self.envelopes else 0

    @property
    def ended(self) -> bool:
        return bool(self.envelopes) and json.loads(self.envelopes[-1])["type"] in TERMINAL_TYPES

    async def read(self) -> None:
        """To the end of the run."""
        headers = {"Authorization": f"Bearer {self.stage.api.key()}", "Accept": self.accept}
        async with httpx.AsyncClient(
            base_url=self.address, headers=headers, timeout=DEADLINE_S, trust_env=False
        ) as client:
            while not self.ended:
                try:
                    await self._read(client)
                except httpx.TransportError:
                    continue

    async def _read(self, client: httpx.AsyncClient) -> None:
        path, self.came = f"/v1/runs/{self.run.run_id}/events?after={self.cursor}", b""
        async with client.stream("GET", path) as answer:
            answer.raise_for_status()
            async for chunk in answer.aiter_raw():
                *whole, self.came = (self.came + chunk).split(b"\n" if self.accept == NDJSON else b"\n\n")
                for block in whole:
                    self.envelopes += [block] if self.accept == NDJSON else DATA.findall(block)


def _has(reader: Returning, events: int) -> bool:
    return len(reader.envelopes) == events


def _cut(proxy: Cutting, times: int) -> bool:
    return proxy.cuts >= times


async def everything(stage: Stage, run: Written) -> list[bytes]:
    return await stage.expected(run.run_id, "user")


@pytest.mark.parametrize("after_bytes", CUTS)
@pytest.mark.parametrize("accept", ["text/event-stream", NDJSON])
async def test_a_reader_who_is_cut_wherever_has_every_event_once(stage: Stage, accept: str, after_bytes: int) -> None:
    run = await begun(stage, *WORDS)
    await run.write()
    async with cutting(stage.api.address, after_bytes=after_bytes) as (proxy, address):
        reader = Returning(stage, address, run, accept)
        await asyncio.wait_for(reader.read(), DEADLINE_S)
    assert proxy.cuts > 3
    assert reader.envelopes == await everything(stage, run)


async def test_a_reader_who_is_cut_between_any_two_events_has_each_once(stage: Stage) -> None:
    run = await begun(stage, *WORDS)
    async with cutting(stage.api.address) as (proxy, address), following("async", stage, run, address) as other:
        reader = Returning(stage, address, run)
        reading = asyncio.create_task(reader.read())
        try:
            for stored in range(1, len(run.to_come) + 1):
                await until(partial(_has, reader, stored))
                proxy.cut_all()
                await run.write(1)  # while nobody is connected
            await asyncio.wait_for(reading, DEADLINE_S)
        finally:
            reading.cancel()
    assert proxy.cuts >= len(WORDS)
    assert reader.envelopes == await everything(stage, run)
    assert other.seqs == [*range(1, len(reader.envelopes) + 1)]


async def test_a_network_that_cuts_every_connection_after_five_seconds_loses_nothing(stage: Stage) -> None:
    run = await begun(stage, *WORDS)
    async with (
        cutting(stage.api.address, after_s=5.0) as (proxy, address),
        following("async", stage, run, address) as one,
        following("sync", stage, run, address) as other,
    ):
        reader = Returning(stage, address, run)
        reading = asyncio.create_task(reader.read())
        try:
            for cuts in (3, 6):
                await run.write(5)
                await until(partial(_cut, proxy, cuts))
                await run.write(5)
            await run.write()
            await asyncio.wait_for(reading, DEADLINE_S)
        finally:
            reading.cancel()
    expected = await everything(stage, run)
    assert reader.envelopes == expected
    assert one.seqs == other.seqs == [*range(1, len(expected) + 1)]
    assert {*one.transports, *other.transports} == {"sse"}, "a cut is no reason to give up streams"
