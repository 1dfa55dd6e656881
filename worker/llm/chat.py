"""The model over chat completions."""

import time
from collections.abc import Callable
from typing import Any

import openai

from worker.llm.chunks import ChatDecoder
from worker.llm.model import ModelRequest
from worker.llm.reading import Decoder
from worker.llm.settings import ModelSettings
from worker.llm.streaming import StreamedModel, create_client


def create_chat_model(settings: ModelSettings, *, clock: Callable[[], float] = time.monotonic) -> "ChatModel":
    """A model with a client of its own, whatever API the settings name. Whoever calls this closes it with `aclose`."""
    return ChatModel(
        create_client(settings),
        first_byte_s=settings.first_byte_s,
        between_pieces_s=settings.between_pieces_s,
        accept_unfinished_calls=settings.accept_unfinished_calls,
        continuous_usage=settings.continuous_usage,
        clock=clock,
    )


class ChatModel(StreamedModel):
    """Chat completions: one choice, usage asked for."""

    def __init__(self, client: openai.AsyncOpenAI, *, continuous_usage: bool = False, **settings: Any) -> None:
        super().__init__(client, **settings)
        self._options: dict[str, Any] = {"include_usage": True}
        if continuous_usage:
            self._options["continuous_usage_stats"] = True
        # The SDK imports this part of itself when it is first touched: pay at the start, not in the first run.
        self._create: Callable[..., Any] = client.chat.completions.with_streaming_response.create

    def _send(self, request: ModelRequest) -> Any:
        return self._create(
            model=request.model,
            messages=list(request.messages),
            stream=True,
            stream_options=self._options,
            tools=list(request.tools) if request.tools else openai.omit,
            extra_body=dict(request.parameters),
        )

    def _decoder(self) -> Decoder:
        return ChatDecoder()
