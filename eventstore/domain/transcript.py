"""The partial result and the public shape of a state: what a reader who does not follow event by event is given."""

from collections.abc import Iterable
from typing import Any

from eventstore.domain.lifecycle import TERMINAL_STATUSES
from eventstore.domain.record import rfc3339
from eventstore.domain.run import Piece, RunState


def section_text(state: RunState, section: str) -> str:
    """The living draft text of one section: nothing of a superseded attempt."""
    pieces = state.sections.get(section)
    return pieces.made(_text, "") if pieces else ""


def _text(before: str, pieces: Iterable[Piece]) -> str:
    return before + "".join(piece.text for piece in pieces)


def partial(state: RunState) -> dict[str, Any]:
    """The best partial result that can be told from the log alone; never final, and it says so."""
    return {
        "final": False,
        "sections": {name: section_text(state, name) for name in state.sections},
        "findings": [dict(value) for _, value in state.findings.values()],
    }


def public_partial(state: RunState) -> dict[str, Any] | None:
    """What the wire tells under `partial`: nothing once there is a result, and what the run's end says of it first."""
    return None if state.result is not None else {**partial(state), **(state.partial or {}), "final": False}


def milestones(state: RunState) -> list[dict[str, Any]]:
    """The plan with each milestone's place: done, current or to come. The index of an ended run stays where it was."""
    index = (state.milestone or {}).get("index", 0)
    done_all = state.status == "completed"
    told = []
    for number, milestone in enumerate(state.plan, start=1):
        place = "done" if done_all or number < index else "current" if number == index else "to_come"
        told.append({**milestone, "index": number, "place": place})
    return told


def public(state: RunState) -> dict[str, Any]:
    """The state as the wire tells it. Only a stored `result` is ever under `result`; all else is under `partial`."""
    done = state.status in TERMINAL_STATUSES
    return {
        "status": state.status,
        "done": done,
        "workflow": state.workflow,
        "title": state.title,
        "created_at": rfc3339(state.created_us) if state.created_us is not None else None,
        "updated_at": rfc3339(state.updated_us) if state.updated_us is not None else None,
        "seq": state.seq,
        "attempt": state.attempt,
        "on_disconnect": dict(state.on_disconnect) if state.on_disconnect else None,
        "milestone": dict(state.milestone) if state.milestone else None,
        "milestones": milestones(state),
        "findings": [{"item": item, "seq": seq, "value": dict(v)} for item, (seq, v) in state.findings.items()],
        "tools": [{"seq": seq, **told} for seq, told in state.tools.values()],
        "retries": len(state.retries),
        "validation": dict(state.validation) if state.validation else None,
        "questions": [{"seq": seq, **asked} for seq, asked in state.questions.items()],
        "cancel": dict(state.cancel) if state.cancel else None,
        "result": {"final": True, **state.result} if state.result is not None else None,
        "partial": public_partial(state),
        "error": dict(state.error) if state.error else None,
        "usage": state.usage.model_dump(exclude_none=True),
        **({"parent": dict(state.parent)} if state.parent else {}),
        **({"continues": dict(state.continues)} if state.continues else {}),
        **({"children": [dict(child) for child in state.children.values()]} if state.children else {}),
    }
