"""The playbook that clauses are held against, and the tool that searches it."""

from typing import Final, TypedDict

from worker.declare import tool


class PolicyRule(TypedDict):
    """One rule of the playbook."""

    id: str
    topic: str
    words: list[str]
    rule: str


PLAYBOOK: Final[list[PolicyRule]] = [
    {
        "id": "LIA-1",
        "topic": "Liability",
        "words": ["liability", "damages"],
        "rule": "Liability must be capped, at most at the fees of twelve months; it is never unlimited.",
    },
    {
        "id": "TER-2",
        "topic": "Term and renewal",
        "words": ["renew", "term", "terminate"],
        "rule": "A contract does not renew by itself for more than twelve months; notice is at most sixty days.",
    },
    {
        "id": "SEC-3",
        "topic": "Incident notification",
        "words": ["incident", "breach", "security"],
        "rule": "A security incident is notified within 72 hours of becoming aware of it.",
    },
    {
        "id": "CON-4",
        "topic": "Confidentiality",
        "words": ["confidential"],
        "rule": "Confidentiality binds both parties and outlives the contract by at least two years.",
    },
    {
        "id": "LAW-5",
        "topic": "Governing law",
        "words": ["governing", "jurisdiction", "courts"],
        "rule": "The governing law is that of the customer's country.",
    },
    {
        "id": "SUB-6",
        "topic": "Subcontracting",
        "words": ["subcontract", "assign"],
        "rule": "The supplier does not subcontract or assign without written consent.",
    },
    {
        "id": "PAY-7",
        "topic": "Payment",
        "words": ["payment", "fees", "invoice"],
        "rule": "Invoices are payable within thirty days or later; price changes need ninety days' notice.",
    },
]


@tool(timeout_s=5.0, shown=("topics",))
async def search_policy(topics: list[str], limit: int = 10) -> list[PolicyRule]:
    """The rules that speak to these topics."""
    text = " ".join(topics).lower()
    return [rule for rule in PLAYBOOK if any(word in text for word in rule["words"])][:limit]
