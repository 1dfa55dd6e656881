"""A typed answer that is read while it streams: list items one by one, fields as they close."""

from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from worker.reading import Pieces
from worker.typed import Known, TypedText

M = TypeVar("M", bound=BaseModel)


class TypedPieces(Generic[M]):
    """What a stream's text has closed so far. `value` is the whole, once it was read to its end.

    An answer that cannot become what was asked for breaks the stream where that is clear, like a fault of the provider:
    what was made of it is taken back, and the branch runs again.
    """

    def __init__(self, pieces: Pieces, output: type[M]) -> None:
        self.value: M | None = None
        self._pieces = pieces
        self._typed = TypedText(output)

    async def closed(self) -> list[Known] | None:
        """What the next piece closes, which may be nothing; None at the end."""
        try:
            text = await anext(self._pieces)
        except StopAsyncIteration:
            self.value = self._pieces.judged(self._typed.value)
            return None
        return self._pieces.judged(lambda: self._typed.feed(text))

    async def aclose(self) -> None:
        """Read no further."""
        await self._pieces.aclose()


class Items(TypedPieces[M]):
    """The items of one list, each as soon as it is closed."""

    def __init__(self, pieces: Pieces, output: type[M], field: str) -> None:
        super().__init__(pieces, output)
        self._field = field
        self._ready: deque[Any] = deque()

    def __aiter__(self) -> "Items[M]":
        return self

    async def __anext__(self) -> Any:
        while not self._ready:
            closed = await self.closed()
            if closed is None:
                raise StopAsyncIteration
            self._ready.extend(
                known.value for known in closed if known.field == self._field and known.index is not None
            )
        return self._ready.popleft()


class Partials(TypedPieces[M]):
    """The closed fields so far, each time that there is something more; of a list, its closed items."""

    def __init__(self, pieces: Pieces, output: type[M]) -> None:
        super().__init__(pieces, output)
        self._fields: dict[str, Any] = {}

    def __aiter__(self) -> "Partials[M]":
        return self

    async def __anext__(self) -> Mapping[str, Any]:
        while True:
            closed = await self.closed()
            if closed is None:
                raise StopAsyncIteration
            for known in closed:
                more = known.value if known.index is None else [*self._fields.get(known.field, ()), known.value]
                self._fields[known.field] = more
            if closed:
                return dict(self._fields)
