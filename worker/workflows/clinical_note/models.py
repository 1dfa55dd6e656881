"""What goes into a clinical note, what is stated on the way, what a clinician answers, and what comes out."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Part = Literal["Complaint", "History", "Assessment", "Plan"]
PARTS: Final[tuple[Part, ...]] = ("Complaint", "History", "Assessment", "Plan")


class Closed(BaseModel):
    """Fields that nobody named are refused, so that a typing error does not pass unseen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Turn(Closed):
    """What one of the two said."""

    speaker: Literal["clinician", "patient"]
    text: str = Field(min_length=1, max_length=4_000)


class Visit(Closed):
    """What was said, and what must not appear in the note."""

    reason: str = Field(min_length=1, max_length=200, description="Why the patient came; without a name")
    identifiers: list[str] = Field(min_length=1, max_length=20, description="Name, record number, date of birth, …")
    turns: list[Turn] = Field(min_length=1, max_length=200)


class Statement(Closed):
    """One sentence of the note, the turns that it names, and what is to be done about it."""

    id: str
    part: Part
    text: str
    turns: list[int]
    supported: bool
    high_risk: bool


class Ruling(Closed):
    """What a clinician says of the statements that may do harm: those named here stand, the others are left out."""

    keep: list[str] = Field(max_length=200)


class Note(Closed):
    """The validated note. Flagged is what the transcript does not say; it is no part of the note."""

    reason: str
    statements: list[Statement]
    flagged: list[Statement]
    left_out: list[Statement]
    confirmed_by: str | None
