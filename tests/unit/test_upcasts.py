"""Old shapes are read as the newest one wherever a reader looks; what is stored and chained stays as it was."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from api.fronts.feed import Feed, View
from eventstore.domain import chain, upcasts
from eventstore.domain.disclosure import ROLES, policy_from
from eventstore.domain.events import Result, Retry, Started, Token, Usage
from eventstore.domain.record import Recorded
from eventstore.domain.run import fold
from eventstore.domain.transcript import partial, public, section_text
from eventstore.tail import Entry
from tests.histories import RUN, TENANT, _accepted, chained, recorded

PIECES = [Token(text=text, section="summary", step="draft#1", attempt=1) for text in ("One ", "lost", "two")]
BODIES = [
    _accepted(),
    Started(attempt=1, worker="w", code="c", workflow_version=1),
    *PIECES[:2],
    Retry(what="model", key="draft#1", reason="timeout", message="again", superseded=[(4, 4)], attempt=1),
    PIECES[2],
    Result(output={"ok": True}, counts={}, usage=Usage()),
]
RULES = dict.fromkeys(("accepted", "started", "cancel_requested", "result", "cancelled", "error", "retry"), "all")
POLICY = policy_from(
    {
        "workflow": "w",
        "version": 1,
        "submit": ["user"],
        "roles": {
            "user": {**RULES, "token": ["text"]},
            "operator": {**RULES, "token": {"fields": ["section"], "when": {"shape": "text"}}},
            "officer": {**RULES, "token": "all"},
        },
    },
    "made up",
)


def first_to_second(data: dict[str, Any]) -> dict[str, Any]:
    """A field got its name."""
    return {("text" if name == "words" else name): value for name, value in data.items()}


def second_to_third(data: dict[str, Any]) -> dict[str, Any]:
    """One field became two, and one came that was always so."""
    section, step = data["place"].split("/")
    return {"text": data["text"], "section": section, "step": step, "attempt": data["attempt"], "shape": "text"}


def as_first(token: dict[str, Any]) -> dict[str, Any]:
    return {"words": token["text"], **{name: value for name, value in as_second(token).items() if name != "text"}}


def as_second(token: dict[str, Any]) -> dict[str, Any]:
    return {"text": token["text"], "place": f"{token['section']}/{token['step']}", "attempt": token["attempt"]}


@pytest.fixture(autouse=True)
def tokens_are_at_version_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Token, "version_", 3)
    monkeypatch.setattr(
        upcasts, "UPCASTS", {("token", 1): first_to_second, ("token", 2): second_to_third, ("step", 1): dict}
    )


def written(version: int) -> list[Recorded]:
    """The history as the release wrote it whose tokens were at this version, chained over those bytes."""
    shapes: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: as_first, 2: as_second, 3: dict}
    old = [
        replace(event, version=version, body=orjson.dumps(shapes[version](orjson.loads(event.body))))
        if event.type == "token"
        else event
        for event in recorded(BODIES)
    ]
    return chained([[event] for event in old])


def frames(history: list[Recorded]) -> Iterator[tuple[str, bytes]]:
    for role in ROLES:
        for frame in Feed(View(POLICY, role), 0).take([Entry(event) for event in history]):
            yield role, frame.data


NEWEST = 3


@pytest.mark.parametrize("version", [1, 2])
def test_an_old_shape_is_read_as_the_newest_on_every_path(version: int) -> None:
    old, new = written(version), written(NEWEST)
    assert [event.body for event in old] != [event.body for event in new]
    assert [event.fact() for event in old] == [event.fact() for event in new]
    for event in old:
        if event.type == "token":
            Token.model_validate(event.fact().data)
    states = [fold(event.fact() for event in history) for history in (old, new)]
    assert states[0] == states[1]
    assert section_text(states[0], "summary") == "One two"
    assert public(states[0]) == public(states[1])
    assert partial(states[0]) == partial(states[1])
    assert list(frames(old)) == list(frames(new))  # also where a policy names only fields of the newest shape


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_stored_stays_and_is_what_the_chain_covers(version: int) -> None:
    history = written(version)
    bytes_before = [(event.version, event.body, event.chain) for event in history]
    for event in history:
        event.fact()
    fold(event.fact() for event in history)
    list(frames(history))
    assert [(event.version, event.body, event.chain) for event in history] == bytes_before
    assert all(event.version == version for event in history if event.type == "token")
    head = history[-1]
    assert chain.verify(RUN, TENANT, history, head.seq, head.chain).ok
    rewritten = [replace(event, body=orjson.dumps(dict(event.fact().data))) for event in history]
    assert not chain.verify(RUN, TENANT, rewritten, head.seq, head.chain).ok


def test_an_event_of_the_newest_version_and_of_another_type_is_left_alone() -> None:
    data = {"text": "a", "place": "x/y"}
    assert upcasts.upcast("token", 3, data) is data
    assert upcasts.upcast("reasoning", 1, data) is data
