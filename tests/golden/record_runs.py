"""`python -m tests.golden.record_runs` records the golden runs of the workflows that come along; never over one."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from ops.exits import Complaint
from runwire_testing.author import Author, AuthorRun
from runwire_testing.place import authoring
from runwire_testing.servers import servers_of_our_own
from worker.workflows.clinical_note.models import Ruling

RUNS: Final = Path(__file__).parent / "runs"

SHORT: Final = {"title": "Two clauses", "text": "1. Liability\nWe bear unlimited liability.\n\n2. Law\nOurs.\n"}
BADGES: Final = {
    "title": "Visitors",
    "audience": "all staff",
    "contact": "the desk",
    "requirements": [{"id": "R1", "topic": "Badges", "text": "Visitors wear a badge"}],
}
ORDER: Final = {"pieces": 6, "rate_per_s": 0, "steps": 2, "questions": 1, "sleep_s": 60.0}

Tell = Callable[[Author], Awaitable[AuthorRun]]


async def asked_and_answered(author: Author) -> AuthorRun:
    run = await author.start("contract_review", {**SHORT, "ask_about_high_risk": True})
    await run.answer("high-risk", "comment")
    return run


async def cut_and_read_again(author: Author) -> AuthorRun:
    author.model.cut("^File: shop/prices.py", after_pieces=30)
    return await author.start("code_review", sample="prices")


async def stopped_while_drafting(author: Author) -> AuthorRun:
    author.model.hang("Task: draft comments", after_pieces=40)
    run = await author.start("contract_review", SHORT)
    await run.until("token", section="comments")
    await run.cancel("seen enough")
    return run


async def confirmed_by_a_clinician(author: Author) -> AuthorRun:
    run = await author.start("clinical_note", sample="cough")
    await run.answer("high-risk", Ruling(keep=["History 2"]))
    return run


async def not_answered_in_time(author: Author) -> AuthorRun:
    run = await author.start("clinical_note", sample="cough")
    await run.until("escalation")
    await author.clock.forward(hours=5)
    return run


async def not_fit_to_be_final(author: Author) -> AuthorRun:
    author.model.say("^Section: Badges$", "Badges are worn, and the list of them is here: TODO.")
    return await author.start("policy_document", BADGES)


async def asleep_and_asked(author: Author) -> AuthorRun:
    run = await author.start("drill", ORDER)
    await run.until("step", status="intent")
    await author.clock.forward(seconds=60)
    await run.answer("question-0", "yes")
    return run


TOLD: Final[dict[str, Tell]] = {
    "completed": lambda author: author.start("contract_review", SHORT),
    "asked_and_answered": asked_and_answered,
    "stopped_while_drafting": stopped_while_drafting,
    "two_remarks": lambda author: author.start("code_review", sample="prices"),
    "cut_and_read_again": cut_and_read_again,
    "confirmed_by_a_clinician": confirmed_by_a_clinician,
    "not_answered_in_time": not_answered_in_time,
    "late_orders": lambda author: author.start("agent", sample="late_orders"),
    "three_companies": lambda author: author.start("market_analysis", sample="three_companies"),
    "one_requirement": lambda author: author.start("policy_document", BADGES),
    "not_fit_to_be_final": not_fit_to_be_final,
    "asleep_and_asked": asleep_and_asked,
}


async def record() -> None:
    """All that are not there yet."""
    with servers_of_our_own() as servers:
        for name, tell in TOLD.items():
            async with authoring(servers, []) as author:
                try:
                    run = await tell(author)
                    await run.end()
                    print(await run.export_golden(RUNS, name))
                except Complaint as known:
                    print(known)
                await author.close()


if __name__ == "__main__":
    asyncio.run(record())
