"""Where an answer came from and what it cost, as the log keeps it: names and digests, never the provider's words."""

from typing import Any, Final

from eventstore.domain import events
from worker.digests import digest
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Usage

CHARS_PER_TOKEN: Final = 4  # roughly, where a provider does not count; such usage is marked as an estimate


def provenance(request: ModelRequest, end: ModelEnd, text: str) -> dict[str, Any]:
    """What a `model_call` says of its request and its answer besides how long it took.

    Each message has a digest of its own, so that two calls show which messages they share. `output_digest` is that of
    the text in the log: after redaction, if there is one.
    """
    return {
        "finish_raw": end.finish_raw,
        "system_fingerprint": end.system_fingerprint,
        "host": end.host,
        "message_digests": [digest(dict(message)) for message in request.messages],
        "tools_digest": digest([dict(tool) for tool in request.tools]) if request.tools else None,
        "output_digest": digest(text),
    }


def usage_of(end: ModelEnd, heard: int) -> events.Usage:
    """What an answer of so many characters that ended well has cost."""
    return _told(end.usage) if end.usage is not None else estimated(heard)


def dead_usage(fault: ModelFault, heard: int) -> events.Usage | None:
    """What a failed attempt has cost, nothing if it never began to answer."""
    if fault.usage is not None:
        return _told(fault.usage)
    return estimated(heard) if heard else None


def estimated(heard: int) -> events.Usage:
    """Our own guess, by the characters that the model has said."""
    return events.Usage(output_tokens=max(1, heard // CHARS_PER_TOKEN), source="estimated")


def _told(usage: Usage) -> events.Usage:
    return events.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cached_tokens=usage.cached_tokens or None,
        source="provider",
    )
