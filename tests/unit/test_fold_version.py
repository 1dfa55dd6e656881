"""A fold that gives something else has another number, or a state that is kept under the old one would be served."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from eventstore.domain.events import BODIES, Body, Finding, Progress, Reasoning, Token, ToolCall, ToolResult
from eventstore.domain.lifecycle import TERMINAL_TYPES
from eventstore.domain.record import Fact
from eventstore.domain.run import FOLD_VERSION, fold
from eventstore.domain.transcript import public

GOLDEN: Final = Path(__file__).parent.parent / "golden"
KEY: Final[dict[str, Any]] = {"key": "k", "place": 1, "args": "00"}


Said = tuple[str, Mapping[str, Any]]


def stored(type_: str) -> list[Said]:
    """The golden events of this type, of every version, as readers meet them."""
    files = sorted((GOLDEN / "events").glob(f"{type_}.v*.json"))
    return [(type_, event["data"]) for file in files for event in json.loads(file.read_text())]


def attempts() -> list[Said]:
    """What is said, said again, taken back and said otherwise."""
    bodies: list[Body] = [
        Token(text="One ", section="a", step="s#1", attempt=1),
        Token(text="two ", section="b", step="s#1", attempt=1),
        Token(text="{", section="a", step="s#1", attempt=1, shape="json"),
        Reasoning(text="hm", step="s#1", attempt=1),
        Finding(item="x", value={"risk": "low"}, **KEY),
        ToolCall(tool="t", call_id="c", arguments={"q": 1}, key="k"),
        ToolResult(tool="t", call_id="c", status="ok", summary="3", duration_ms=1, **KEY),
        Finding(item="x", value={"risk": "high"}, **KEY),
        Progress(state="s2", label="Second", index=2, total=4, key="p"),
        Token(text="three", section="b", step="s#1", attempt=1),
    ]
    return [(body.type_, body.model_dump(mode="json", exclude_none=True)) for body in bodies]


def golden_runs() -> list[list[Fact]]:
    """A run with every type of event for each way to end, and runs in which much is taken back."""
    begun = [*stored("accepted")[:1], *stored("started")[:1]]
    working = [said for type_ in sorted(BODIES) if type_ not in TERMINAL_TYPES | {"accepted"} for said in stored(type_)]
    runs = [[*begun, *working, *stored(end)[:1]] for end in sorted(TERMINAL_TYPES)]
    for dead in ([[3, 3]], [[10, 12]], [[4, 8], [11, 11]], [[1, 12]], []):
        retry = ("retry", {"what": "model", "key": "k", "superseded": dead, "attempt": 1})
        runs.append([*begun, *attempts(), retry, *attempts(), *stored("result")[:1]])
    return [[Fact(seq, type_, seq * 7, 1, data) for seq, (type_, data) in enumerate(run, start=1)] for run in runs]


def plain(value: Any) -> Any:
    """All that a state holds, as JSON can write it."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return [[plain(name), plain(one)] for name, one in value.items()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value


def digest() -> str:
    """What the golden runs fold to, at each of their events."""
    told = sha256()
    for run in golden_runs():
        for end in range(1, len(run) + 1):
            state = fold(run[:end])
            told.update(json.dumps([plain(state), plain(public(state))], separators=(",", ":")).encode())
    return told.hexdigest()


def test_what_the_golden_runs_fold_to_is_what_this_version_of_the_fold_gave_before() -> None:
    golden = json.loads((GOLDEN / "fold.json").read_text())
    assert golden.get(str(FOLD_VERSION)) == digest(), (
        "events fold to something else now: raise FOLD_VERSION in eventstore/domain/run.py and add "
        f'"{FOLD_VERSION + 1}": "{digest()}" to tests/golden/fold.json'
    )


def test_every_version_of_the_fold_gives_something_of_its_own_and_the_newest_is_in_use() -> None:
    golden = json.loads((GOLDEN / "fold.json").read_text())
    assert len(set(golden.values())) == len(golden)
    assert max(map(int, golden)) == FOLD_VERSION
