"""A policy, from the brief to a document that can be approved.

Worth a look: `hold="section"` lets a paragraph out when it is whole, so that nobody reads half a rule; what `redact`
matches is gone before anything is stored; and the checks judge the document, not the model's good intentions.
"""

import re
from typing import Any, Final

from worker.author import Check, Redaction, Run, RunLimits, RunView, workflow
from worker.workflows.policy_document import prompts
from worker.workflows.policy_document.models import Brief, Outline, Planned, PolicyDocument, Section

WITHHELD: Final = "[contact withheld]"
REDACT: Final = (
    Redaction(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", WITHHELD),
    Redaction(r"(?<!\w)\+\d[\d ()/-]{6,}\d", WITHHELD),
)
CITED: Final = re.compile(r"\((R\d{1,3})\)")
CONTACT: Final = re.compile(r"\w@\w|\+\d[\d ()/-]{6,}")
BLANK: Final = re.compile(r"\b(?:TODO|TBD)\b|\.{4,}|_{3,}|\[(?:insert|name|date)\b", re.IGNORECASE)
WORDS_MIN: Final = 8


def best_partial(view: RunView) -> dict[str, Any] | None:
    """The sections that are drafted; one that was being written when the run stopped is in the draft text."""
    return {"sections": [dict(each) for each in view.findings]} if view.findings else None


@workflow(
    "policy_document",
    version=1,
    title="Policy document",
    summary="Drafts a policy section by section from its requirements, without contact data, and checks the whole.",
    input=Brief,
    output=PolicyDocument,
    milestones=("Reading the brief", "Planning the sections", "Drafting sections", "Checking the whole", "Ready"),
    partial=best_partial,
    limits=RunLimits(run_s=300.0, attempts_max=3),
    title_field="title",
)
async def policy_document(run: Run, brief: Brief) -> PolicyDocument:
    """Outline, sections, checks."""
    await run.milestone("Reading the brief", detail=f"{len(brief.requirements)} requirements")
    await run.milestone("Planning the sections")
    outline = await run.value("outline", prompts.outline(brief), Outline)

    sections: list[Section] = []
    for number, planned in enumerate(outline.sections, start=1):
        await run.milestone("Drafting sections", detail=planned.heading, done=number - 1, of=len(outline.sections))
        sections.append(await draft(run, brief, outline, number, planned))

    await run.milestone("Checking the whole")
    document = PolicyDocument(title=brief.title, audience=brief.audience, sections=sections)
    await run.validate(document, checks(brief, outline))
    await run.milestone("Ready")
    return document


async def draft(run: Run, brief: Brief, outline: Outline, number: int, planned: Planned) -> Section:
    """One section: seen paragraph by paragraph while it is written, and as a finding once it is whole."""
    said = await run.model(
        "draft",
        prompts.section(brief, outline, planned),
        section=f"{number}. {planned.heading}",
        hold="section",
        redact=REDACT,
    )
    cites = list(dict.fromkeys(CITED.findall(said.text)))
    section = Section(number=number, heading=planned.heading, cites=cites, text=said.text)
    await run.finding(section, item=str(number))
    return section


def checks(brief: Brief, outline: Outline) -> list[Check]:
    """What must be true before anybody may approve it."""
    wanted = {each.id for each in brief.requirements}

    def cited(document: PolicyDocument) -> set[str]:
        return {name for section in document.sections for name in section.cites}

    def texts(document: PolicyDocument) -> list[str]:
        return [section.text for section in document.sections]

    headings = [planned.heading for planned in outline.sections]
    return [
        Check("every requirement is met by a section", lambda d: wanted <= cited(d)),
        Check("no requirement was invented", lambda d: cited(d) <= wanted),
        Check("no heading comes twice", lambda d: len({*headings}) == len(headings)),
        Check("every section says something", lambda d: all(len(text.split()) >= WORDS_MIN for text in texts(d))),
        Check("no contact data is printed", lambda d: not any(CONTACT.search(text) for text in texts(d))),
        Check("nothing is left to be filled in", lambda d: not any(BLANK.search(text) for text in texts(d))),
    ]
