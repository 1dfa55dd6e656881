"""Reads a contract into numbered clauses. Pure: the same text gives the same clauses."""

import re
from typing import Final

from pydantic import BaseModel, ConfigDict

from worker.stops import WorkflowFailed

HEADING: Final = re.compile(r"^[ \t]*(\d{1,3}(?:\.\d{1,3})?)[.)]?[ \t]+(\S[^\n]{0,119})$", re.MULTILINE)
CLAUSES_MAX: Final = 60


class Clause(BaseModel):
    """One clause: where it stands in the contract. Its text is cut from the input, so it is stored once."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    id: str
    heading: str
    start: int
    end: int

    def text(self, contract: str) -> str:
        """The clause's own words."""
        return contract[self.start : self.end].strip()


class Outline(BaseModel):
    """What parsing found: how long the contract is, and where its clauses begin."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    characters: int
    words: int
    headings: int


def parse(contract: str) -> Outline:
    """Look at the whole text once; a text without numbered clauses cannot be reviewed clause by clause."""
    headings = len(HEADING.findall(contract))
    if headings == 0:
        raise WorkflowFailed(
            "no_clauses", "No numbered clauses were found. A clause begins with a number and a heading on its own line."
        )
    if headings > CLAUSES_MAX:
        raise WorkflowFailed("too_many_clauses", f"The contract has more than {CLAUSES_MAX} clauses.")
    return Outline(characters=len(contract), words=len(contract.split()), headings=headings)


def extract(contract: str) -> list[Clause]:
    """Cut the contract at its numbered headings."""
    found = list(HEADING.finditer(contract))
    ends = [match.start() for match in found[1:]] + [len(contract)]
    clauses = [
        Clause(id=match.group(1), heading=match.group(2).strip(), start=match.end(), end=end)
        for match, end in zip(found, ends, strict=True)
    ]
    if len({clause.id for clause in clauses}) != len(clauses):
        raise WorkflowFailed("duplicate_clauses", "Two clauses have the same number.")
    return clauses
