"""An answer about companies, from what was asked to a text whose figures can be looked up.

Worth a look: what is retrieved are tools, so that people see the queries and the log keeps the answers; a tool that
fails gives None, and the analysis says what is missing instead of failing; two searches go on beside each other with
`run.gather`; and the last check reads every sentence against the sources that it names.
"""

from typing import Any, Final

from worker.author import Check, Run, RunLimits, RunView, WorkflowFailed, workflow
from worker.workflows.market_analysis import prompts
from worker.workflows.market_analysis.desk import search_reports, share_price
from worker.workflows.market_analysis.figures import ADVICE, borne, named, sentences
from worker.workflows.market_analysis.models import Analysis, Claim, Plan, Question, Said, Source

SECTION: Final = "analysis"
SOURCES_MAX: Final = 24


def best_partial(view: RunView) -> dict[str, Any] | None:
    """What the sources said so far; the draft text may stop in the middle."""
    return {"claims": [dict(each) for each in view.findings], "text": view.text(SECTION)} if view.findings else None


@workflow(
    "market_analysis",
    version=1,
    title="Market analysis",
    summary="Searches reports and prices, reads each source, and drafts an answer whose figures stand in its sources.",
    input=Question,
    output=Analysis,
    milestones=("Planning the search", "Searching", "Reading sources", "Drafting the analysis", "Checking figures"),
    partial=best_partial,
    limits=RunLimits(run_s=300.0, attempts_max=3),
    title_field="question",
    parallel=4,
)
async def market_analysis(run: Run, asked: Question) -> Analysis:
    """Search, read, draft, check."""
    await run.milestone("Planning the search")
    plan = await run.value("plan", prompts.plan(asked), Plan)

    async def reports(run: Run) -> list[Source]:
        found = [await run.tool(search_reports, query=query) for query in plan.queries]
        return [Source.model_validate(each) for some in found for each in some or []]

    async def prices(run: Run) -> list[Source]:
        found = [await run.tool(share_price, company=company) for company in asked.companies]
        return [Source.model_validate(each) for each in found if each is not None]

    await run.milestone("Searching", detail=f"{len(plan.queries)} queries")
    found = await run.gather({"reports": reports, "prices": prices})
    sources = each_once([*found["reports"], *found["prices"]])
    if not sources:
        raise WorkflowFailed("nothing_found", "Nothing was found to this question.")
    gaps = missing(asked, found["reports"], found["prices"])

    async def read(run: Run, source: Source) -> Claim:
        said = await run.value("read", prompts.read(asked, source), Said)
        claim = Claim(source=source.id, company=source.company, statement=said.statement)
        await run.finding(claim, item=source.id)
        return claim

    await run.milestone("Reading sources", done=0, of=len(sources))
    claims = await run.each(sources, read, key=lambda source: source.id, milestone="Reading sources")

    await run.milestone("Drafting the analysis")
    said = await run.model("draft", prompts.draft(asked, claims, gaps), section=SECTION, hold="sentence")

    await run.milestone("Checking figures")
    analysis = Analysis(question=asked.question, text=said.text, claims=claims, sources=sources, gaps=gaps)
    return await run.validate(analysis, checks(asked))


def each_once(sources: list[Source]) -> list[Source]:
    """Two queries may find the same."""
    return [*{source.id: source for source in sources}.values()][:SOURCES_MAX]


def missing(asked: Question, reports: list[Source], prices: list[Source]) -> list[str]:
    """What was looked for and not found, in words that can stand in the text."""
    no_reports = [company for company in asked.companies if company not in {each.company for each in reports}]
    no_price = [company for company in asked.companies if company not in {each.company for each in prices}]
    return [f"no report on {each}" for each in no_reports] + [f"no share price of {each}" for each in no_price]


def checks(asked: Question) -> list[Check]:
    """What must be true before anybody may rely on it."""

    def texts(analysis: Analysis) -> dict[str, str]:
        return {each.id: f"{each.title}. {each.text} {each.date}" for each in analysis.sources}

    return [
        Check(
            "every figure stands in a source that its sentence names",
            lambda a: all(borne(sentence, texts(a)) for sentence in sentences(a.text)),
        ),
        Check("every source that is named was retrieved", lambda a: {*named(a.text)} <= texts(a).keys()),
        Check("every company is spoken of", lambda a: all(company in a.text for company in asked.companies)),
        Check("what was not found is said", lambda a: all(gap in a.text for gap in a.gaps)),
        Check("it gives no advice", lambda a: ADVICE.search(a.text) is None),
    ]
