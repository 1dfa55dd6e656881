"""A model that keeps to its provider's limits: a call takes its share of them before it is made."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, Protocol

from worker.llm.model import Model, ModelEnd, ModelFault, ModelRequest, Piece
from worker.llm.rates import Rates, Share
from worker.llm.room import tokens_of

NOTICE_S: Final = 2.0  # a wait that is longer is told to whoever reads the run
BUSY_S: Final = 1.0  # how long nobody calls after a 429 that does not say


class Notice(Protocol):
    """Where a long wait is told."""

    def begins(self) -> None:
        """A call waits for the provider."""
        ...

    def ends(self) -> None:
        """It does not any more."""
        ...


class RatedModel:
    """One run's way to the model: its calls wait in turn with those of other tenants."""

    def __init__(self, model: Model, rates: Rates, tenant: str) -> None:
        self._model = model
        self._rates = rates
        self._tenant = tenant
        self.notice: Notice | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        """The pieces of one answer, then its end, once there is room for it. Raises ModelFault."""
        share = await self._share(request)
        try:
            async with aclosing(self._model.stream(request)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ModelEnd) and piece.usage is not None:
                        await share.settle(piece.usage.total_tokens)
                    yield piece
        except ModelFault as fault:
            if fault.code == "provider_busy" and (fault.status == 429 or fault.retry_after_s is not None):
                self._rates.hold(request.model, BUSY_S if fault.retry_after_s is None else fault.retry_after_s)
            if fault.usage is not None:
                await share.settle(fault.usage.total_tokens)
            raise

    async def aclose(self) -> None:
        """The model is everybody's: whoever opened it closes it."""

    async def _share(self, request: ModelRequest) -> Share:
        task, notice = asyncio.current_task(), self.notice
        before = task.cancelling() if task is not None else 0
        told = False

        def tell() -> None:
            nonlocal told
            if notice is not None:
                told = True
                notice.begins()

        timer = asyncio.get_running_loop().call_later(NOTICE_S, tell)
        try:
            share = await self._rates.take(request.model, self._tenant, tokens_of(request, self._rates.output_tokens))
        finally:
            timer.cancel()
            if told and notice is not None:
                notice.ends()
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError  # the Redis client on Python 3.11 may lose one that comes with the answer
        return share
