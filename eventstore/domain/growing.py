"""Lists and maps that grow at the cost of what is added; whoever holds a shorter one keeps what it was.

They are values: `plus` answers a longer one and changes nothing that anybody can see. All who have come the same way
share one buffer, and each knows how much of it is its own. The longest adds to the buffer's end, which costs nothing
more; who adds from further back, where somebody else has already gone on another way, takes a copy first. A map also
keeps what each addition replaced: a shorter one that is looked at later undoes the additions in a copy of its own.

So states that are folded one from the other, as a log grows, cost together what the last of them costs. Not for threads
that add to the same one.
"""

from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, ValuesView
from itertools import islice
from typing import Any, Final, Generic, TypeVar, overload

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")
M = TypeVar("M")


class _Absent:
    """What stood under a key before it was first set."""


ABSENT: Final = _Absent


class _Buffer(list[T]):
    """The items, and what was made of the first so many of them."""

    __slots__ = ("made",)

    def __init__(self, items: Iterable[T] = ()) -> None:
        super().__init__(items)
        self.made: dict[object, tuple[int, Any]] = {}


class GrowingList(Sequence[T], Generic[T]):
    """A list that only grows."""

    __slots__ = ("_buffer", "_length")

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._buffer = _Buffer(items)
        self._length = len(self._buffer)

    def plus(self, item: T) -> "GrowingList[T]":
        """This list and one more."""
        buffer, length = self._buffer, self._length
        if len(buffer) != length or not length:  # an empty one is a beginning that many may share
            buffer = _Buffer(buffer[:length])
        buffer.append(item)
        return _part(buffer, length + 1)

    def upto(self, length: int) -> "GrowingList[T]":
        """The first so many."""
        return _part(self._buffer, min(length, self._length))

    def made(self, go_on: Callable[[M, Iterable[T]], M], nothing: M) -> M:
        """What this function makes of all items, going on from what it made of fewer when it was last asked. It gets
        that, or nothing, and the items that came since. What it made is kept: ask with functions that stay."""
        length, before = self._buffer.made.get(go_on, (0, nothing))
        if length > self._length:
            length, before = 0, nothing
        made: M = go_on(before, islice(self._buffer, length, self._length)) if length < self._length else before
        self._buffer.made[go_on] = (self._length, made)
        return made

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return islice(self._buffer, self._length)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return [self._buffer[at] for at in range(*place.indices(self._length))]
        if not -self._length <= place < self._length:
            raise IndexError(place)
        return self._buffer[place if place >= 0 else place + self._length]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GrowingList) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self))


def _part(buffer: _Buffer[T], length: int) -> GrowingList[T]:
    part: GrowingList[T] = _new(GrowingList)
    part._buffer, part._length = buffer, length
    return part


_new = object.__new__


class GrowingMap(Mapping[K, V], Generic[K, V]):
    """A map whose keys are only set, in the order in which they came first."""

    __slots__ = ("_before", "_buffer", "_length")

    def __init__(self) -> None:
        self._buffer: dict[K, V] = {}
        self._before: list[tuple[K, Any]] = []  # what each addition to the buffer replaced
        self._length = 0

    def plus(self, key: K, value: V) -> "GrowingMap[K, V]":
        """This map with that under this key."""
        now, before = self._now(), self._before
        if not now:  # an empty one is a beginning that many may share
            now, before = {}, []
        before.append((key, now.get(key, ABSENT)))
        now[key] = value
        whole: GrowingMap[K, V] = _new(GrowingMap)
        whole._buffer, whole._before, whole._length = now, before, self._length + 1
        return whole

    def _now(self) -> dict[K, V]:
        """The buffer as it was for this one."""
        if len(self._before) != self._length:
            buffer = dict(self._buffer)
            for key, before in reversed(self._before[self._length :]):
                if before is ABSENT:
                    del buffer[key]
                else:
                    buffer[key] = before
            self._buffer, self._before, self._length = buffer, [], 0
        return self._buffer

    def __getitem__(self, key: K) -> V:
        return self._now()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def items(self) -> ItemsView[K, V]:
        return self._now().items()

    def values(self) -> ValuesView[V]:
        return self._now().values()

    def __repr__(self) -> str:
        return repr(self._now())
