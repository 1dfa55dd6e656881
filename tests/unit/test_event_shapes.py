"""A body cannot change its shape under the same version: the golden events do not let it pass."""

from collections.abc import Callable, Iterator
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.fields import FieldInfo

from eventstore.domain.events import BODIES, Body
from tests.unit import test_events as golden

Fields = dict[str, tuple[Any, Any]]
Change = Callable[[Fields, str], Fields]


make: Any = create_model  # its fields are only known here


class Part(BaseModel):
    """What the parts of bodies share."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def removed(fields: Fields, name: str) -> Fields:
    return {each: field for each, field in fields.items() if each != name}


def renamed(fields: Fields, name: str) -> Fields:
    return {f"{each}_now" if each == name else each: field for each, field in fields.items()}


def retyped(fields: Fields, name: str) -> Fields:
    return {**fields, name: (complex, fields[name][1])}


def one_more(fields: Fields, name: str) -> Fields:
    return {**fields, f"{name}_too": (str, ...)}


def one_more_that_is_always_written(fields: Fields, name: str) -> Fields:
    return {**fields, f"{name}_too": (str, "so")}


def one_more_that_may_be_absent(fields: Fields, name: str) -> Fields:
    return {**fields, f"{name}_too": (str | None, None)}


BREAKING = (removed, renamed, retyped, one_more, one_more_that_is_always_written)


def rebuilt(model: type[BaseModel], part: type[BaseModel], name: str, change: Change) -> type[BaseModel]:
    """The same model, but that this field of this part of it is changed."""

    def inside(annotation: Any) -> Any:
        if get_origin(annotation) is list:
            return list[inside(get_args(annotation)[0])]  # type: ignore[misc]
        if isinstance(annotation, UnionType):
            return reduce(or_, map(inside, get_args(annotation)))
        if isinstance(annotation, type) and get_origin(annotation) is None and issubclass(annotation, BaseModel):
            return rebuilt(annotation, part, name, change)
        return annotation

    def default(field: FieldInfo) -> Any:
        return ... if field.is_required() else field

    fields: Fields = {each: (inside(field.annotation), default(field)) for each, field in model.model_fields.items()}
    if model is part:
        fields = change(fields, name)
    made = make(model.__name__, __base__=Body if issubclass(model, Body) else Part, **fields)
    if issubclass(model, Body):
        made.type_, made.version_, made.open_ = model.type_, model.version_, model.open_
    changed: type[BaseModel] = made
    return changed


def judged(type_: str) -> str | None:
    """What the golden events say to the models as they are."""
    for path in golden.FILES:
        if golden.named(path)[0] == type_:
            try:
                golden.test_a_stored_event_gives_the_same_fact_for_ever(path)
                golden.test_the_newest_version_still_writes_the_same_bytes(path)
            except (AssertionError, ValidationError) as fault:
                return str(fault)
    return None


def every_field() -> Iterator[tuple[str, type[BaseModel], str]]:
    for type_, body in BODIES.items():
        for part in dict.fromkeys(golden.models(body)):
            for name in part.model_fields:
                yield type_, part, name


@pytest.mark.parametrize("change", BREAKING, ids=lambda change: change.__name__)
def test_a_changed_shape_needs_a_new_version(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    unseen = []
    for type_, part, name in every_field():
        if change is retyped and part.model_fields[name].annotation in (Any, complex):
            continue
        with monkeypatch.context() as patched:
            patched.setitem(BODIES, type_, rebuilt(BODIES[type_], part, name, change))
            if judged(type_) is None:
                unseen.append(f"{type_}: {part.__name__}.{name}")
    assert not unseen, "no golden event shows these: fill them in tests/golden/events/"


def test_a_field_that_may_be_absent_can_be_added_and_nothing_else_was_changed_by_these_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for type_, part, name in every_field():
        with monkeypatch.context() as patched:
            patched.setitem(BODIES, type_, rebuilt(BODIES[type_], part, name, one_more_that_may_be_absent))
            assert judged(type_) is None, (type_, part, name)
            patched.setitem(BODIES, type_, rebuilt(BODIES[type_], part, name, lambda fields, _: fields))
            assert judged(type_) is None, (type_, part, name)
