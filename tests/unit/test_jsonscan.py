"""Half a document: what is closed in it stands in the whole, and nothing else is ever given."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eventstore.domain import intake
from eventstore.domain.errors import NotStorable
from worker.jsonscan import CHARS_MAX, Closed, NotJson, Scanner

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """A document as different servers would write it."""
    indent = draw(st.sampled_from([None, 0, 1]))
    separators = draw(st.sampled_from([None, (",", ":"), (" , ", "\t:\r\n")]))
    return json.dumps(draw(VALUES), ensure_ascii=draw(st.booleans()), indent=indent, separators=separators)


def scan(pieces: Iterable[str], levels: int = 99) -> tuple[list[Closed], Scanner]:
    scanner = Scanner(levels)
    return [closed for piece in pieces for closed in scanner.feed(piece)], scanner


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same kind: 1 is neither 1.0 nor True."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@given(document=documents())
@example(document='{"n": 12}')
@example(document="[12, 3.4e5, -0, true]")
@example(document="120")
def test_whatever_the_cut_nothing_is_given_that_the_whole_does_not_contain(document: str) -> None:
    whole = json.loads(document)
    for cut in range(len(document) + 1):
        given_, _ = scan([document[:cut]])
        assert all(same(closed.value, at(whole, closed.path)) for closed in given_)


@given(document=documents(), data=st.data())
def test_any_cut_into_pieces_gives_the_same_values_in_the_same_order(document: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(document)), max_size=8)))
    cut = [document[a:b] for a, b in zip([0, *places], [*places, len(document)], strict=True)]
    at_once, scanner = scan([document])
    in_pieces, other = scan(cut)
    one_by_one, _ = scan(document)
    assert at_once == in_pieces == one_by_one
    assert scanner.close() == other.close()
    assert same(scanner.value, json.loads(document))


@given(document=documents())
def test_in_the_end_everything_has_been_given_once_members_before_their_container(document: str) -> None:
    closed, scanner = scan([document])
    closed += scanner.close()
    paths = [each.path for each in closed]
    assert len(paths) == len(set(paths))
    assert paths[-1] == ()
    for number, path in enumerate(paths):
        assert all(path[: len(inner)] != inner or path == inner for inner in paths[:number])

    def count(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return 1 + sum(map(count, inner))

    assert len(paths) == count(json.loads(document))


@given(
    text=documents()
    | st.text('[]{}:,"\\ \n0129.eE+-truefalsn\u00e9', max_size=14)
    | st.builds(lambda text, cut, put: text[:cut] + put + text[cut + 1 :], documents(), st.integers(0, 20), TEXT)
)
@example(text='{"a":1,"a":2}')
@example(text='"\\ud800"')
@example(text='"\\u0000"')
@example(text="[NaN]")
@example(text="-Infinity")
@example(text="1e400")
@example(text="9007199254740993")
@example(text="1" * 5000)
@example(text="\ufeff1")
@example(text="[" * 40 + "]" * 40)
@example(text="[" * 32 + "]" * 32)
@example(text="[1,]")
@example(text="{,}")
@example(text="[1 2]")
@example(text='{"a"}')
@example(text="]")
@example(text="01")
@example(text="1.")
@example(text='"\t"')
@example(text='"\\x"')
@example(text="1 2")
@example(text="")
def test_it_takes_and_refuses_what_the_intake_takes_and_refuses(text: str) -> None:
    scanner = Scanner()
    try:
        whole = intake.parse(text.encode(), 1 << 20)
    except NotStorable:
        with pytest.raises(NotJson):  # noqa: PT012 - either may be the first to notice
            scanner.feed(text)
            scanner.close()
    else:
        scanner.feed(text)
        scanner.close()
        assert same(scanner.value, whole)


def test_a_number_is_closed_only_by_what_follows_it() -> None:
    scanner = Scanner()
    assert scanner.feed('{"n": 12') == []
    assert scanner.feed("0") == []
    assert scanner.feed(",") == [Closed(("n",), 120)]
    bare = Scanner()
    assert bare.feed("12") == []
    assert bare.close() == [Closed((), 12)]


def test_only_the_outer_levels_are_given() -> None:
    closed, _ = scan(['{"a":[{"b":[1]},2],"c":3}'], levels=2)
    assert [each.path for each in closed] == [("a", 0), ("a", 1), ("a",), ("c",), ()]


def test_a_document_without_end_is_refused_before_it_fills_the_memory() -> None:
    scanner = Scanner()
    with pytest.raises(NotJson, match="longer"):  # noqa: PT012 - which piece is too much is of no account
        scanner.feed('"')
        for _ in range(CHARS_MAX // 1000 + 1):
            scanner.feed("x" * 1000)
    with pytest.raises(NotJson, match="items"):
        Scanner().feed("[" + "1," * 30_000)
