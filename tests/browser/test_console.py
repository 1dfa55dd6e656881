"""The console's promises, seen in Chromium against recorded runs."""

import itertools
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.browser.recorded import KEY, PLAN, RUN_ID, SAMPLE, Recorded, console_app, served

FINDING = {"title": "Notification duty", "severity": "high", "clause": "4.1", "why": "No period is named."}


@pytest_asyncio.fixture
async def recorded() -> Recorded:
    return Recorded()


@pytest_asyncio.fixture
async def address(recorded: Recorded) -> AsyncIterator[str]:
    async with served(console_app(recorded)) as url:
        yield url
        await recorded.close()


async def open_run(page: Page, address: str, run_id: str = RUN_ID) -> None:
    await page.goto(f"{address}/#/runs/{run_id}")
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Continue").click()


async def begin(recorded: Recorded) -> None:
    await recorded.add("accepted", workflow="contract_review", title="Mutual NDA", milestones=PLAN)
    await recorded.add("started", attempt=1)


async def reach(recorded: Recorded, index: int, **more: object) -> None:
    await recorded.add("progress", **PLAN[index - 1], index=index, total=len(PLAN), **more)


async def write(recorded: Recorded, text: str, attempt: int = 1) -> int:
    return await recorded.add("token", text=text, section="comments", step="draft", attempt=attempt)


async def test_a_key_is_asked_for_once_and_never_part_of_an_address(page: Page, address: str) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    await page.goto(address)
    await page.get_by_label("API key").fill("wrong")
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("alert").filter(has_text="not accepted")).to_be_visible()
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("link", name="Mutual NDA")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("link", name="Mutual NDA")).to_be_visible()
    assert not [url for url in addresses if KEY in url or not url.startswith(address)]
    await page.get_by_role("button", name="Forget the key").click()
    await expect(page.get_by_label("API key")).to_be_visible()
    assert await page.evaluate("sessionStorage.length") == 0


async def test_a_sample_fills_the_form_and_one_press_starts_one_run(
    page: Page, address: str, recorded: Recorded
) -> None:
    await page.goto(address)
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Continue").click()
    await page.get_by_label("Begin with a sample").select_option(label="Mutual NDA")
    await expect(page.get_by_label("Text of the contract")).to_have_value(SAMPLE["text"])
    await page.get_by_label("Title").fill("My NDA")
    await page.get_by_role("button", name="Start the review").dblclick()
    await expect(page).to_have_url(re.compile(f"#/runs/{RUN_ID}$"))
    started = [body for method, path, body in recorded.asked if (method, path) == ("POST", "/v1/runs")]
    assert started == [{"workflow": "contract_review", "input": SAMPLE | {"title": "My NDA"}}]


async def test_the_whole_plan_is_there_from_the_beginning(page: Page, address: str, recorded: Recorded) -> None:
    await recorded.add("accepted", workflow="contract_review", title="Mutual NDA", milestones=PLAN)
    await open_run(page, address)
    steps = page.get_by_role("region", name="Steps").get_by_role("listitem")
    await expect(steps).to_have_count(7)
    await expect(page.locator("[data-part=status]")).to_have_text("Queued")
    await recorded.add("started", attempt=1)
    await reach(recorded, 3, detail="clause 4 of 12")
    await expect(page.locator(".state")).to_have_text("Running Step 3 of 7, Extracting clauses: clause 4 of 12")
    await expect(steps.nth(2)).to_have_attribute("aria-current", "step")
    assert [await steps.nth(n).get_attribute("class") for n in range(4)] == ["done", "done", "current", "next"]


async def test_draft_never_stands_in_the_result_box_which_only_a_result_event_opens(
    page: Page, address: str, recorded: Recorded
) -> None:
    await begin(recorded)
    await open_run(page, address)
    result, draft = page.locator("[data-part=result]"), page.locator("[data-part=draft]")
    await write(recorded, "Clause 4.1 is ")
    await write(recorded, "open-ended.")
    await expect(draft).to_contain_text("Draft – not validated")
    await expect(draft).to_contain_text("Clause 4.1 is open-ended.")
    await expect(result).to_contain_text("Locked until every check has passed.")
    await recorded.add("finding", item="clause_4_1", value=FINDING)
    await expect(page.get_by_role("region", name="Findings")).to_contain_text("No period is named.")
    checks = [
        {"name": "quotes_exist", "passed": True},
        {"name": "citations", "passed": False, "detail": "3 is absent"},
    ]
    await recorded.add("validation", passed=False, checks=checks)
    await expect(result).to_contain_text("Not validated. 1 of 2 checks passed.")
    await expect(result).to_contain_text("Failed: Citations – 3 is absent")
    await expect(result).to_have_attribute("data-final", "false")
    await recorded.add("validation", passed=True, checks=[check | {"passed": True} for check in checks])
    await expect(result).to_contain_text("2 of 2 checks passed")
    await expect(result).to_have_attribute("data-final", "false")
    await recorded.add("result", status="complete", output={"summary": "One clause needs work."})
    await expect(result).to_have_attribute("data-final", "true")
    await expect(result).to_contain_text("One clause needs work.")
    await expect(page.locator("[data-part=link]")).to_have_text("Ended")
    await expect(page.get_by_text("open-ended.")).to_be_hidden()
    await expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    assert recorded.opened_after == [0]


