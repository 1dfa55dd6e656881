"""Lists and maps that grow: each is what was put into it, whoever grows from where, and growing on costs no copy."""

from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.domain.growing import GrowingList, GrowingMap

# Each step goes on from one of those made before: mostly from the newest, sometimes from one further back.
steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers()), max_size=30)


@given(steps)
def test_every_list_is_what_was_put_into_it(drawn: list[tuple[int, int, int]]) -> None:
    made: list[tuple[GrowingList[int], list[int]]] = [(GrowingList(), [])]
    for back, upto, item in drawn:
        grown, expected = made[max(0, len(made) - 1 - back)]
        if upto == 0:
            length = item % (len(expected) + 2)
            made.append((grown.upto(length), expected[:length]))
        else:
            made.append((grown.plus(item), [*expected, item]))
    for grown, expected in made:
        assert list(grown) == expected
        assert (len(grown), grown) == (len(expected), GrowingList(expected))
        assert repr(grown) == repr(expected)
        assert bool(grown) == bool(expected)
        assert grown[1:] == expected[1:]
        assert [grown[place] for place in range(-len(grown), len(grown))] == expected * 2


@given(steps, st.lists(st.integers(0, 30), max_size=10))
def test_every_map_is_what_was_put_into_it_in_its_order(drawn: list[tuple[int, int, int]], looked: list[int]) -> None:
    made: list[tuple[GrowingMap[int, int], dict[int, int]]] = [(GrowingMap(), {})]
    for back, key, value in drawn:
        grown, expected = made[max(0, len(made) - 1 - back)]
        made.append((grown.plus(key, value), {**expected, key: value}))
        for place in looked:  # looking at one must change none
            if place < len(made):
                assert list(made[place][0].items()) == list(made[place][1].items())
    for grown, expected in made:
        assert list(grown.items()) == list(expected.items())
        assert list(grown.values()) == list(expected.values())
        assert list(grown) == list(expected)
        assert (len(grown), dict(grown), repr(grown)) == (len(expected), expected, repr(expected))
        for key in range(5):
            assert grown.get(key) == expected.get(key)


@given(steps, st.lists(st.integers(0, 30), max_size=10))
def test_what_is_made_of_a_list_bit_by_bit_is_what_is_made_of_it_at_once(
    drawn: list[tuple[int, int, int]], asked: list[int]
) -> None:
    def listed(before: str, items: Iterable[int]) -> str:
        return before + "".join(f"{item}," for item in items)

    made: list[GrowingList[int]] = [GrowingList()]
    for back, upto, item in drawn:
        grown = made[max(0, len(made) - 1 - back)]
        made.append(grown.upto(item % (len(grown) + 2)) if upto == 0 else grown.plus(item))
        for place in asked:
            if place < len(made):
                assert made[place].made(listed, "") == "".join(f"{item}," for item in made[place])
                assert made[place].made(lambda before, items: before + len(list(items)), 0) == len(made[place])


def test_what_was_made_before_is_not_made_again() -> None:
    met: list[int] = []

    def meet(before: int, items: Iterable[int]) -> int:
        new = list(items)
        met.extend(new)
        return before + len(new)

    grown = GrowingList(range(5))
    assert grown.made(meet, 0) == 5
    assert grown.plus(5).plus(6).made(meet, 0) == 7
    assert met == list(range(7))


@pytest.mark.parametrize("place", [3, -4])
def test_what_lies_behind_the_end_is_not_there(place: int) -> None:
    whole: Sequence[int] = GrowingList(range(9))
    with pytest.raises(IndexError):
        GrowingList(whole).upto(3)[place]


def test_growing_on_shares_what_is_there_and_growing_from_further_back_does_not() -> None:
    lists = [GrowingList("a")]
    maps = [GrowingMap[str, int]().plus("a", 0)]
    for n in range(9):
        lists.append(lists[-1].plus(str(n)))
        maps.append(maps[-1].plus(str(n), n))
    assert all(one._buffer is lists[0]._buffer for one in lists)
    assert all(one._buffer is maps[0]._buffer for one in maps)
    assert lists[4].plus("x")._buffer is not lists[0]._buffer
    assert maps[4].plus("x", 1)._buffer is not maps[-1]._buffer


def test_an_empty_beginning_holds_nothing_of_those_who_began_there() -> None:
    nothing, none = GrowingList[int](), GrowingMap[int, int]()
    nothing.plus(1)
    none.plus(1, 1)
    assert (nothing._buffer, none._buffer, none._before) == ([], {}, [])
