"""The console against a whole Runwire: a review watched, reloaded and stopped, another seen to its validated result."""

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Page, expect

from ops.devkeys import stored_keys
from tests.e2e.stage import Stage
from tests.machine import open_folder

SAMPLE = "Cloud services agreement with Northlight Hosting"
OPENING = "8 clauses of Cloud services agreement"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    with open_folder() as folder:
        started = await asyncio.to_thread(Stage(folder / "data").start)
        yield started
        await asyncio.to_thread(started.stop)


async def start_review(page: Page, stage: Stage) -> None:
    await page.goto(stage.running.address)
    await page.get_by_label("API key").fill(stored_keys(stage.data)["user"])
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("Begin with a sample").select_option(label=SAMPLE)
    await page.get_by_role("button", name="Start the review").click()
    await expect(page.get_by_role("heading", name=SAMPLE)).to_be_visible()


async def test_a_review_that_is_watched_reloaded_and_stopped_keeps_its_partial_result(page: Page, stage: Stage) -> None:
    await asyncio.to_thread(stage.hold_the_comments)
    await start_review(page, stage)
    draft, result = page.locator("[data-part=draft]"), page.locator("[data-part=result]")
    await expect(draft).to_contain_text(OPENING)
    await expect(result).to_contain_text("Locked")
    await page.reload()
    await expect(draft).to_contain_text(OPENING)
    await expect(page.locator("[data-part=findings-count]")).to_have_text("8")
    await page.get_by_label("Reason for stopping").select_option(label="Wrong document")
    await page.get_by_role("button", name="Stop").click()
    await expect(page.locator("[data-part=status]")).to_contain_text("Cancelled")
    await expect(result).to_have_attribute("data-final", "false")
    await expect(draft).to_contain_text(OPENING)


async def test_a_review_ends_with_a_result_that_is_apart_from_the_draft(page: Page, stage: Stage) -> None:
    await start_review(page, stage)
    result = page.locator("[data-part=result]")
    await expect(result).to_have_attribute("data-final", "true", timeout=30_000)
    await expect(result).to_contain_text("4 of 4 checks passed")
    await expect(result).to_contain_text(OPENING)
    await expect(page.locator("[data-part=status]")).to_contain_text("Completed")
    await expect(page.locator("[data-part=steps] li")).to_have_count(7)


async def test_older_runs_are_listed_once_each(page: Page, stage: Stage) -> None:
    def drills() -> None:
        with stage.client("operator") as client:
            for number in range(25):
                order = {"workflow": "drill", "title": f"Drill {number}", "input": {"pieces": 0}}
                assert client.post("/v1/runs", json=order).status_code == 202

    await asyncio.to_thread(drills)
    await page.goto(stage.running.address)
    await page.get_by_label("API key").fill(stored_keys(stage.data)["operator"])
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("link", name="Drill 24", exact=True)).to_have_count(1)
    await page.get_by_role("button", name="Show older runs").click()
    await expect(page.get_by_role("link", name="Drill 0", exact=True)).to_have_count(1)
    await expect(page.get_by_role("link", name="Drill 24", exact=True)).to_have_count(1)