async def test_text_of_a_replaced_attempt_is_gone_from_the_page(page: Page, address: str, recorded: Recorded) -> None:
    await begin(recorded)
    kept = await write(recorded, "Kept words. ")
    first = await write(recorded, "Lost ")
    last = await recorded.add("finding", item="lost_item", value={"title": "Lost finding"})
    await open_run(page, address)
    await expect(page.get_by_text("Lost finding")).to_be_visible()
    await recorded.add(
        "retry",
        what="model",
        reason="connection_lost",
        message="The model's connection was lost.",
        superseded=[[first, last]],
        attempt=1,
        next_attempt=2,
        wait_s=0.5,
    )
    await write(recorded, "New words.", attempt=2)
    await expect(page.locator("[data-part=draft-text]")).to_contain_text("Kept words. New words.")
    assert kept < first
    assert "Lost" not in await page.locator("main").evaluate("node => node.textContent")
    await page.get_by_text("Activity").click()
    await expect(page.get_by_text("Attempt 1 was replaced: The model's connection was lost. Attempt 2")).to_be_visible()


async def test_stop_sends_one_request_and_waits_for_the_log(page: Page, address: str, recorded: Recorded) -> None:
    await begin(recorded)
    await reach(recorded, 4)
    await open_run(page, address)
    await page.get_by_label("Reason for stopping").select_option("Wrong document")
    await page.get_by_role("button", name="Stop").dblclick()
    await expect(page.get_by_role("button", name="Stopping…")).to_have_attribute("aria-disabled", "true")
    await expect(page.locator("[data-part=status]")).to_have_text("Stopping…")
    await page.get_by_role("button", name="Stopping…").click(force=True)
    await recorded.add("cancel_requested", by={"subject": "u-1", "role": "user"}, reason="Wrong document")
    partial = {"sections": {"comments": "Half a comment"}, "findings": [FINDING], "final": False}
    await recorded.add("cancelled", reason="Wrong document", partial=partial, missing=["checking", "validating"])
    result = page.locator("[data-part=result]")
    await expect(result).to_contain_text("Partial result – not validated")
    await expect(result).to_contain_text("Wrong document. Missing: Checking against policy, Validating.")
    await expect(result).to_contain_text("Half a comment")
    await expect(result).to_have_attribute("data-final", "false")
    await expect(page.locator("[data-part=status]")).to_have_text("Cancelled")
    asked = [body for method, path, body in recorded.asked if path.endswith("/cancel")]
    assert asked == [{"reason": "Wrong document"}]


async def test_a_stop_that_did_not_arrive_can_be_pressed_again(page: Page, address: str, recorded: Recorded) -> None:
    await begin(recorded)
    recorded.cancel_status = 503
    await open_run(page, address)
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_text("The log cannot be written just now.")).to_be_visible()
    recorded.cancel_status = 202
    await page.get_by_role("button", name="Stop").click()
    await expect(page.get_by_role("button", name="Stopping…")).to_be_visible()
    await expect(page.get_by_text("The log cannot be written just now.")).to_be_hidden()


async def test_a_run_that_waits_says_where_it_stands_in_line_and_how_that_changes(
    page: Page, address: str, recorded: Recorded
) -> None:
    await recorded.add("accepted", workflow="contract_review", title="Mutual NDA", milestones=PLAN)
    recorded.queue = {"position": 3, "exact": True, "reason": "turn"}
    await open_run(page, address)
    status = page.locator("[data-part=status]")
    await expect(status).to_have_text("Queued, 3rd in line")
    recorded.queue = {"position": 1, "exact": True, "reason": "turn"}
    await expect(status).to_have_text("Queued, 1st in line")
    recorded.queue = {"position": None, "exact": False, "reason": "no_worker"}
    await expect(status).to_have_text("Queued, no worker can carry it")
    await recorded.add("started", attempt=1)
    await expect(status).to_have_text("Running")


async def test_a_failed_run_shows_what_is_there_and_says_that_it_is_partial(
    page: Page, address: str, recorded: Recorded
) -> None:
    await begin(recorded)
    await recorded.add(
        "error",
        code="model_unavailable",
        message="The model did not answer.",
        partial={"sections": {}, "findings": [FINDING], "final": False},
        retryable=True,
    )
    await open_run(page, address)
    result = page.locator("[data-part=result]")
    await expect(result).to_contain_text("Partial result – not validated")
    await expect(result).to_contain_text("The model did not answer. A new run may help.")
    await expect(result).to_contain_text("No period is named.")


