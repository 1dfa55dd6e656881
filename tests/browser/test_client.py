"""Our TypeScript client in Chromium, on a real API: one connection for many tabs, and no network loses anything."""

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import BrowserContext, Page

from tests.browser.stand import Stand
from tests.running import until
from tests.writing import result, token

FOLLOW = """async ([key, run, options]) => {
    const { Client } = await import("/scripts/client/index.js");
    window.frames_ = [];
    window.conditions = [];
    window.refused = [];
    const credential = (old) => { if (old !== null) window.refused.push(old); return key; };
    const share = options.share
        ? () => new SharedWorker("/scripts/client/shared.js", { type: "module", name: "runwire" })
        : undefined;
    window.client = new Client({ credential, pace: options.pace, ...(share && { share }) });
    window.story = window.client.follow(run, {
        after: options.after ?? 0,
        onFrames: (frames) => window.frames_.push(...frames),
        onCondition: (condition) => window.conditions.push(condition),
    });
    window.story.ended.then((end) => { window.end = end; });
}"""
QUICK = {"probeMs": 300, "retryLiveMs": 600_000}


@pytest_asyncio.fixture(loop_scope="session")
async def context(page: Page, stand: Stand) -> AsyncIterator[BrowserContext]:
    stand.between.buffers = False
    stand.between.refusals.clear()
    yield page.context
    stand.between.buffers = False
    stand.between.cut()


async def follow(page: Page, stand: Stand, run: str, **options: Any) -> None:
    await page.goto(stand.between.address)
    await page.evaluate(FOLLOW, [stand.api.key(), run, options])


async def seqs(page: Page) -> list[int]:
    told: list[int] = await page.evaluate("window.frames_.map((frame) => frame.seq)")
    return told


async def has(page: Page, last: int) -> None:
    """Until the page has the event of this seq; each before it once, in order."""

    async def look() -> bool | None:
        return (await seqs(page))[-1:] == [last] or None

    await until(look, f"event {last}")
    assert await seqs(page) == [*range(1, last + 1)]


async def says(page: Page, state: str, reason: str | None = None) -> None:
    async def look() -> bool | None:
        told = await page.evaluate("window.conditions.at(-1)")
        return (told is not None and (told["state"], told["reason"]) == (state, reason)) or None

    await until(look, f"{state} {reason}")


async def open_streams(stand: Stand, count: int) -> None:
    async def look() -> bool | None:
        return stand.between.streams == count or None

    await until(look, f"{count} open streams")


async def test_a_run_is_followed_to_its_end_with_the_very_events_of_the_log(page: Page, stand: Stand) -> None:
    await follow(page, stand, await stand.new_run())
    await has(page, 3)
    await says(page, "live")
    last = await stand.write(result())
    await has(page, last)
    await says(page, "over")
    assert await page.evaluate("window.end") == {"how": "ended"}
    assert await page.evaluate("window.frames_") == await stand.expected()


async def test_seven_tabs_share_one_connection_which_outlives_the_tab_that_began_it(
    context: BrowserContext, stand: Stand
) -> None:
    run = await stand.new_run()
    tabs = [await context.new_page() for _ in range(7)]
    for tab in tabs:
        await follow(tab, stand, run, share=True)
        await has(tab, await stand.write())
    assert stand.between.streams == 1
    listed = await tabs[-1].evaluate("window.client.list({ limit: 1 })")
    assert listed["runs"][0]["id"] == run
    await tabs[0].close()
    late = await context.new_page()
    await follow(late, stand, run, share=True)
    last = await stand.write(result())
    for tab in [*tabs[1:], late]:
        await has(tab, last)
        assert await tab.evaluate("window.end") == {"how": "ended"}
    assert stand.between.opened_after == ["0"]
    assert stand.between.polls == []


async def test_a_connection_ends_with_the_last_tab_that_follows_its_run(context: BrowserContext, stand: Stand) -> None:
    tabs = [await context.new_page() for _ in range(3)]
    runs = [await stand.new_run(), await stand.new_run()]
    for tab, run in zip(tabs, [runs[0], runs[0], runs[1]], strict=True):
        await follow(tab, stand, run, share=True)
        await has(tab, 3)
    for tab, left in zip(tabs, [2, 1, 0], strict=True):
        await tab.close()
        await open_streams(stand, left)


async def test_without_a_shared_worker_three_tabs_listen_and_the_others_ask_until_there_is_room(
    context: BrowserContext, stand: Stand
) -> None:
    run = await stand.new_run()
    tabs = [await context.new_page() for _ in range(4)]
    for tab in tabs:
        await follow(tab, stand, run)
        await has(tab, 3)
    assert stand.between.streams == 3
    await says(tabs[3], "polling", "tabs")
    last = await stand.write()
    await has(tabs[3], last)
    await tabs[0].close()
    await says(tabs[3], "live")
    last = await stand.write(result())
    for tab in tabs[1:]:
        await has(tab, last)


async def test_an_api_that_restarts_in_between_loses_and_doubles_nothing(page: Page, stand: Stand) -> None:
    await follow(page, stand, await stand.new_run())
    await has(page, 3)
    await stand.stop()
    await says(page, "reconnecting")
    await stand.write(token("while nobody listens "))
    await stand.start()
    await says(page, "live")
    last = await stand.write(result())
    await has(page, last)


async def test_one_401_429_502_or_503_is_survived(page: Page, stand: Stand) -> None:
    await follow(page, stand, await stand.new_run())
    await has(page, 3)
    for status, headers in [(401, {}), (429, {"Retry-After": "1"}), (502, {}), (503, {})]:
        stand.between.refusals.append((status, headers))
        stand.between.cut()
        last = await stand.write()
        await has(page, last)
        assert not stand.between.refusals
    assert await page.evaluate("window.refused.length") == 1
    assert await page.evaluate("window.conditions.at(-1).transport") == "stream"


async def test_behind_a_proxy_that_buffers_it_asks_from_the_same_cursor_and_says_so(
    context: BrowserContext, page: Page, stand: Stand
) -> None:
    stand.between.buffers = True
    run = await stand.new_run()
    await follow(page, stand, run, after=1, pace=QUICK)
    await says(page, "polling", "buffered")
    assert await seqs(page) == [2, 3]
    assert stand.between.opened_after == ["1"]
    assert stand.between.polls[0] == "1"
    last = await stand.write(result())

    async def look() -> bool | None:
        return (await seqs(page)) == [*range(2, last + 1)] or None

    await until(look, "the result")
    assert await page.evaluate("window.end") == {"how": "ended"}


async def test_offline_and_online_again(context: BrowserContext, page: Page, stand: Stand) -> None:
    await follow(page, stand, await stand.new_run())
    await has(page, 3)
    await context.set_offline(True)
    stand.between.cut()
    await says(page, "offline")
    last = await stand.write()
    await context.set_offline(False)
    await has(page, last)
    await says(page, "live")
