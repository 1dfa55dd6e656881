"""Our TypeScript client in Node, behind the filter: it turns to short requests by itself, and says so."""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests import node
from tests.contract.runs import Stage, Written
from tests.house import ROOT
from tests.networks.intercepting import intercepting
from tests.networks.proxies import privoxy
from tests.networks.reading import begun, one_by_one
from tests.serving import DEADLINE_S, until

pytestmark = pytest.mark.program("privoxy")

CLIENT = ROOT / "tests/browser/clients/runwire.mjs"


@dataclass
class Said:
    """What the client printed so far."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    states: list[str] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        what, told = json.loads(line)
        lists: dict[str, list[Any]] = {"frame": self.frames, "condition": self.conditions, "state": self.states}
        lists[what].append(told)


@asynccontextmanager
async def in_node(stage: Stage, run: Written, address: str) -> AsyncIterator[Said]:
    """The client follows the run at this address while the block goes on, and then to its end."""
    said = Said()
    words = [str(node.PROGRAMS / "node"), str(CLIENT), address, stage.api.key(), str(run.run_id)]
    process = await asyncio.create_subprocess_exec(*words, env=node.environment(), stdout=PIPE)

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            said.take(line)

    listening = asyncio.create_task(listen())
    try:
        yield said
        await asyncio.wait_for(listening, DEADLINE_S)
        assert await process.wait() == 0
    finally:
        listening.cancel()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_it_asks_by_short_requests_with_the_same_cursor_and_says_so(stage: Stage) -> None:
    run = await begun(stage, "Clause 4.1 ")
    await run.write(1)
    with privoxy() as proxy:
        async with intercepting(stage.api.address, proxy) as address, in_node(stage, run, address) as said:

            async def confirmed(count: int) -> None:
                await until(lambda: len(said.frames) >= count)
                assert [frame["seq"] for frame in said.frames] == [*range(1, count + 1)]

            await one_by_one(run, confirmed, stored=2)
    assert said.frames == [json.loads(envelope) for envelope in await stage.expected(run.run_id, "user")]
    assert ("polling", "buffered") in {(told["state"], told["reason"]) for told in said.conditions}
    assert said.states == ["completed"]
