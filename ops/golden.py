"""Golden runs: a run's log in a file, as it is stored, to be replayed against the code of every later day.

The first line names the workflow, its version, the run and its input; each further line is one event, its body in the
bytes that are stored.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from eventstore import catalogue, log
from eventstore.domain.lifecycle import TERMINAL_STATUSES
from eventstore.domain.record import PLAIN_JSON, Fact, Recorded
from ops.exits import FAILED, USAGE, Complaint

NAME: Final = re.compile(r"[\w][\w.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Golden:
    """One exported run."""

    workflow: str
    version: int
    run_id: UUID
    input: Any
    facts: list[Fact]


async def export(connection: AsyncConnection, run_id: UUID, out: Path, name: str | None = None) -> Path:
    """Write a run that has ended to `out/<workflow>/v<version>/<name>.jsonl`; never over another."""
    head = await log.head(connection, run_id)
    if head is None:
        raise Complaint(f"there is no run {run_id}", FAILED)
    if head.status not in TERMINAL_STATUSES:
        raise Complaint(f"the run is {head.status}", FAILED, "a golden run is one that has ended")
    name = name or str(run_id)
    if not NAME.fullmatch(name):
        raise Complaint(f"{name!r} is no name for a file", USAGE, "letters, digits, _, . and -")
    events = await _events(connection, run_id)
    if any(event.encoding != PLAIN_JSON for event in events):
        raise Complaint("the run's events are not stored as plain JSON", FAILED, "only such a run can be exported")
    accepted = events[0].fact().data
    told = {
        "workflow": accepted["workflow"],
        "version": accepted["workflow_version"],
        "run_id": str(run_id),
        "input": orjson.loads(await catalogue.read_input(connection, run_id) or b"null"),
    }
    file: Path = out / told["workflow"] / f"v{told['version']}" / f"{name}.jsonl"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("xb") as target:
            target.writelines([orjson.dumps(told) + b"\n", *map(_line, events)])
    except FileExistsError as fault:
        raise Complaint(f"{file} is there already", FAILED, "a golden run is never changed; give --name") from fault
    except OSError as fault:
        raise Complaint(f"cannot write {file}: {fault.strerror}", FAILED) from fault
    return file


def read_golden(file: Path) -> Golden:
    """An exported run, read back."""
    first, *lines = file.read_bytes().splitlines()
    told = orjson.loads(first)
    facts = [event.fact() for event in _recorded(UUID(told["run_id"]), map(orjson.loads, lines))]
    return Golden(told["workflow"], told["version"], UUID(told["run_id"]), told["input"], facts)


def golden_runs(folder: Path) -> dict[Path, Golden]:
    """All exported runs below a folder."""
    return {file: read_golden(file) for file in sorted(folder.rglob("*.jsonl"))}


async def _events(connection: AsyncConnection, run_id: UUID) -> list[Recorded]:
    found: list[Recorded] = []
    while True:
        page = await log.read_after(connection, run_id, found[-1].seq if found else 0)
        found += page.events
        if not page.more:
            return found


def _line(event: Recorded) -> bytes:
    head = {
        "seq": event.seq,
        "epoch": event.epoch,
        "type": event.type,
        "version": event.version,
        "occurred_us": event.occurred_us,
        "recorded_us": event.recorded_us,
    }
    return orjson.dumps(head)[:-1] + b',"body":' + event.body + b"}\n"


def _recorded(run_id: UUID, lines: Iterable[dict[str, Any]]) -> Iterable[Recorded]:
    for line in lines:
        body = orjson.dumps(line.pop("body"))
        yield Recorded(run_id=run_id, encoding=PLAIN_JSON, key_id=None, body=body, chain=b"", **line)
