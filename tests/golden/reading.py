"""What reading a log gives, as bytes: facts, states, frames as each role sees them, and what its evidence proves."""

import tomllib
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from api.fronts.feed import Feed, View
from eventstore import incarnation, log, signing
from eventstore.checkpoints import Directory
from eventstore.domain import chain
from eventstore.domain.disclosure import Role, policy_from
from eventstore.domain.record import Recorded
from eventstore.domain.run import fold
from eventstore.domain.transcript import public
from eventstore.tail import Entry
from eventstore.verification import verify_against
from tests.sealing import NAME
from tests.writing import events_of

ROLES: tuple[Role, ...] = get_args(Role)


async def read(connection: AsyncConnection, folder: Path) -> dict[str, bytes]:
    """The files of `reading/`: all that a release must still read of this log. `folder` holds what was kept outside."""
    policy = policy_from(tomllib.loads((folder / "policy.toml").read_text(encoding="utf-8")), "policy.toml")
    views = {role: View(policy, role) for role in ROLES}
    found = await connection.execute(text("SELECT run_id FROM runwire.head ORDER BY run_id"))
    runs = [run_id for (run_id,) in found]
    facts, states, chains = list[Any](), dict[str, Any](), dict[str, Any]()
    frames: dict[Role, list[bytes]] = {role: [] for role in ROLES}
    for run_id in runs:
        events = await events_of(connection, run_id)
        told = [event.fact() for event in events]
        facts += [
            {"run_id": run_id, "seq": fact.seq, "type": fact.type, "at_us": fact.at_us, "attempt": fact.attempt,
             "data": fact.data}
            for fact in told
        ]  # fmt: skip
        states[str(run_id)] = public(fold(told))
        chains[str(run_id)] = await _chain(connection, run_id, events)
        for role, view in views.items():
            frames[role] += [frame.data for frame in Feed(view, 0).take([Entry(event) for event in events])]
    return {
        "facts.jsonl": _lines([orjson.dumps(fact) for fact in facts]),
        "states.json": _page(states),
        "chains.json": _page(chains),
        "blocks.json": _page(await _blocks(connection, folder)),
        **{f"frames.{role}.jsonl": _lines(shown) for role, shown in frames.items()},
    }


async def _chain(connection: AsyncConnection, run_id: UUID, events: list[Recorded]) -> dict[str, Any]:
    head = await log.head(connection, run_id)
    assert head is not None
    seen = chain.verify(run_id, head.tenant_id, events, head.seq, head.chain)
    return {
        "tenant_id": head.tenant_id, "status": head.status, "ok": seen.ok, "events": seen.events,
        "chain": seen.chain.hex(),
    }  # fmt: skip


async def _blocks(connection: AsyncConnection, folder: Path) -> dict[str, Any]:
    """The log of blocks and every event, held against the checkpoints that were kept outside."""
    outside, keys = Directory(folder / "outside"), signing.read_public(folder / "keys.pub")
    origin = await incarnation.log_origin(connection, NAME)
    notes = [note for size in outside.sizes() if (note := outside.checkpoint(size)) is not None]
    report = await verify_against(connection, notes, keys, origin)
    standing = await incarnation.check_incarnation(connection, outside, keys, origin)
    return {
        "origin": origin, "ok": report.ok, "size": report.size, "root": report.root.hex(), "runs": report.runs,
        "events": report.events, "sealed": report.sealed, "checkpoints": report.checkpoints,
        "fits_what_is_outside": standing.fault is None,
    }  # fmt: skip


def _lines(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _page(told: dict[str, Any]) -> bytes:
    return orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
