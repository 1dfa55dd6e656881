"""The draft in the answer to a poll: its end, all of it, or what was added; always labelled as not final.

A draft grows with the run, and whoever polls asks again and again. So by default an answer holds the end of the draft,
bounded, which is right for a reader who only shows it and costs the same in a long run as in a short one. A reader who
joins asks for what was added to what its cursor stands for. Joining is safe: when any of that was taken back, by the
retry of a step, the answer holds all of the draft and no `since`, and says by that: replace what you have.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final, Literal, get_args

from eventstore.domain.record import Fact
from eventstore.domain.run import Piece, RunState, fold
from eventstore.domain.transcript import public_partial, section_text

Drafts = Literal["recent", "full", "delta", "none"]
DRAFTS: Final[tuple[Drafts, ...]] = get_args(Drafts)
CHARS_MAX: Final = 65_536  # kept at hand of each section; more can be had with `full`
FINDINGS_MAX: Final = 100


def recent(state: RunState, chars: int) -> dict[str, Any] | None:
    """The draft, if it is short; of a longer one the last characters and findings, and `cut` says so."""
    if state.result is not None or state.partial is not None or state.error is not None:
        return public_partial(state)
    left, sections, cut = chars, {}, False
    for name in reversed(state.sections):
        length, end = state.sections[name].made(_end, (0, ""))
        sections[name] = end[max(0, len(end) - left) :] if left else ""
        cut = cut or length > left
        left = max(0, left - length)
    findings = state.findings.values()
    last = list(islice(findings, max(0, len(findings) - FINDINGS_MAX), None))
    cut = cut or len(last) < len(findings)
    told = {
        "final": False,
        "sections": {name: sections[name] for name in state.sections},
        "findings": [dict(value) for _, value in last],
    }
    return {**told, "cut": True} if cut else told


def _end(before: tuple[int, str], pieces: Iterable[Piece]) -> tuple[int, str]:
    """How long a section is, and its last characters."""
    text = "".join(piece.text for piece in pieces)
    return before[0] + len(text), (before[1] + text)[-CHARS_MAX:]


def added(facts: Sequence[Fact], after: int) -> dict[str, Any] | None:
    """What these facts, the next ones after this cursor, add to a draft; None when they take any of it back."""
    for fact in facts:
        if fact.type == "retry" and any(first <= after for first, _ in fact.data.get("superseded", ())):
            return None
    return {"final": False, "since": after, **_joinable(fold(facts))}


def whole(state: RunState) -> dict[str, Any] | None:
    """All of the draft, for a reader who joins: it takes the place of what they have. None once there is a result."""
    if state.result is not None:
        return None
    return {"since": None, **_joinable(state), **(state.partial or {}), "final": False}


def _joinable(state: RunState) -> dict[str, Any]:
    return {
        "sections": {name: section_text(state, name) for name in state.sections},
        "findings": [{"item": item, "seq": seq, "value": dict(value)} for item, (seq, value) in state.findings.items()],
    }
