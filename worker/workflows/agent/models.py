"""What goes into the agent, what it notes on the way, and what comes out."""

from pydantic import BaseModel, ConfigDict, Field

SHAPE = ConfigDict(frozen=True, extra="forbid")


class Document(BaseModel):
    """One text that may be read."""

    model_config = SHAPE
    name: str = Field(min_length=1, max_length=100, pattern=r"^[\w.\-]+$", description="How it is cited")
    text: str = Field(min_length=1, max_length=50_000)


class Task(BaseModel):
    """What is to be found out."""

    model_config = SHAPE
    title: str = Field(min_length=1, max_length=200, description="How people call this task")
    topics: list[str] = Field(min_length=1, max_length=12, description="What is asked about, a few words each")
    documents: list[Document] = Field(min_length=1, max_length=50)
    iterations_max: int = Field(default=8, ge=1, le=20, description="Steps after which it answers with what it has")


class Note(BaseModel):
    """What one step has come to. Without a document nothing was found."""

    model_config = SHAPE
    topic: str = Field(min_length=1, max_length=200)
    document: str | None = None
    quote: str = Field(default="", max_length=2_000)
    why: str = Field(min_length=1, max_length=1_000)
    done: bool


class Answer(BaseModel):
    """The validated answer."""

    model_config = SHAPE
    title: str
    notes: list[Note]
    iterations: int
    open: list[str]
    text: str
