"""A run's model, held to what the run may wait for and spend: no call begins past it, and none goes on far past it.

All that a run has spent stands in its log, dead attempts included, so a run that changes owners has one budget.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from eventstore.domain.events import Usage
from worker.limits import Limits
from worker.llm.model import Model, ModelEnd, ModelFault, ModelRequest, Piece, ReasoningPiece, TextPiece
from worker.llm.prices import Prices
from worker.provenance import estimated, prompt_chars
from worker.stops import Exhausted

LOOK_CHARS: Final = 400  # how much a model may say before what it has spent is looked at again


class Bounded:
    """A model that keeps to a run's limits."""

    def __init__(
        self,
        model: Model,
        limits: Limits,
        prices: Prices,
        spent: Callable[[], Usage],
        exhausted: Callable[[str], Exhausted],
    ) -> None:
        self._model = model
        self._prices = prices
        self._limits = limits
        self._spent = spent
        self._exhausted = exhausted

    def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """The model's pieces."""
        limits = self._limits
        bounded = replace(request, first_byte_s=limits.first_byte_s, between_pieces_s=limits.between_pieces_s)
        if limits.tokens_max is None and limits.cost_micro_usd is None:
            return self._model.stream(bounded)
        return self._counted(bounded)

    async def _counted(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        if self._limits.cost_micro_usd is not None and self._prices.of(request.model) is None:
            raise ModelFault("price_unknown", "The model has no price, so no bound of cost can hold.", retryable=False)
        self._look(request, 0)
        heard, looked = 0, 0
        async with aclosing(self._model.stream(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, TextPiece | ReasoningPiece):
                    heard += len(piece.text)
                    if heard - looked >= LOOK_CHARS:
                        looked = heard
                        self._look(request, heard)
                yield piece

    def _look(self, request: ModelRequest, heard: int) -> None:
        """Raises Exhausted when what was spent, with what is being said just now, is what may be spent."""
        limits, spent = self._limits, self._spent()
        if heard:
            spent = spent + self._prices.priced(estimated(heard, prompt_chars(request)), request.model)
        if limits.tokens_max is not None and spent.input_tokens + spent.output_tokens >= limits.tokens_max:
            raise self._exhausted("tokens_max")
        if limits.cost_micro_usd is not None and (spent.cost_micro_usd or 0) >= limits.cost_micro_usd:
            raise self._exhausted("cost_micro_usd")

    async def aclose(self) -> None:
        """The model is not ours."""
