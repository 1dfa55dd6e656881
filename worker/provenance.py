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


def usage_of(end: ModelEnd, heard: int, asked: int) -> events.Usage:
    """What an answer of so many characters, to a prompt of so many, has cost that ended well."""
    return _told(end.usage) if end.usage is not None else estimated(heard, asked)


def dead_usage(fault: ModelFault, heard: int, asked: int) -> events.Usage | None:
    """What a failed attempt has cost, nothing if it never began to answer."""
    if fault.usage is not None:
        return _told(fault.usage)
    return estimated(heard, asked) if heard else None


def estimated(heard: int, asked: int) -> events.Usage:
    """Our own guess, by the characters that the model has said, and by those that it was asked."""
    return events.Usage(
        input_tokens=asked // CHARS_PER_TOKEN, output_tokens=max(1, heard // CHARS_PER_TOKEN), source="estimated"
    )


def prompt_chars(request: ModelRequest) -> int:
    """How much a model is asked to read, as far as it is text."""
    return sum(len(said) for message in request.messages if isinstance(said := message.get("content"), str))


def _told(usage: Usage) -> events.Usage:
    return events.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cached_tokens=usage.cached_tokens or None,
        source="provider",
    )
