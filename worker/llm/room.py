"""How much room a call takes in a provider's limits, and what the provider says is left."""

import re
from collections.abc import Mapping
from typing import Final

import orjson

from worker.llm.model import ModelRequest

BYTES_PER_TOKEN: Final = 4  # of a prompt in JSON, roughly
MAXIMA: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_DURATION: Final = re.compile(
    r"(?:(\d{1,4})h)?(?:(\d{1,5})m(?!s))?(?:(\d{1,6}(?:\.\d{0,9})?)s)?(?:(\d{1,9}(?:\.\d{0,9})?)ms)?", re.ASCII
)


def tokens_of(request: ModelRequest, output_tokens: int) -> int:
    """What a call may come to: its prompt by estimate, and the longest answer that it allows."""
    prompt = len(orjson.dumps([request.messages, request.tools], default=dict)) // BYTES_PER_TOKEN
    maxima = (request.parameters.get(name) for name in MAXIMA)
    longest = next((most for most in maxima if isinstance(most, int) and not isinstance(most, bool)), output_tokens)
    return prompt + max(1, longest)


def hold_in(headers: Mapping[str, str]) -> float | None:
    """How long the provider has no room, by the headers of an answer; None while it has some."""
    waits = [
        _seconds(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max(waits, default=0.0) or None


def _seconds(text: str) -> float:
    """`1s`, `6m0s`, `120ms` or a plain number of seconds; what cannot be read is none."""
    text = text.strip()
    if re.fullmatch(r"\d{1,6}(\.\d{0,9})?", text, re.ASCII):
        return float(text)
    found = _DURATION.fullmatch(text)
    if found is None:
        return 0.0
    hours, minutes, seconds, millis = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds + millis / 1000
