"""What may be stored: everything that every JSON reader reads back the same, and nothing else."""

import json
import math
from typing import Any

import orjson
import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.domain.errors import NotStorable
from eventstore.domain.intake import DEPTH_MAX, INTEGER_MAX, ITEMS_MAX, check, clean_text, parse

BYTES_MAX = 1_000_000
ANY_TEXT = st.text(st.characters())  # lone surrogates and NUL too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=12)


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth - 1):
        value = [value]
    return value


def same(one: Any, other: Any) -> bool:
    """Equal, and equal in type too: 1, 1.0 and True are three things, and so are 0.0 and -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@given(VALUES)
def test_whatever_is_accepted_reads_back_the_same_in_every_reader(value: Any) -> None:
    try:
        check(value)
    except NotStorable:
        return
    written = [json.dumps(value).encode(), orjson.dumps(value), pydantic_core.to_json(value)]
    for raw in written:
        for read in (json.loads, orjson.loads, pydantic_core.from_json, lambda text: parse(text, BYTES_MAX)):
            assert same(read(raw), value)


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_read_or_refused_but_break_nothing(raw: bytes) -> None:
    try:
        value = parse(raw, 150)
    except NotStorable:
        return
    assert same(value, orjson.loads(raw))


REFUSED: dict[str, tuple[bytes, str]] = {
    "NaN": (b'{"a": NaN}', "NaN"),
    "infinity": (b"[Infinity]", "Infinity"),
    "negative infinity": (b"[-Infinity]", "-Infinity"),
    "a float that overflows": (b"[1e400]", "infinity"),
    "an integer of 5000 digits": (b"9" * 5000, "exactly"),
    "an integer of 17 digits": (b"[90071992547409930]", "exactly"),
    "the same key twice": (b'{"a": 1, "a": 1}', "twice"),
    "the same key twice, once written otherwise": (b'{"a": 1, "\\u0061": 2}', "twice"),
    "the same key twice, deep inside": (b'[{"b": {"a": 1, "a": 2}}]', "twice"),
    "NUL": (b'["a\\u0000b"]', "NUL"),
    "NUL in a key": (b'{"\\u0000": 1}', "NUL"),
    "half of a surrogate pair": (b'["\\ud83d"]', "surrogate"),
    "the other half in a key": (b'{"\\ude00": 1}', "surrogate"),
    "a surrogate in UTF-8": (b'["\xed\xa0\xbd"]', "UTF-8"),
    "bytes that are not UTF-8": (b'["\xff"]', "UTF-8 (byte 2)"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-8"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
    "nothing": (b"", "not JSON"),
    "half a value": (b'{"a": ', "line 1, column"),
    "two values": (b"1 2", "line 1, column 3"),
    "one level too deep": (json.dumps(nested(DEPTH_MAX + 1)).encode(), "levels"),
    "a hundred thousand levels": (b"[" * 100_000, "levels"),
    "a hundred thousand levels, closed": (b"[" * 100_000 + b"]" * 100_000, "levels"),
    "a hundred thousand levels of objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "levels"),
    "too many items": (json.dumps([0] * ITEMS_MAX).encode(), "items"),
    "too many bytes": (b" " * BYTES_MAX + b"1", "larger"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_not_read_back_is_refused_in_words_that_say_what(what: str) -> None:
    raw, word = REFUSED[what]
    with pytest.raises(NotStorable, match=word.replace("(", r"\(").replace(")", r"\)")):
        parse(raw, BYTES_MAX)


def test_the_limits_themselves_are_inside() -> None:
    assert parse(json.dumps(nested(DEPTH_MAX)).encode(), BYTES_MAX) == nested(DEPTH_MAX)
    assert parse(json.dumps([0] * (ITEMS_MAX - 1)).encode(), BYTES_MAX) == [0] * (ITEMS_MAX - 1)
    assert parse(b"1".rjust(BYTES_MAX), BYTES_MAX) == 1
    for number in (INTEGER_MAX, -INTEGER_MAX):
        assert parse(str(number).encode(), BYTES_MAX) == number
        with pytest.raises(NotStorable):
            check(number + (1 if number > 0 else -1))


@pytest.mark.parametrize(
    "value", [b"bytes", {1: "a"}, {None: 1}, pytest.param(object(), id="object"), {1, 2}, [1j]], ids=repr
)
def test_what_is_not_json_is_refused(value: Any) -> None:
    with pytest.raises(NotStorable):
        check(value)


def test_the_place_is_named_as_a_json_pointer() -> None:
    with pytest.raises(NotStorable) as caught:
        check({"a/b": [0, {"c~d": math.nan}]})
    assert caught.value.pointer == "/a~1b/1/c~0d"


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotStorable):
        check(value)


@given(ANY_TEXT)
def test_clean_text_can_be_stored_and_good_text_stays_as_it_is(text: str) -> None:
    clean = clean_text(text)
    check(clean)
    try:
        check(text)
    except NotStorable:
        assert clean != text
    else:
        assert clean == text


def test_clean_text_shows_what_was_broken_and_joins_what_belongs_together() -> None:
    assert clean_text("a\x00b") == "a\ufffdb"
    assert clean_text("a\ud83db") == "a\ufffdb"
    assert clean_text("\ude00\ud83d") == "\ufffd\ufffd"
    assert clean_text("\ud83d\ude00") == "\U0001f600"
