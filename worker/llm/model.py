"""The worker's own words for a model call: what is asked, what comes back piece by piece, how it ends, how it fails.

Nothing here knows the SDK or HTTP, so a workflow reads the same pieces whoever serves the model.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

FaultCode = Literal[
    "connection",  # could not connect, or the connection broke
    "timeout",  # the transport's own: it could not send, or its time-out stood behind ours
    "limit_first_byte_s",  # no first byte in the time allowed
    "limit_between_pieces_s",  # no further piece in the time allowed
    "provider_busy",  # 408, 409, 429, 5xx: another try may help
    "provider_refused",  # another try will be refused as well: key, quota, model name, request
    "content_filter",  # refused for what it says
    "stream_incomplete",  # the answer ended without saying why
    "unknown_finish",  # the answer ended for a reason that is not known here
    "malformed",  # not what a model server may send
    "model_length",  # a typed answer reached its length limit before it was whole
    "price_unknown",  # the run has a bound of cost, and nobody knows what this model costs
]

# Set by the call itself; a request that brings its own would change what the decoder relies on.
# `store` and the names after it would keep the conversation at the provider: the log is the memory.
_RESERVED_PARAMETERS = frozenset(
    {"model", "messages", "input", "tools", "stream", "stream_options", "n", "background"}
    | {"store", "previous_response_id", "conversation"}
)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question to a model, in the words of chat completions whichever API carries it.

    `parameters` are sent as they are (temperature, response_format and so on), or under the other API's names.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()
    # Bounds of the run. The process has its own, and the nearer counts.
    first_byte_s: float | None = None
    between_pieces_s: float | None = None

    def __post_init__(self) -> None:
        reserved = _RESERVED_PARAMETERS.intersection(self.parameters)
        if reserved:
            raise ValueError(f"parameters may not contain {', '.join(sorted(reserved))}")


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of the answer's text, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """A piece of the model's thinking, never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A whole tool call; `arguments` is the model's JSON as it wrote it, not checked."""

    index: int
    id: str
    name: str
    arguments: str


Piece = TextPiece | ReasoningPiece | ToolCallPiece


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; `cached` is part of input, `reasoning` is part of output."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ModelEnd:
    """The last thing of a stream that ended well.

    `finish` is `stop`, `length`, `content_filter`, `tool_calls` or `refused`, and no other word: an answer that ends
    for a reason that is not known here is a fault. `finish_raw` is what the provider wrote. Tool calls are given only
    with `tool_calls`: a call that was cut short by any other end never becomes a piece.
    """

    finish: str
    finish_raw: str
    usage: Usage | None
    model_served: str | None
    request_id: str | None
    system_fingerprint: str | None
    first_piece_ms: float | None
    total_ms: float
    pieces: int
    refusal: str | None = None
    host: str | None = None


class ModelFault(Exception):
    """A model call failed. Its words are ours: what a provider writes may hold anything and is never shown."""

    def __init__(
        self,
        code: FaultCode,
        message_safe: str,
        *,
        retryable: bool,
        retry_after_s: float | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retries_max: int | None = None,
    ) -> None:
        super().__init__(f"{code}: {message_safe}")
        self.code: FaultCode = code
        self.message_safe = message_safe
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.status = status
        self.request_id = request_id
        self.retries_max = retries_max  # how often this code may be tried again, where that is less than in general
        self.usage: Usage | None = None  # what the provider said that the failed answer had cost


class Model(Protocol):
    """Something that answers. Closing the stream, or cancelling the task that reads it, ends the connection at once."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """Give the pieces, then one ModelEnd; or raise ModelFault. Read it under `contextlib.aclosing`."""
        ...

    async def aclose(self) -> None:
        """Close every connection; the model cannot be used afterwards."""
        ...
