"""Which API a model is asked over: one provider, one client, a setting per model."""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from fnmatch import fnmatchcase

from worker.llm.chat import ChatModel
from worker.llm.model import Model, ModelEnd, ModelRequest, Piece
from worker.llm.responses import ResponsesModel
from worker.llm.settings import ModelSettings
from worker.llm.streaming import create_client


def create_model(
    settings: ModelSettings,
    *,
    heard: Callable[[str, Mapping[str, str]], None] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> "ProviderModel":
    """Open the model of a process. Whoever calls this closes it with `aclose`; `heard` gets the head of each answer."""
    client = create_client(settings)
    chat = ChatModel(
        client,
        first_byte_s=settings.first_byte_s,
        between_pieces_s=settings.between_pieces_s,
        accept_unfinished_calls=settings.accept_unfinished_calls,
        continuous_usage=settings.continuous_usage,
        heard=heard,
        clock=clock,
    )
    responses = ResponsesModel(
        client,
        first_byte_s=settings.first_byte_s,
        between_pieces_s=settings.between_pieces_s,
        accept_unfinished_calls=settings.accept_unfinished_calls,
        heard=heard,
        clock=clock,
    )
    return ProviderModel(chat, responses, settings.responses_models)


class ProviderModel:
    """Asks each model over its API; the pieces and the ends are the same."""

    def __init__(self, chat: Model, responses: Model, responses_models: tuple[str, ...]) -> None:
        self._chat = chat
        self._responses = responses
        self._responses_models = responses_models

    def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """The pieces of one answer, then its end. Raises ModelFault."""
        return self._of(request.model).stream(request)

    async def aclose(self) -> None:
        """Close every connection; both APIs share them."""
        await self._chat.aclose()

    def _of(self, model: str) -> Model:
        over_responses = any(fnmatchcase(model, pattern) for pattern in self._responses_models)
        return self._responses if over_responses else self._chat
