"""Going on with an answer that was cut off: a request for the rest of it, and the rest without what it says again."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from worker.llm.model import ModelRequest

# How a provider is told to go on: with a word in the message that it shall continue, with parameters of the request, or
# by asking like a person would, which every provider understands and any of them may answer with a repetition.
ContinueBy = Literal["ask", "prefix", "final"]

_PREFIX_HOSTS: Final[Mapping[str, str]] = {"api.deepseek.com": "/beta", "api.mistral.ai": ""}
GO_ON: Final = (
    "Your answer was cut off. Go on exactly where it ends, in the middle of a word if need be. "
    "Repeat nothing of it and say nothing about it."
)
OVERLAP_MAX: Final = 200
# Shorter ones are more often chance than repetition: half of all words begin like some other one ends.
OVERLAP_MIN: Final = 4


def continue_by(base_url: str) -> ContinueBy:
    """How the provider at this address is told to go on."""
    parts = urlsplit(base_url)
    path = _PREFIX_HOSTS.get(parts.hostname or "")
    return "prefix" if path is not None and parts.path.startswith(path) else "ask"


def continued(request: ModelRequest, said: str, by: ContinueBy) -> ModelRequest:
    """A request for what follows the text so far."""
    answer: dict[str, Any] = {"role": "assistant", "content": said}
    if by == "prefix":
        return replace(request, messages=(*request.messages, {**answer, "prefix": True}))
    if by == "final":
        parameters = {**request.parameters, "continue_final_message": True, "add_generation_prompt": False}
        return replace(request, messages=(*request.messages, answer), parameters=parameters)
    return replace(request, messages=(*request.messages, answer, {"role": "user", "content": GO_ON}))


def with_room(request: ModelRequest, spoken_tokens: int) -> ModelRequest:
    """The same request with twice the room for its answer: of what it asked for, or of what the answer took."""
    names = ("max_completion_tokens", "max_tokens")
    name = next((name for name in names if name in request.parameters), names[0])
    asked = request.parameters.get(name)
    room = 2 * max(asked if isinstance(asked, int) else 0, spoken_tokens)
    return replace(request, parameters={**request.parameters, name: room})


class Joint:
    """Where a continuation meets the text before it: what it says again of the end of that text is left out.

    So much is held as could be a repetition; whoever leaves it there has lost nothing that was told to anybody.
    """

    def __init__(self, before: str, by: ContinueBy) -> None:
        self._before = before[-OVERLAP_MAX:]
        self._held = ""
        self._open = by == "ask"

    def feed(self, text: str) -> str:
        """Take a piece; give what may go on."""
        if not self._open:
            return text
        self._held += text
        return self.close() if len(self._held) >= OVERLAP_MAX else ""

    def close(self) -> str:
        """What is held, without the repetition."""
        held, self._held, self._open = self._held, "", False
        for size in range(min(len(held), len(self._before)), OVERLAP_MIN - 1, -1):
            if self._before.endswith(held[:size]):
                return held[size:]
        return held
