"""What the workflow's code asks a model: the question of one call, and what was said to it."""

from dataclasses import dataclass
from typing import Literal

from worker.declare import Tool
from worker.holding import Guard
from worker.llm.model import ModelRequest
from worker.speech import Shape
from worker.stops import Site

OnLength = Literal["offer", "continue", "keep"]
Resume = Literal["again", "continue"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a model said, and how it ended. With tools the text is that of the last turn, its answer."""

    text: str
    finish: str
    turns: int = 1
    key: str | None = None  # of the last turn


@dataclass(frozen=True, slots=True)
class Question:
    """One model call as the workflow's code asks for it."""

    name: str
    request: ModelRequest
    section: str
    shape: Shape
    site: Site
    guard: Guard | None = None
    tools: tuple[Tool, ...] = ()
    turn: int = 1  # with tools a call has turns; each is a call of its own, and `key` names the later ones
    key: str | None = None
    on_length: OnLength = "offer"
    resume: Resume = "again"

    def __post_init__(self) -> None:
        if self.on_length not in ("offer", "continue", "keep"):
            raise ValueError(f"{self.site}: on_length is offer, continue or keep, not {self.on_length!r}")
        if self.resume not in ("again", "continue"):
            raise ValueError(f"{self.site}: resume is again or continue, not {self.resume!r}")
