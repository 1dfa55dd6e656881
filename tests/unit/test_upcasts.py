"""Old stored shapes are walked to today's, step by step, and stored bytes are never touched."""

from typing import Any

import pytest

from eventstore.domain import upcasts
from eventstore.domain.events import BODIES
from eventstore.domain.upcasts import UPCASTS, upcast
from tests.histories import START_US, recorded
from tests.writing import accepted


def test_the_newest_shape_comes_back_as_it_is() -> None:
    data = {"text": "a"}
    for type_, body in BODIES.items():
        assert upcast(type_, body.version_, data) is data


def test_every_upcast_leads_to_a_version_that_is_known() -> None:
    for type_, version in UPCASTS:
        assert type_ in BODIES
        assert 1 <= version < BODIES[type_].version_
    for type_, body in BODIES.items():
        assert all((type_, version) in UPCASTS for version in range(1, body.version_))


def test_a_body_of_version_one_walks_through_every_step_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    def second(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "steps": ["1 to 2"]}

    def third(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "steps": [*data["steps"], "2 to 3"]}

    monkeypatch.setattr(upcasts, "UPCASTS", {("accepted", 1): second, ("accepted", 2): third, ("token", 1): third})
    assert upcast("accepted", 1, {})["steps"] == ["1 to 2", "2 to 3"]
    assert upcast("accepted", 2, {"steps": []})["steps"] == ["2 to 3"]
    assert upcast("accepted", 3, {}) == {}
    [event] = recorded([accepted()])
    before = event.body
    assert event.fact().data["steps"] == ["1 to 2", "2 to 3"]
    assert event.fact().at_us == START_US + 1007
    assert event.body == before
