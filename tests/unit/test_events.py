"""The vocabulary: closed bodies that become bytes once, and golden files that must be readable for ever."""

import json
import math
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from eventstore.domain import events
from eventstore.domain.errors import NotStorable
from eventstore.domain.events import BODIES, Body, Step, Taken, Token, Usage, new_event
from eventstore.domain.record import PLAIN_JSON, Recorded, rfc3339, to_us
from tests.histories import histories

GOLDEN = Path(__file__).parent.parent / "golden" / "events"
FILES = sorted(GOLDEN.glob("*.json"))
SEQ, EPOCH, OCCURRED_US, RECORDED_US = 9, 4, 1, 2


def named(path: Path) -> tuple[str, int]:
    match = re.fullmatch(r"([a-z_]+)\.v([0-9]+)\.json", path.name)
    assert match, f"{path.name} is not <type>.v<version>.json"
    return match[1], int(match[2])


def examples(path: Path) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return told


def models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and all that it is made of."""
    yield model
    for field in model.model_fields.values():
        for part in re.findall(r"eventstore\.domain\.(?:events|parts)\.(\w+)", repr(field.annotation)):
            yield from models(getattr(events, part))


def test_every_version_of_every_type_has_its_golden_file() -> None:
    wanted = {(type_, version) for type_, body in BODIES.items() for version in range(1, body.version_ + 1)}
    assert {named(path) for path in FILES} == wanted, "add tests/golden/events/<type>.v<version>.json; never remove one"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_stored_event_gives_the_same_fact_for_ever(path: Path) -> None:
    type_, version = named(path)
    assert examples(path)
    for example in examples(path):
        body = example["body"].encode()
        stored = Recorded(
            UUID(int=0), SEQ, EPOCH, type_, version, OCCURRED_US, RECORDED_US, PLAIN_JSON, None, body, b""
        )
        fact = stored.fact()
        assert (fact.seq, fact.type, fact.at_us) == (SEQ, type_, RECORDED_US)
        assert (fact.attempt, fact.data) == (example["attempt"], example["data"])
        BODIES[type_].model_validate(fact.data)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_newest_version_still_writes_the_same_bytes(path: Path) -> None:
    type_, version = named(path)
    if version < BODIES[type_].version_:
        return  # no longer written
    for example in examples(path):
        event = new_event(BODIES[type_].model_validate_json(example["body"]), OCCURRED_US)
        assert (event.type, event.version, event.occurred_us) == (type_, version, OCCURRED_US)
        assert event.body.decode() == example["body"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_golden_files_show_every_field_filled(path: Path) -> None:
    type_, version = named(path)
    filled = {name for example in examples(path) for name in example["data"]}
    if version == BODIES[type_].version_:
        assert filled == set(BODIES[type_].model_fields)


def test_a_field_that_may_be_nothing_may_be_missing() -> None:
    """Nothing is not written, so a field that holds it is not there when the body is read again."""
    for body in BODIES.values():
        for model in models(body):
            for name, field in model.model_fields.items():
                assert not (field.is_required() and "None" in repr(field.annotation)), f"{model.__name__}.{name}"


@pytest.mark.parametrize("type_", BODIES)
def test_bodies_and_all_that_they_are_made_of_are_closed_and_frozen(type_: str) -> None:
    for model in models(BODIES[type_]):
        assert model.model_config["extra"] == "forbid", model
        assert model.model_config["frozen"], model
    example = examples(GOLDEN / f"{type_}.v1.json")[0]["data"]
    body = BODIES[type_].model_validate(example)
    with pytest.raises(ValidationError):
        BODIES[type_].model_validate({**example, "surprise": 1})
    with pytest.raises(ValidationError):
        setattr(body, next(iter(BODIES[type_].model_fields)), 1)


def test_a_type_is_known_by_its_own_name() -> None:
    for type_, body in BODIES.items():
        assert body.type_ == type_
        assert re.fullmatch(r"[a-z][a-z_]{2,30}", type_)
        assert body.version_ >= 1


@given(histories())
def test_a_fact_holds_what_the_body_said(history: list[Recorded]) -> None:
    for event in history:
        body = BODIES[event.type].model_validate(event.fact().data)
        assert new_event(body, event.occurred_us).body == event.body


def test_the_attempt_of_a_fact_is_the_calls_own_or_else_the_owners_epoch() -> None:
    def attempt_of(body: Body) -> int:
        new = new_event(body, 1)
        return Recorded(UUID(int=0), 1, 7, new.type, 1, 1, 1, PLAIN_JSON, None, new.body, b"").fact().attempt

    assert attempt_of(Token(text="", section="", step="", attempt=3)) == 3
    [cancel] = [body for body in BODIES.values() if body.type_ == "cancel_requested"]
    assert attempt_of(cancel.model_validate({"by": {"subject": "a", "role": "user"}, "reason": ""})) == 7


UNSTORABLE = {
    "not a number": math.nan,
    "infinity": [math.inf],
    "a huge integer": {"n": 10**30},
    "half a surrogate pair": ["\ud800"],
    "NUL": {"text": "\x00"},
    "too deep": json.loads("[" * 40 + "]" * 40),
    "an object": object(),
}


@pytest.mark.parametrize("what", UNSTORABLE)
def test_a_body_that_would_not_read_back_is_refused_and_never_quietly_changed(what: str) -> None:
    step = Step(key="k", place=1, args="00", name="n", status="ok", output=UNSTORABLE[what])
    with pytest.raises(NotStorable):
        new_event(step, 1)


def test_a_piece_of_text_with_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(NotStorable):
        new_event(Token(text="\ud800", section="", step="", attempt=1), 1)


def test_only_bodies_that_nobody_fills_freely_go_unjudged() -> None:
    for body in BODIES.values():
        if not body.open_:
            kinds = {repr(field.annotation) for field in body.model_fields.values()}
            words = {
                "typing.Literal['text', 'json']",
                "typing.Optional[typing.Literal['continue']]",
                repr(Taken | None),
            }
            assert kinds <= {repr(str), repr(int), *words}


def test_nothing_within_a_free_value_is_lost() -> None:
    output = {"a": None, "b": [None, {"c": None}], "d": "", "e": [], "f": False}
    event = new_event(Step(key="k", place=1, args="00", name="n", status="ok", output=output), 1)
    assert json.loads(event.body)["output"] == output


def test_usage_adds_up_and_keeps_the_least_certain_source() -> None:
    told = Usage(input_tokens=1, output_tokens=2, reasoning_tokens=3, source="provider")
    guessed = Usage(input_tokens=10, source="estimated")
    assert told + guessed == Usage(input_tokens=11, output_tokens=2, reasoning_tokens=3, source="estimated")
    assert guessed + told == told + guessed
    assert Usage() + told == told


def test_times_are_whole_microseconds_both_ways() -> None:
    assert rfc3339(1_790_000_000_123_456) == "2026-09-21T14:13:20.123456Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    for at_us in (0, 1, 1_790_000_000_123_457, 4_102_444_800_999_999):
        moment = datetime.fromisoformat(rfc3339(at_us))
        assert to_us(moment) == at_us


def test_an_event_that_is_too_large_is_refused_before_it_is_anywhere() -> None:
    piece = {"section": "comments", "step": "draft#1", "attempt": 1}
    new_event(Token(text="x" * 1_000_000, **piece), 1)
    with pytest.raises(NotStorable, match="larger than 1048576 bytes"):
        new_event(Token(text="x" * 1_048_576, **piece), 1)
