"""What goes into a code review, what is remarked on the way, and what comes out."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Severity = Literal["note", "warning", "blocking"]


class Closed(BaseModel):
    """Fields that nobody named are refused, so that a typing error does not pass unseen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PatchSet(Closed):
    """What is to be reviewed."""

    title: str = Field(min_length=1, max_length=200, description="What the change is for")
    diff: str = Field(min_length=1, max_length=200_000, description="A unified diff")


class Remark(Closed):
    """What is said of one line."""

    line: int = Field(ge=1)
    severity: Severity
    quote: str = Field(min_length=1, max_length=400)
    comment: str = Field(min_length=1, max_length=1_000)


class Remarks(Closed):
    """What is said of one file."""

    remarks: list[Remark] = Field(max_length=100)


class Found(Remark):
    """A remark, and the file that it is about."""

    path: str


class FileReview(Closed):
    """One file that was read."""

    path: str
    remarks: list[Remark]


class Review(Closed):
    """The validated review."""

    title: str
    verdict: Literal["approve", "comment", "request changes"]
    files: list[FileReview]
    unread: list[str]
    summary: str
