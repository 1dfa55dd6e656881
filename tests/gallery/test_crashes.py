"""Every workflow that comes along ends the same wherever its worker dies, its model is cut off, or somebody stops it.

A workflow that is added to the registry is tried here by itself, with its first sample.
"""

from typing import Any, Final

import pytest

from runwire_testing.author import Author, AuthorRun
from worker.registry import WORKFLOWS
from worker.workflows.clinical_note.models import Ruling

pytest_plugins = ("runwire_testing.plugin",)

# Where the first sample is too long to be run at every place, or there is none.
SMALL: Final[dict[str, dict[str, Any]]] = {
    "agent": {
        "title": "One thing",
        "topics": ["the cap"],
        "documents": [{"name": "terms.txt", "text": "1. Fees are due monthly.\n2. The cap is two million."}],
    },
    "code_review": {
        "title": "Prices",
        "diff": "--- a/prices.py\n+++ b/prices.py\n@@ -1 +1 @@\n-float(text)\n+eval(text)\n"
        "--- a/names.py\n+++ b/names.py\n@@ -1 +1 @@\n-text\n+text.strip()\n",
    },
    "contract_review": {"title": "Two", "text": "1. Liability\nWe bear unlimited liability.\n\n2. Law\nOurs.\n"},
    "drill": {
        "pieces": 6,
        "rate_per_s": 0,
        "steps": 2,
        "tool_calls": 1,
        "findings": 1,
        "questions": 1,
        "sleep_s": 60.0,
    },
    "market_analysis": {"question": "How does Quay Logistics do?", "companies": ["Quay Logistics"]},
    "policy_document": {
        "title": "Visitors",
        "audience": "all staff",
        "contact": "the desk",
        "requirements": [{"id": "R1", "topic": "Badges", "text": "Visitors wear a badge"}],
    },
}


async def started(author: Author, name: str) -> AuthorRun:
    """A run of this workflow that has been told whatever it asks."""
    run = await author.start(name, SMALL.get(name))
    if name == "clinical_note":
        asked = (await run.until("escalation")).data["question"].splitlines()[1:]
        await run.answer("high-risk", Ruling(keep=[line.partition(":")[0] for line in asked]))
    if name == "drill":
        await run.until("step", status="intent")
        await author.clock.forward(seconds=60)
        await run.answer("question-0", "yes")
    assert (await run.end()).status == "completed"
    return run


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
async def test_a_worker_that_dies_after_any_append_leaves_the_same_end(author: Author, name: str) -> None:
    run = await started(author, name)
    assert await run.same_fold_when_killed_after_every_append() > 10


@pytest.mark.parametrize("name", sorted(WORKFLOWS.keys() - {"drill"}))  # which asks no model
async def test_a_model_that_is_cut_off_at_any_piece_leaves_no_dead_text(author: Author, name: str) -> None:
    run = await started(author, name)
    assert await run.same_fold_when_cut_at_every_piece() > 10


@pytest.mark.parametrize("name", sorted(WORKFLOWS))
async def test_a_run_that_is_stopped_after_any_append_ends_once_with_its_partial_result(
    author: Author, name: str
) -> None:
    run = await started(author, name)
    assert await run.cancelled_after_every_append() > 10