async def test_a_cut_stream_goes_on_from_its_cursor_and_a_refresh_reads_all_again(
    page: Page, address: str, recorded: Recorded
) -> None:
    await begin(recorded)
    for number in range(1, 9):
        await write(recorded, f"{number} ")
    recorded.cuts = {4, 7}
    recorded.refusals = [(503, {"Retry-After": "0"}), (429, {}), (502, {})]
    await open_run(page, address)
    draft = page.locator("[data-part=draft-text]")
    await expect(draft).to_contain_text("1 2 3 4 5 6 7 8")
    assert recorded.opened_after == [0, 0, 0, 0, 4, 7]
    await page.reload()
    await expect(draft).to_contain_text("1 2 3 4 5 6 7 8")
    await write(recorded, "9")
    await expect(draft).to_contain_text("1 2 3 4 5 6 7 8 9")
    assert recorded.opened_after[6:] == [0]


async def test_an_unknown_run_is_said_to_be_unknown_and_is_asked_for_once(
    page: Page, address: str, recorded: Recorded
) -> None:
    await open_run(page, address, "0199c0de-0000-7000-8000-00000000ffff")
    await expect(page.get_by_role("alert").filter(has_text="There is no such run")).to_be_visible()
    assert recorded.opened_after == [0]


async def test_markup_from_a_model_is_shown_as_text(page: Page, address: str, recorded: Recorded) -> None:
    hostile = '<img src="/x" onerror="alert(1)"><script>alert(2)</script>'
    await recorded.add("accepted", workflow="contract_review", title=hostile, milestones=PLAN)
    await write(recorded, hostile)
    await recorded.add("finding", item="x", value={"title": hostile, hostile: [hostile, {"a": hostile}]})
    await recorded.add("result", status="complete", output={hostile: hostile})
    await open_run(page, address)
    await expect(page.get_by_role("heading", level=1)).to_have_text(hostile)
    await expect(page.locator("[data-part=output]")).to_contain_text(hostile)
    assert await page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("width", [320, 760, 1200])
async def test_every_part_of_a_run_has_its_own_place_at_any_width(
    page: Page, address: str, recorded: Recorded, width: int
) -> None:
    await page.set_viewport_size({"width": width, "height": 640})
    await begin(recorded)
    await reach(recorded, 4)
    await write(recorded, "x" * 400)
    await recorded.add("finding", item="clause_4_1", value=FINDING)
    await open_run(page, address)
    await expect(page.locator("[data-part=draft-text]")).to_contain_text("xxx")
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = await page.locator(".head, .result, .draft, .findings, .steps, .activity").evaluate_all(
        "nodes => nodes.map((node) => node.getBoundingClientRect().toJSON())"
    )
    assert len(boxes) == 6
    assert min(box["width"] for box in boxes) > 200
    for one, other in itertools.combinations(boxes, 2):
        beside = one["right"] <= other["left"] or other["right"] <= one["left"]
        assert beside or one["bottom"] <= other["top"] or other["bottom"] <= one["top"]


async def test_the_run_can_be_stopped_with_the_keyboard_alone(page: Page, address: str, recorded: Recorded) -> None:
    await begin(recorded)
    await open_run(page, address)
    await expect(page.get_by_role("button", name="Stop")).to_be_visible()
    for _ in range(2):
        await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Stop")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Stopping…")).to_be_focused()


async def test_a_question_is_answered_with_one_press_on_what_was_seen(
    page: Page, address: str, recorded: Recorded
) -> None:
    await begin(recorded)
    question = {"question": "Clause 5 is risky. Go on?", "choices": ["go_on", "stop"], "to": "reviewer"}
    asked = await recorded.add("escalation", **question)
    await open_run(page, address)
    await expect(page.get_by_role("heading", name="Waiting for Reviewer")).to_be_visible()
    await expect(page.get_by_text("Clause 5 is risky. Go on?", exact=True)).to_be_visible()
    await page.get_by_label("Note").fill("Looks right.")
    recorded.decide_status = 409
    await page.get_by_role("button", name="Go on").dblclick()
    await expect(page.get_by_text("answered otherwise before")).to_be_visible()
    told = [body for method, path, body in recorded.asked if path.endswith("/decisions")]
    seen = {"seq": asked, "chain": "ab" * 32}
    assert told == [{"escalation": asked, "choice": "go_on", "seen": seen, "note": "Looks right."}]
    await recorded.add("decision", escalation=asked, because="answered", choice="stop")
    await expect(page.get_by_role("heading", name="Waiting for Reviewer")).to_be_hidden()
