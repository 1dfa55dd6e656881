"""What goes into a market analysis, what is retrieved and found on the way, and what comes out."""

from pydantic import BaseModel, ConfigDict, Field


class Closed(BaseModel):
    """Fields that nobody named are refused, so that a typing error does not pass unseen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(Closed):
    """What somebody wants to know."""

    question: str = Field(min_length=1, max_length=200)
    companies: list[str] = Field(min_length=1, max_length=8)


class Plan(Closed):
    """What is searched for."""

    queries: list[str] = Field(min_length=1, max_length=8)


class Source(Closed):
    """Something that was retrieved."""

    id: str
    company: str
    date: str
    title: str
    text: str


class Claim(Closed):
    """What one source says to the question: an interim finding."""

    source: str
    company: str
    statement: str = Field(min_length=1, max_length=600)


class Said(Closed):
    """What the model reads in a source."""

    statement: str = Field(min_length=1, max_length=600)


class Analysis(Closed):
    """The validated answer."""

    question: str
    text: str
    claims: list[Claim]
    sources: list[Source]
    gaps: list[str]
