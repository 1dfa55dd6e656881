"""The research desk: what can be searched, and the tools that search it. All of it is made up."""

from typing import Final

from worker.author import tool
from worker.workflows.market_analysis.models import Source

REPORTS: Final = (
    Source(
        id="S1",
        company="Northlight Hosting",
        date="2026-08-04",
        title="Northlight Hosting: half-year report",
        text="Revenue rose by 11.5 percent to 84 million euros. Two data centres opened.",
    ),
    Source(
        id="S2",
        company="Northlight Hosting",
        date="2026-09-21",
        title="Northlight Hosting raises its prices",
        text="List prices rise by 4 percent in January. Customers with a contract of 3 years are not affected.",
    ),
    Source(
        id="S3",
        company="Alder Analytics",
        date="2026-07-30",
        title="Alder Analytics: second quarter",
        text="Revenue fell by 2.3 percent to 19 million euros. It names the loss of one customer as the reason.",
    ),
    Source(
        id="S4",
        company="Quay Logistics",
        date="2026-10-02",
        title="Quay Logistics orders 40 electric lorries",
        text="The order is worth 12 million euros. Deliveries begin in 2027.",
    ),
)
PRICES: Final = {"Northlight Hosting": (41.2, 47.9), "Alder Analytics": (12.0, 10.8)}


@tool(timeout_s=5.0, shown=("query",))
async def search_reports(query: str, limit: int = 3) -> list[Source]:
    """The reports that share words with a query, those that share most of them first."""
    words = {word for word in query.casefold().split() if len(word) > 3}
    scores = {each.id: len(words & {*f"{each.company} {each.title}".casefold().split()}) for each in REPORTS}
    found = [each for each in REPORTS if scores[each.id] >= 2]
    return sorted(found, key=lambda each: -scores[each.id])[:limit]


@tool(timeout_s=5.0, shown=("company",))
async def share_price(company: str) -> Source:
    """What a share cost a year ago and costs now. A company that has none makes this fail, as an exchange would."""
    before, now = PRICES[company]
    return Source(
        id=f"P-{company.split(maxsplit=1)[0]}",
        company=company,
        date="2026-11-20",
        title=f"{company}: share price",
        text=f"The share cost {before} euros a year ago and costs {now} euros now.",
    )
