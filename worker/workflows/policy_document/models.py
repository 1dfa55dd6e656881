"""What goes into a policy document, what is planned and drafted on the way, and what comes out."""

from pydantic import BaseModel, ConfigDict, Field


class Closed(BaseModel):
    """Fields that nobody named are refused, so that a typing error does not pass unseen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Requirement(Closed):
    """One thing that the policy must say."""

    id: str = Field(pattern=r"^R\d{1,3}$")
    topic: str = Field(min_length=1, max_length=80)
    text: str = Field(min_length=1, max_length=600)


class Brief(Closed):
    """What the policy is to be about."""

    title: str = Field(min_length=1, max_length=200, description="What people will call the policy")
    audience: str = Field(min_length=1, max_length=200, description="Whom it binds")
    contact: str = Field(min_length=1, max_length=200, description="Who answers questions; never printed")
    requirements: list[Requirement] = Field(min_length=1, max_length=40)


class Planned(Closed):
    """A section of the outline, and the requirements that it is to cover."""

    heading: str = Field(min_length=1, max_length=120)
    covers: list[str]


class Outline(Closed):
    """The sections, in order."""

    sections: list[Planned] = Field(min_length=1, max_length=20)


class Section(Closed):
    """One section as it was drafted, and the requirements that its text really cites."""

    number: int
    heading: str
    cites: list[str]
    text: str


class PolicyDocument(Closed):
    """The validated document."""

    title: str
    audience: str
    sections: list[Section]
