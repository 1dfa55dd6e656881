"""What a run did before, read from its log: which calls are closed and with what, and what was left open."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from eventstore.domain.record import Fact

CLOSING: Final = frozenset({"step", "model_call", "tool_result", "finding", "validation", "escalation"})
OPENING: Final = frozenset({"token", "reasoning", "tool_call"})


def ranges(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """Sequence numbers as closed ranges, in order."""
    found: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if found and seq == found[-1][1] + 1:
            found[-1] = (found[-1][0], seq)
        else:
            found.append((seq, seq))
    return found


@dataclass(slots=True)
class History:
    """The memory of a run. Everything in it comes from the log."""

    accepted: Fact
    last_seq: int = 0
    closed: dict[str, Fact] = field(default_factory=dict)
    milestones: set[str] = field(default_factory=set)
    attempts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    open: dict[str, list[int]] = field(default_factory=dict)
    handovers: int = 0
    started: bool = False
    code: str | None = None
    cancel: Fact | None = None

    def left_open(self) -> list[tuple[str, list[tuple[int, int]]]]:
        """Calls that an earlier owner began and never closed, with what they had already said."""
        return [(key, ranges(seqs)) for key, seqs in self.open.items()]


def read_history(facts: Sequence[Fact]) -> History:
    """Walk the log once."""
    history = History(accepted=facts[0])
    pieces: dict[str, list[tuple[int, str]]] = {}
    for fact in facts:
        history.last_seq = fact.seq
        data = fact.data
        if fact.type in CLOSING and not (fact.type == "step" and data["status"] == "intent"):
            key = data["key"]
            history.closed[key] = fact
            history.open.pop(key, None)
            if fact.type in ("model_call", "step"):
                history.texts[key] = "".join(text for _, text in pieces.pop(key, ()))
        elif fact.type in OPENING:
            key = data["key"] if fact.type == "tool_call" else data["step"]
            history.open.setdefault(key, []).append(fact.seq)
            if fact.type == "token":
                pieces.setdefault(key, []).append((fact.seq, data["text"]))
        elif fact.type == "progress":
            history.milestones.add(data["key"])
        elif fact.type == "retry":
            _retried(history, pieces, fact)
        elif fact.type == "started":
            history.started, history.code = True, data["code"]
        elif fact.type == "cancel_requested":
            history.cancel = fact
    return history


def _retried(history: History, pieces: dict[str, list[tuple[int, str]]], fact: Fact) -> None:
    key, dead = fact.data["key"], fact.data["superseded"]

    def alive(seq: int) -> bool:
        return not any(first <= seq <= last for first, last in dead)

    if fact.data["reason"] == "handover" and fact.data["what"] == "run":
        history.handovers += 1
    history.attempts[key] = history.attempts.get(key, 0) + 1
    for open_key in list(history.open):
        kept = [seq for seq in history.open[open_key] if alive(seq)]
        if kept:
            history.open[open_key] = kept
        else:
            del history.open[open_key]
    for step, told in pieces.items():
        pieces[step] = [(seq, text) for seq, text in told if alive(seq)]
