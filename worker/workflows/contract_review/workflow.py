"""The first-pass review of a contract, as its seven milestones tell it."""

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from eventstore.domain.events import RunLimits
from worker.declare import Check, RunView, workflow
from worker.run import Run
from worker.workflows.contract_review import prompts
from worker.workflows.contract_review.clauses import Clause, Outline, extract, parse
from worker.workflows.contract_review.policy import search_policy

Risk = Literal["low", "medium", "high"]
SECTION = "comments"


class Contract(BaseModel):
    """What is to be reviewed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str = Field(min_length=1, max_length=200, description="How people call this contract")
    text: str = Field(min_length=1, max_length=200_000, description="The contract, with numbered clauses")


class Finding(BaseModel):
    """What the review says of one clause."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    clause: str
    risk: Risk
    quote: str = Field(min_length=1, max_length=2_000)
    why: str = Field(min_length=1, max_length=1_000)


class Review(BaseModel):
    """The validated review."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    title: str
    clauses: int
    high: list[str]
    medium: list[str]
    findings: list[Finding]
    comments: str


def best_partial(view: RunView) -> dict[str, object] | None:
    """What a stopped review can hand over: the findings made and the comments drafted so far."""
    if not view.findings and not view.text(SECTION):
        return None
    return {"findings": [dict(found) for found in view.findings], "comments": view.text(SECTION)}


@workflow(
    "contract_review",
    version=1,
    title="Contract review",
    summary="Reads a contract clause by clause, holds each against policy, drafts comments, and validates the review.",
    input=Contract,
    output=Review,
    milestones=(
        "Uploaded",
        "Parsing",
        "Extracting clauses",
        "Checking policy",
        "Drafting comments",
        "Validating",
        "Ready for review",
    ),
    partial=best_partial,
    limits=RunLimits(run_s=180.0, attempts_max=3),
    title_field="title",
    parallel=4,
)
async def contract_review(run: Run, contract: Contract) -> Review:
    """From the upload to a review that a person can act on."""
    await run.milestone("Uploaded", detail=f"{len(contract.text):,} characters")
    await run.milestone("Parsing")
    outline: Outline = await run.step("parse", parse, contract.text, returns=Outline)

    await run.milestone("Extracting clauses", detail=f"{outline.words:,} words")
    clauses: list[Clause] = await run.step("extract", extract, contract.text, returns=list[Clause])

    await run.milestone("Checking policy", done=0, of=len(clauses))
    rules = await run.tool(search_policy, topics=[clause.heading for clause in clauses]) or []

    async def assess(run: Run, clause: Clause) -> Finding:
        messages = prompts.assess(clause, clause.text(contract.text), rules)
        found = await run.value("assess", messages, Finding)
        await run.finding(found, item=clause.id)
        return found

    findings = await run.each(clauses, assess, key=lambda clause: clause.id, milestone="Checking policy")

    await run.milestone("Drafting comments")
    told = [found.model_dump() for found in findings]
    said = await run.model("comment", prompts.comment(contract.title, told), section=SECTION)

    await run.milestone("Validating")
    review = Review(
        title=contract.title,
        clauses=len(clauses),
        high=[found.clause for found in findings if found.risk == "high"],
        medium=[found.clause for found in findings if found.risk == "medium"],
        findings=findings,
        comments=said.text,
    )
    await run.validate(review, checks(contract, clauses))
    await run.milestone("Ready for review")
    return review


def checks(contract: Contract, clauses: list[Clause]) -> list[Check]:
    """What must be true of a review before anybody may act on it."""
    texts = {clause.id: clause.text(contract.text) for clause in clauses}

    def named(review: Review, clause: str) -> bool:
        return re.search(rf"(?<![\d.]){re.escape(clause)}(?![\d]|\.\d)", review.comments) is not None

    return [
        Check("every clause was read once", lambda r: [f.clause for f in r.findings] == [c.id for c in clauses]),
        Check(
            "every quote stands in its clause", lambda r: all(f.quote in texts.get(f.clause, "") for f in r.findings)
        ),
        Check("the comments name every high risk", lambda r: all(named(r, clause) for clause in r.high)),
        Check("the comments are not empty", lambda r: bool(r.comments.strip())),
    ]
