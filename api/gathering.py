"""Questions of many requests at the same moment, put to the log as one, over a connection of their own.

A small statement costs this process about as much as a whole answer does. So while one question is under way the next
ones gather, and go together: under load a question's cost is shared by all who asked, and without load nobody waits.
Whoever asks is answered by a question that began after they asked, so the answer is as true as one of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, Generic, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from eventstore.domain.errors import LogUnavailable

K = TypeVar("K")
V = TypeVar("V")

TOGETHER_MAX: Final = 500
ANSWER_S: Final = 6.0  # a statement may take 5


class Held:
    """One connection that is kept open, for statements that are always the same. A broken one is replaced."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._connection: AsyncConnection | None = None

    async def ask(self, question: Callable[[AsyncConnection], Awaitable[V]]) -> V:
        """Ask it; if the connection, open since before, turns out to be dead, once more on a new one."""
        fresh = self._connection is None
        try:
            return await self._asked(question)
        except BaseException as fault:
            await self.close()
            if fresh or not isinstance(fault, SQLAlchemyError):
                raise
        try:
            return await self._asked(question)
        except BaseException:
            await self.close()
            raise

    async def _asked(self, question: Callable[[AsyncConnection], Awaitable[V]]) -> V:
        if self._connection is None:
            connection = await self._engine.connect()
            self._connection = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await self._connection.exec_driver_sql("SET plan_cache_mode = force_generic_plan")
        return await question(self._connection)

    async def close(self) -> None:
        """Let go of it. It is not given back: nobody else should get one whose plans are generic, or that is dead."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(SQLAlchemyError, OSError):
                await connection.invalidate()
                await connection.close()


class Gathered(Generic[K, V]):
    """One kind of question. What is asked twice in the same moment is asked once."""

    def __init__(
        self, ask: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]], together_max: int = TOGETHER_MAX
    ) -> None:
        self._ask = ask
        self._together_max = together_max
        self._waiting: dict[K, list[asyncio.Future[V | None]]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def of(self, key: K) -> V | None:
        """The answer; None when there is none for this key. LogUnavailable when the log takes too long."""
        # A future of its own for each who asks: one who leaves must take nothing from the others.
        answer: asyncio.Future[V | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if self._asking is None:
            self._asking = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                keys = list(self._waiting)[: self._together_max]
                asked = {key: self._waiting.pop(key) for key in keys}
                try:
                    async with asyncio.timeout(ANSWER_S):
                        found = await self._ask(keys)
                except TimeoutError:
                    _fail(asked, LogUnavailable())
                except Exception as fault:  # noqa: BLE001 - it is raised where it was asked, and nobody waits for ever
                    _fail(asked, fault)
                except asyncio.CancelledError:
                    _fail(asked, LogUnavailable())
                    raise
                else:
                    for key, answers in asked.items():
                        for answer in answers:
                            if not answer.done():
                                answer.set_result(found.get(key))
        finally:
            self._asking = None
            _fail(self._waiting, LogUnavailable())  # none, unless this task is ended from outside
            self._waiting = {}

    async def close(self) -> None:
        """End the question that is under way, if there is one."""
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking


def _fail(asked: Mapping[K, Sequence["asyncio.Future[V | None]"]], fault: Exception) -> None:
    for answers in asked.values():
        for answer in answers:
            if not answer.done():
                answer.set_exception(fault)
