"""Reading a provider's JSON: what does not have the agreed shape is malformed, never guessed at."""

from collections.abc import Mapping
from typing import Any

from worker.llm.model import ModelFault

WORD_MAX = 64
_COUNT_MAX = 1 << 53


def malformed(what: str) -> ModelFault:
    """The fault of a server that sent this."""
    return ModelFault("malformed", f"The model server sent {what}.", retryable=True)


def text_of(holder: Mapping[str, Any], name: str) -> str:
    """A text that may be missing."""
    value = holder.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise malformed(f"a chunk whose {name} is no text")
    return value


def index_of(holder: Mapping[str, Any], name: str, what: str) -> int:
    """A place in a list."""
    value = holder.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise malformed(f"{what} without a usable index")
    return value


def word_of(value: object) -> str | None:
    """A name that the provider gave, cut to a length that an event may carry."""
    return value[:WORD_MAX] if isinstance(value, str) and value else None


def count_of(holder: object, name: str) -> int | None:
    """A number of tokens. Counts are worth having but no reason to fail an answer: what cannot be read is left out."""
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _COUNT_MAX else None
