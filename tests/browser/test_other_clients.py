"""Clients that others wrote, against a real API: each follows a live run, resumes, hears nothing false, and stops."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from playwright.async_api import Page

from tests import node
from tests.browser import chromium
from tests.browser.stand import Stand
from tests.house import ROOT
from tests.running import until
from tests.serving import Writer
from tests.writing import result, started, token

GUIDE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
CLIENTS = chromium.HERE / "clients"
KEEPALIVES = 5
NATIVE = """(address) => {
    window.heard = [];
    const source = new EventSource(address);
    for (const type of ["accepted", "started", "token", "result", "message"]) {
        source.addEventListener(type, (event) => window.heard.push([type, event.lastEventId, event.data]));
    }
    source.addEventListener("error", () => {
        if (source.readyState === EventSource.CLOSED) window.heard.push(["closed", "", ""]);
    });
}"""
# As its own documentation has it: a stream that ends early is an error to be tried again, an end that is known is not.
FETCHED = """async ([address, key]) => {
    const path = "/scripts/packages/@microsoft/fetch-event-source/lib/esm/index.js";
    const { fetchEventSource } = await import(path);
    window.heard = [];
    let ended = false;
    fetchEventSource(address, {
        headers: { Authorization: `Bearer ${key}` },
        openWhenHidden: true,
        onopen: async (response) => { ended ||= response.status === 204; },
        onmessage: (event) => {
            window.heard.push([event.event || "message", event.id, event.data]);
            ended ||= event.event === "result";
        },
        onclose: () => { if (!ended) throw new Error("again"); window.heard.push(["closed", "", ""]); },
    });
}"""

Heard = list[list[str]]


@dataclass
class Listener:
    """One client at work: what it heard so far."""

    heard: Callable[[], Awaitable[Heard]]

    async def has(self, count: int) -> Heard:
        async def look() -> Heard | None:
            heard = await self.heard()
            return heard if len(heard) >= count else None

        return await until(look, f"{count} events")


@asynccontextmanager
async def in_node(script: str, *words: str) -> AsyncIterator[list[Any]]:
    """A script in Node; what it says, line by line, while it says it."""
    process = await asyncio.create_subprocess_exec(
        str(node.PROGRAMS / "node"), str(CLIENTS / script), *words,
        stdout=asyncio.subprocess.PIPE, limit=2**20, env=node.environment(),
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[Any] = []

    async def read(out: asyncio.StreamReader) -> None:
        while line := await out.readline():
            lines.append(json.loads(line))

    reading = asyncio.create_task(read(process.stdout))
    try:
        yield lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@asynccontextmanager
async def native(page: Page, stand: Stand, path: str) -> AsyncIterator[Listener]:
    """Chromium's EventSource, which can send no key: the proxy adds it."""
    stand.between.key = stand.api.key()
    await page.goto(stand.between.address)
    await page.evaluate(NATIVE, path)
    yield Listener(lambda: page.evaluate("window.heard"))
    stand.between.key = ""


@asynccontextmanager
async def fetched(page: Page, stand: Stand, path: str) -> AsyncIterator[Listener]:
    """@microsoft/fetch-event-source, in Chromium."""
    await page.goto(stand.between.address)
    await page.evaluate(FETCHED, [path, stand.api.key()])
    yield Listener(lambda: page.evaluate("window.heard"))


@asynccontextmanager
async def packaged(page: Page, stand: Stand, path: str) -> AsyncIterator[Listener]:
    """The npm package `eventsource`, in Node."""

    async def heard() -> Heard:
        return lines

    async with in_node("eventsource.mjs", stand.between.address + path, stand.api.key()) as lines:
        yield Listener(heard)


@asynccontextmanager
async def in_node_as_written(program: str, folder: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program of the page about clients, in Node."""
    file = folder / "program.mts"
    file.write_text(program, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        str(node.PROGRAMS / "node"), str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


OTHERS = [native, fetched, packaged]


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def good_network(stand: Stand) -> None:
    stand.between.buffers = False
    stand.between.refusals.clear()


@pytest.mark.parametrize("client", OTHERS, ids=lambda client: client.__name__)
async def test_it_follows_resumes_hears_nothing_false_and_stops(client: Any, page: Page, stand: Stand) -> None:
    run = await stand.new_run()
    async with client(page, stand, f"/v1/runs/{run}/events") as listener:
        await listener.has(3)
        silence = stand.between.keepalives

        async def kept_alive() -> bool | None:
            return stand.between.keepalives >= silence + KEEPALIVES or None

        await until(kept_alive, "keep-alives")
        await stand.write()
        assert len(await listener.has(4)) == 4
        stand.between.cut()
        await stand.write()
        await listener.has(5)
        assert stand.between.opened_after == ["", "4"]
        last = await stand.write(result())
        heard = await listener.has(last + 1)
    expected = await stand.expected()
    assert [json.loads(data) for _, _, data in heard[:-1]] == expected
    assert [[type_, id_] for type_, id_, _ in heard[:-1]] == [[e["type"], str(e["seq"])] for e in expected]
    assert heard[-1][0] == "closed"
    if client is not fetched:  # it takes the clean end for the end; the others come back once and are told so
        assert stand.between.opened_after == ["", "4", str(last)]


async def test_our_client_in_node_gives_the_events_of_the_log_over_either_way(stand: Stand) -> None:
    run = await stand.new_run()
    words = (stand.between.address, stand.api.key(), run)
    async with in_node("runwire.mjs", *words) as live:

        async def listens() -> bool | None:
            return any(what == "frame" and told["seq"] == 3 for what, told in live) or None

        await until(listens, "event 3")
        stand.between.cut()
        await stand.write(result())

        async def over() -> bool | None:
            return live[-1] == ["state", "completed"] or None

        await until(over, "the end")
    expected = await stand.expected()
    assert [told for what, told in live if what == "frame"] == expected
    assert stand.between.polls == []


async def test_the_program_of_the_page_runs_as_it_stands(stand: Stand, tmp_path: Path) -> None:
    first = re.findall(r"^```ts\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)[0]
    program = first.replace("./client/index.ts", str(node.WEB / "client" / "index.ts"))
    program = program.replace("http://127.0.0.1:8080", stand.api.address).replace("rw_…", stand.api.key())
    async with stand.api.client() as client, in_node_as_written(program, tmp_path) as process:

        async def submitted() -> str | None:
            runs = (await client.get("/v1/runs", params={"status": "queued"})).json()["runs"]
            return next((run["id"] for run in runs if run["title"] == "Mutual NDA"), None)

        writer = Writer(stand.worker, UUID(await until(submitted, "the submission")), stand.redis)
        await writer.append(started(), token("Hello"))
        await writer.append(result())
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    assert out.decode().splitlines() == ["connecting ", "live ", "draft: Hello", "over ", "final: { ok: true }"]
