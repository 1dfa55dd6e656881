"""The model over the Responses API."""

from collections.abc import Callable
from typing import Any

import openai

from worker.llm.model import ModelRequest
from worker.llm.reading import Decoder
from worker.llm.response_events import ResponsesDecoder
from worker.llm.response_requests import body_parameters, flat_tools, input_items
from worker.llm.streaming import StreamedModel


class ResponsesModel(StreamedModel):
    """Every request brings the whole conversation: the log is the memory, so the provider is asked to keep nothing."""

    def __init__(self, client: openai.AsyncOpenAI, **settings: Any) -> None:
        super().__init__(client, **settings)
        # The SDK imports this part of itself when it is first touched: pay at the start, not in the first run.
        self._create: Callable[..., Any] = client.responses.with_streaming_response.create

    def _send(self, request: ModelRequest) -> Any:
        return self._create(
            model=request.model,
            input=input_items(request.messages),
            stream=True,
            store=False,
            tools=flat_tools(request.tools) if request.tools else openai.omit,
            extra_body=body_parameters(request.parameters),
        )

    def _decoder(self) -> Decoder:
        return ResponsesDecoder()
