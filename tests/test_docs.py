"""What the documents say is what the code does: every event, every field, every hash of the worked example."""

import json
import re
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.exceptions import InvalidSignature
from pydantic import BaseModel

from eventstore.domain import block as sealing
from eventstore.domain import chain, events, merkle, note
from eventstore.domain.events import BODIES
from eventstore.domain.lifecycle import CONTROL_TYPES, FINAL_TYPE, TERMINAL_TYPES
from eventstore.signing import open_checkpoint
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


def block(language: str, place: int = 0) -> str:
    """The page has two of each: one for a run, one for the blocks."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", EVIDENCE, flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 2
    return str(found[place])


@pytest.fixture
def example() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(block("json"))
    return told


def test_the_worked_example_comes_out_of_the_format_as_described(example: Mapping[str, Any]) -> None:
    before = second_opinion.genesis(example["run_id"], example["tenant_id"])
    assert before.hex() == example["genesis"]
    appends = [list(append) for _, append in groupby(example["events"], key=lambda event: event["chain"])]
    assert [len(append) for append in appends] == [1, 2, 1]
    for append in appends:
        items = [second_opinion.item(event, event["body"].encode()) for event in append]
        before = second_opinion.link(before, append[0], items)
        for event, item in zip(append, items, strict=True):
            told = (event["item"], event["listing"], event["chain"])
            assert told == (item.hex(), second_opinion.listing(items).hex(), before.hex())


def test_the_documents_own_verifier_takes_the_example_and_finds_every_change(example: dict[str, Any]) -> None:
    program: dict[str, Any] = {}
    exec(compile(block("python"), "evidence-format.md", "exec"), program)
    verify: Callable[[Mapping[str, Any]], int | None] = program["verify"]
    assert verify(example) is None
    changes = {"seq": 9, "epoch": 9, "type": "x", "version": 9, "body": "{}", "encoding": 9, "recorded_us": 1}
    for place, event in enumerate(example["events"]):
        for name, value in changes.items():
            forged = [{**event, name: value} if n == place else e for n, e in enumerate(example["events"])]
            assert verify({**example, "events": forged}) == (1, 2, 2, 4)[place], name
    assert verify({**example, "events": example["events"][1:]}) == 1
    assert verify({**example, "events": example["events"][:2]}) == 2
    assert verify({**example, "tenant_id": example["run_id"]}) == 1


def test_the_formats_name_is_the_codes() -> None:
    assert f"# The evidence format `{chain.FORMAT.decode()}`" in EVIDENCE
    assert f'"{chain.FORMAT.decode()}"' in EVIDENCE


@pytest.fixture
def sealed() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(block("json", 1))
    return told


def documented(place: int) -> dict[str, Any]:
    program: dict[str, Any] = {}
    exec(compile(block("python", place), "evidence-format.md", "exec"), program)
    return program


def test_every_byte_of_the_example_of_blocks_comes_out_of_the_documents_own_verifier(sealed: dict[str, Any]) -> None:
    program = documented(1)
    headers = []
    for each in sealed["blocks"]:
        headers.append(program["header_bytes"](each))
        assert headers[-1].hex() == each["header"]
        entries = [program["entry_bytes"](entry) for entry in each["entries"]]
        assert {len(entry) for entry in entries} == {69}
        assert program["tree"](entries).hex() == each["block_root"]
        assert (program["tree"](headers[-1:]).hex(), program["tree"](headers).hex()) == (each["leaf"], each["log_root"])
    assert program["verify_blocks"](sealed["blocks"], sealed["checkpoints"], sealed["public_key"]) is None


def test_the_example_of_blocks_goes_on_from_the_example_of_a_run(
    example: Mapping[str, Any], sealed: dict[str, Any]
) -> None:
    chains = {event["seq"]: event["chain"] for event in example["events"]}
    entries = [entry for each in sealed["blocks"] for entry in each["entries"] if entry["run_id"] == example["run_id"]]
    assert [(entry["seq"], entry["chain"]) for entry in entries] == [(seq, chains[seq]) for seq in (3, 4)]
    assert {entry["tenant_id"] for entry in entries} == {example["tenant_id"]}


def test_the_code_reads_the_example_of_blocks_as_the_document_does(sealed: dict[str, Any]) -> None:
    peaks, keys = merkle.Peaks(), [note.decode_key(sealed["public_key"])]
    leaves, roots = [], {}
    for each in sealed["blocks"]:
        header = sealing.decode_header(bytes.fromhex(each["header"]))
        entries = b"".join(documented(1)["entry_bytes"](entry) for entry in each["entries"])
        statement = each["statement"].encode() if "statement" in each else None
        assert sealing.fault_of(header, entries, statement) is None
        assert (header.kind, header.block_no, header.sealed_us) == (each["kind"], each["block_no"], each["sealed_us"])
        leaves.append(merkle.leaf_hash(header.encode()))
        peaks.append(leaves[-1])
        roots[peaks.size] = peaks.root()
    for signed in sealed["checkpoints"]:
        checkpoint = open_checkpoint(signed, keys)
        assert checkpoint.root == roots[checkpoint.size]
    told, path = sealed["inclusion"], [bytes.fromhex(each) for each in sealed["inclusion"]["path"]]
    place = told["block_no"] - 1
    assert merkle.verify_inclusion(leaves[place], place, told["size"], path, roots[told["size"]])
    told, path = sealed["consistency"], [bytes.fromhex(each) for each in sealed["consistency"]["path"]]
    assert merkle.verify_consistency(told["from"], told["to"], path, roots[told["from"]], roots[told["to"]])


def test_the_documents_own_verifier_finds_every_change_of_the_blocks(sealed: dict[str, Any]) -> None:
    verify = documented(1)["verify_blocks"]
    blocks, notes, key = sealed["blocks"], sealed["checkpoints"], sealed["public_key"]

    def changed(place: int, **values: object) -> list[dict[str, Any]]:
        return [{**each, **values} if n == place else each for n, each in enumerate(blocks)]

    for place, each in enumerate(blocks):
        signed_at = 2 if place < 2 else 4
        entry = each["entries"][0]
        for name, value in {
            "seq": 9,
            "closed": 1 - entry["closed"],
            "chain": "00" * 32,
            "tenant_id": entry["run_id"],
        }.items():
            entries = [{**entry, name: value}, *each["entries"][1:]]
            assert verify(changed(place, entries=entries), notes, key) in {place + 1, signed_at, place + 2}, name
        assert verify(changed(place, sealed_us=each["sealed_us"] + 1), notes, key) == signed_at
        assert verify(changed(place, block_no=9), notes, key) == place + 1
    assert verify(changed(3, statement="{}"), notes, key) == 4
    assert verify(changed(0, entries=blocks[0]["entries"][::-1]), notes, key) == 1
    assert verify(blocks[:3], notes, key) == 4
    with pytest.raises(InvalidSignature):
        verify(blocks, [notes[0].replace("\n2\n", "\n3\n")], key)
