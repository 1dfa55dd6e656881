"""What the documents say is what the code does: every event, every field, every hash of the worked example."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from eventstore.domain import chain, events
from eventstore.domain.events import BODIES
from eventstore.domain.lifecycle import CONTROL_TYPES, FINAL_TYPE, TERMINAL_TYPES
from tests import second_opinion

DOCS = Path(__file__).parent.parent / "docs"
EVENTS = (DOCS / "events.md").read_text(encoding="utf-8")
EVIDENCE = (DOCS / "evidence-format.md").read_text(encoding="utf-8")


def sections(text: str, heading: str) -> dict[str, str]:
    """What stands under each heading of this level, by its words."""
    parts = re.split(rf"^{heading} (.+)\n", text, flags=re.MULTILINE)
    return dict(zip([name.strip("`") for name in parts[1::2]], parts[2::2], strict=True))


def fields(section: str) -> dict[str, str]:
    """The rows of its one table."""
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.MULTILINE))
    assert len(rows) == section.count("\n| `")
    return rows


def parts_of(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The models that this one is made of, at any depth."""
    found: set[type[BaseModel]] = set()
    waiting: list[Any] = [field.annotation for field in model.model_fields.values()]
    while waiting:
        kind = waiting.pop()
        waiting += get_args(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind not in found:
            found.add(kind)
            waiting += [field.annotation for field in kind.model_fields.values()]
    return found


TYPES, SHAPES = sections(EVENTS, "##"), sections(EVENTS, "###")
MADE_OF = {part for body in BODIES.values() for part in parts_of(body)}


def test_the_documents_name_every_event_in_the_order_of_the_code() -> None:
    assert [name for name in TYPES if name != "Shapes inside"] == list(BODIES)
    assert set(SHAPES) == {shape.__name__ for shape in MADE_OF}


@pytest.mark.parametrize("type_", BODIES)
def test_every_field_of_an_event_has_its_line_and_no_other_has(type_: str) -> None:
    told = fields(TYPES[type_])
    assert list(told) == list(BODIES[type_].model_fields)
    assert all(len(meaning.split()) > 1 for meaning in told.values())


@pytest.mark.parametrize("type_", BODIES)
def test_an_event_says_its_version_its_writer_and_its_end(type_: str) -> None:
    writer = "api" if type_ in CONTROL_TYPES else "worker"
    assert f"Version {BODIES[type_].version_}, written by the {writer}." in TYPES[type_]
    assert ("TERMINAL" in TYPES[type_]) == (type_ in TERMINAL_TYPES)
    assert ("the only event that is final" in TYPES[type_]) == (type_ == FINAL_TYPE)


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_field_of_a_shape_has_its_line_and_no_other_has(shape: str) -> None:
    assert list(fields(SHAPES[shape])) == list(getattr(events, shape).model_fields)


@pytest.mark.parametrize("type_", BODIES)
def test_what_may_be_absent_is_said_to_be(type_: str) -> None:
    for name, meaning in fields(TYPES[type_]).items():
        field = BODIES[type_].model_fields[name]
        may_be_absent = not field.is_required() and field.default is None
        assert ("absent" in meaning) == may_be_absent, name


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", EVIDENCE, flags=re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def example() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(block("json"))
    return told


def test_the_worked_example_comes_out_of_the_format_as_described(example: Mapping[str, Any]) -> None:
    before = second_opinion.genesis(example["run_id"], example["tenant_id"])
    assert before.hex() == example["genesis"]
    for event in example["events"]:
        leaf = second_opinion.leaf(example["run_id"], event, event["body"].encode())
        before = second_opinion.link(before, leaf)
        assert (leaf.hex(), before.hex()) == (event["leaf"], event["chain"])


def test_the_documents_own_verifier_takes_the_example_and_finds_every_change(example: dict[str, Any]) -> None:
    program: dict[str, Any] = {}
    exec(compile(block("python"), "evidence-format.md", "exec"), program)
    verify: Callable[[Mapping[str, Any]], int | None] = program["verify"]
    assert verify(example) is None
    for place, event in enumerate(example["events"]):
        for name, value in {"seq": 9, "epoch": 9, "type": "x", "version": 9, "body": "{}", "encoding": 9}.items():
            forged = [{**event, name: value} if n == place else e for n, e in enumerate(example["events"])]
            assert verify({**example, "events": forged}) == place + 1, name
    assert verify({**example, "events": example["events"][1:]}) == 1
    assert verify({**example, "tenant_id": example["run_id"]}) == 1


def test_the_formats_name_is_the_codes() -> None:
    assert f"# The evidence format `{chain.FORMAT.decode()}`" in EVIDENCE
    assert f'"{chain.FORMAT.decode()}"' in EVIDENCE
