"""What a run takes over from the one that it continues: all that it had finished, so that it resumes from its own log.

What ended the earlier run is not taken over: an answer that was cut by its length stays open, and the model is asked to
go on with it; a call that failed is made again, and a person who has decided nothing yet, or whose yes nothing was made
of, is asked again. Only where the code went on after a failure or an answer does it stand, because what followed was
made of it. What was about to be done outside keeps its idempotency key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventstore.domain.events import Usage
from eventstore.domain.record import Fact
from worker.history import Closed, History, Range, branch_of, is_within, read_history
from worker.waits import Asked, read_asked

ENDED_WELL: Final = frozenset({"stop", "tool_calls"})
LENGTH: Final = "length"
CUT_VALUE: Final = "model_length"
DECIDED: Final = ("because", "by", "choice", "answer", "note")
BOUND: Final = ("call_id", "arguments_digest")
CLOSING: Final = ("key", "place", "args", "under", "attempt")


@dataclass(frozen=True, slots=True)
class Copy:
    """An event as the new run has it: where it stood, when it was stored there, and what it replaced there."""

    seq: int
    type: str
    at_us: int
    data: Mapping[str, Any]
    replaces: int | None = None


def taken_over(facts: Sequence[Fact]) -> list[Copy]:
    """What is taken over of a run that has ended, in the order of its log."""
    return sorted(Earlier(facts).copies(), key=lambda copy: copy.seq)


class Earlier:
    """A run that has ended, read once."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._facts = {fact.seq: fact for fact in facts}
        self._history: History = read_history(facts)
        self._asked: Asked = read_asked(facts)
        self._begun = [*_begun(self._history)]
        self._last = facts[-1]
        self._dead = [each for _, dead in self._history.left_open() for each in dead]
        self._history.bury(self._dead)
        self._unfinished = [closed for closed in self._history.closed.values() if self._is_unfinished(closed)]
        self._cut = [closed for closed in self._unfinished if self._is_cut(closed)]
        self._drop()

    def copies(self) -> Iterator[Copy]:
        """All of them, in no order."""
        history = self._history
        for closed in history.closed.values():
            if closed.fact.type == "escalation":
                if self._is_used(closed):
                    yield self._decided(closed.fact)
            else:
                yield from map(self._copy, _seqs(closed.seqs))
        for closed in self._cut:
            yield from self._speech(_seqs(closed.seqs))
        for opened in history.open.values():
            if opened.kept:
                yield from self._speech(opened.seqs)
        for intent in history.intents.values():
            if _is_open(intent.fact):
                yield self._copy(intent.fact.seq)
        yield from map(self._copy, history.milestones.values())
        for fact in history.failed.values():
            if self._lives(fact.seq):
                yield from self._failure(fact)

    def _went_on(self, key: str, seq: int) -> bool:
        """Whether the code began something after this, in the same branch, above it or below."""
        path = branch_of(key)
        return any(
            began > seq and (is_within(other, path) or is_within(key, branch_of(other)))
            for other, began in self._begun
            if other != key
        )

    def _is_unfinished(self, closed: Closed) -> bool:
        fact = closed.fact
        data = fact.data
        if fact.type == "model_call":
            kept = data["finish"] == LENGTH and data.get("on_length") == "keep"
            well = data["finish"] in ENDED_WELL or kept
        elif fact.type == "validation":
            well = False  # it costs nothing to judge again what is to be returned
        else:
            well = data.get("status") != "failed"
        return self._ended_it(data["key"]) or not (well or self._went_on(data["key"], fact.seq))

    def _ended_it(self, key: str) -> bool:
        """Whether the run's own end says so. What was begun after a failure does not always tell that it was caught: a
        branch beside it may have gone on, or somebody read what had come of a stream before it was cut."""
        return self._last.type == "error" and self._last.data.get("call") == key

    def _is_cut(self, closed: Closed) -> bool:
        """Whether it is a text that the model had no room to end."""
        if closed.fact.type != "model_call" or closed.fact.data["finish"] != LENGTH:
            return False
        spoken = (self._facts[seq].data for seq in _seqs(closed.seqs) if self._facts[seq].type == "token")
        return any(data.get("shape", "text") == "text" for data in spoken)

    def _lives(self, seq: int) -> bool:
        return not any(first <= seq <= last for first, last in self._dead)

    def _drop(self) -> None:
        """Forget what is made again, and what was made while somebody read it. An effect's intent stays."""
        for closed in self._unfinished:
            fact, key = closed.fact, closed.fact.data["key"]
            for seq in _seqs(closed.seqs):
                intent = self._facts[seq]
                # A child that has failed is opened anew.
                if intent.type == "step" and intent.data["status"] == "intent" and intent.data.get("child") is None:
                    self._history.intents[key] = Closed(intent, None, None, (), ((seq, seq),), effect=True)
            if fact.type == "model_call" and closed not in self._cut:
                self._dead += self._history.made_under(key, closed.seqs)
        self._cut = [closed for closed in self._cut if self._lives(closed.fact.seq)]
        self._history.bury([*self._dead, *((closed.fact.seq, closed.fact.seq) for closed in self._unfinished)])

    def _is_used(self, question: Closed) -> bool:
        """Whether something was made of the answer: of a yes to a tool's call, the call."""
        fact = question.fact
        decision = self._asked.decisions.get(fact.seq)
        if decision is None:
            return False
        if (call_id := fact.data.get("call_id")) is None:
            return self._went_on(fact.data["key"], decision.seq)
        begun = self._history.intents.keys() | self._history.closed.keys()
        return bool({call_id, call_id.rpartition("/")[0]} & begun)

    def _decided(self, question: Fact) -> Copy:
        decision = self._asked.decisions[question.seq]
        told = {name: decision.data[name] for name in DECIDED if name in decision.data}
        told |= {name: question.data[name] for name in BOUND if name in question.data}
        closing = {name: question.data[name] for name in CLOSING if name in question.data}
        data = {"name": question.data["name"], "status": "ok", "decided": told, **closing}
        return Copy(decision.seq, "step", decision.at_us, data)

    def _speech(self, seqs: Sequence[int]) -> Iterator[Copy]:
        """What was said of an answer that is gone on with."""
        if any(self._facts[seq].type == "token" for seq in seqs):
            for seq in seqs:
                if self._facts[seq].type == "token":
                    yield self._copy(seq, resume="continue")
                elif self._facts[seq].type == "reasoning":
                    yield self._copy(seq)

    def _failure(self, fact: Fact) -> Iterator[Copy]:
        """A model call after which no attempt followed: the code knew that, or it is made again, with more room when it
        had too little."""
        key = fact.data["key"]
        again: dict[str, Any] = {"superseded": [], "usage": None, "version": None}
        if self._went_on(key, fact.seq) and not self._ended_it(key):
            yield self._copy(fact.seq, **again)
        elif fact.data["reason"] == CUT_VALUE:
            spoken = Usage.told(fact.data.get("usage") or {}).output_tokens
            yield self._copy(fact.seq, **again, next_attempt=fact.data["attempt"] + 1, cut_tokens=max(1, spoken))

    def _copy(self, seq: int, **changes: Any) -> Copy:
        """The event as it was, but that what it has cost stays with the run that paid for it."""
        fact = self._facts[seq]
        data = {name: value for name, value in fact.data.items() if name not in ("taken", "replaces")}
        if fact.type == "model_call":
            data["usage"] = {}
        at_us = (fact.data.get("taken") or {}).get("at_us", fact.at_us)
        return Copy(seq, fact.type, at_us, {**data, **changes}, fact.data.get("replaces"))


def _begun(history: History) -> Iterator[tuple[str, int]]:
    """Where each living call began. Milestones tell nothing: a branch above tells them for others."""
    for key, closed in [*history.closed.items(), *history.intents.items()]:
        yield key, closed.seqs[0][0]
    for key, opened in history.open.items():
        yield key, opened.seqs[0]


def _is_open(intent: Fact) -> bool:
    """Whether somebody must still learn what came of it. A run that was to end with the earlier one did; what is to be
    done at the end is registered anew, and a sleep begins anew."""
    data = intent.data
    output = data.get("output")
    if data.get("wait_s") is not None or (isinstance(output, dict) and output.get("at_end")):
        return False
    child = data.get("child")
    return child is None or child["on_cancel"] == "keep"


def _seqs(found: Sequence[Range]) -> list[int]:
    return [seq for first, last in found for seq in range(first, last + 1)]
