"""What a run did before: which calls are closed and with what, which are open, what was taken back.

One owner learns it from the log and goes on learning from what it stores itself, by the same rules. So code that runs
again, in this process because a stream broke or in the next one after a crash, meets the same memory.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from eventstore.domain.events import Usage
from eventstore.domain.record import Fact

CLOSING: Final = frozenset({"step", "model_call", "tool_result", "finding", "validation", "escalation"})
PIECES: Final = frozenset({"token", "reasoning"})

SIBLING: Final = "sibling_failed"  # why a call was stopped: another part of the run had failed
REWOUND: Final = "rewound"  # why a call starts again: a stream that was read beside it broke
NOT_ITS_FAULT: Final = frozenset({SIBLING, REWOUND})  # such attempts cost nothing of what a call may try

Range = tuple[int, int]


def ranges(seqs: Iterable[int]) -> list[Range]:
    """Sequence numbers as closed ranges, in order."""
    return joined((seq, seq) for seq in seqs)


def joined(found: Iterable[Range]) -> list[Range]:
    """Ranges in order, each as long as it can be."""
    told: list[Range] = []
    for first, last in sorted(found):
        if told and first <= told[-1][1] + 1:
            told[-1] = (told[-1][0], max(last, told[-1][1]))
        else:
            told.append((first, last))
    return told


def branch_of(key: str) -> str:
    """The path of the branch in which a call of this key was made; the workflow's own is empty."""
    return key.rpartition("/")[0]


def is_within(key: str, path: str) -> bool:
    """Whether a call of this key was made in this branch, or in one below it."""
    return not path or key.startswith(path + "/")


@dataclass(frozen=True, slots=True)
class Closed:
    """A call that has ended: its closing event, the code that made it, what it said, and where all of that stands."""

    fact: Fact
    code: str | None
    version: int | None
    pieces: tuple[str, ...]
    seqs: tuple[Range, ...]
    effect: bool = False  # whether it did something outside that cannot be undone
    calls: tuple[Fact, ...] = ()  # the tools that a model asked for in it

    @property
    def kind(self) -> str:
        """The type of the event that closes it. The intent of a tool is a step's, and says so; so does what was decided
        in an earlier run."""
        if self.fact.data.get("decided") is not None:
            return "escalation"
        if self.fact.type == "step" and self.fact.data["status"] == "intent":
            return str((self.fact.data.get("output") or {}).get("of", "step"))
        return self.fact.type


@dataclass(slots=True)
class Opened:
    """A call that has said something and has not ended."""

    seqs: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    calls: list[Fact] = field(default_factory=list)
    kept: bool = False  # whoever takes it up goes on after what it has said


@dataclass(slots=True)
class History:
    """The memory of a run. Everything in it stands in the log."""

    accepted: Fact
    last_seq: int = 0
    closed: dict[str, Closed] = field(default_factory=dict)
    places: dict[tuple[str, int], str] = field(default_factory=dict)
    intents: dict[str, Closed] = field(default_factory=dict)  # what was about to be done outside, outcome unknown
    failed: dict[str, Fact] = field(default_factory=dict)  # model calls after which no attempt follows
    spent: Counter[str] = field(default_factory=Counter)  # failures that count to what a call may try
    milestones: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)  # the highest attempt that a call has made so far
    open: dict[str, Opened] = field(default_factory=dict)
    handovers: int = 0
    started: bool = False
    began_us: int | None = None  # when its first owner began
    code: str | None = None
    version: int | None = None
    anew: int | None = None  # the version under which it began anew, if it did
    cancel: Fact | None = None
    at_end: dict[str, Fact] = field(default_factory=dict)  # what is to be done when the run ends, and was not yet
    cleaned: set[str] = field(default_factory=set)
    ended: Fact | None = None  # the first thing that was done because the run ends
    usage: Usage = field(default_factory=Usage)  # all that was spent, what is dead included
    cut: set[str] = field(default_factory=set)  # texts of an earlier run that are gone on with
    cut_tokens: dict[str, int] = field(default_factory=dict)  # values that an earlier run had too little room for
    taken_to: int = 0  # up to where in the earlier run all was taken over
    taken_all: bool = False

    def learn(self, fact: Fact) -> None:
        """One more event of the log."""
        self.last_seq = max(self.last_seq, fact.seq)
        data = fact.data
        if (taken := data.get("taken")) is not None:
            self.taken_to, self.taken_all = taken["seq"], bool(taken.get("last"))
            fact = replace(fact, at_us=taken["at_us"])  # as the code met it when it was made
        if fact.type in PIECES:
            self._hear(data["step"], fact)
        elif fact.type == "tool_call":
            # What a model asks for is part of what it says; what the code asks for is a call of its own.
            self._say(data.get("turn") or data["key"], fact, None)
            if data.get("turn"):
                self.open[data["turn"]].calls.append(fact)
        elif fact.type == "step" and data["status"] == "intent":
            self._try(data["key"], data["attempt"])
            self._place(fact)
            if isinstance(data.get("output"), dict) and data["output"].get("at_end"):
                self.at_end[data["key"]] = fact
            outside = data.get("wait_s") is None  # a sleep has an intent as well, and can be slept again
            code = self.code if taken is None else ""
            self.intents[data["key"]] = Closed(fact, code, self.version, (), ((fact.seq, fact.seq),), effect=outside)
        elif fact.type in CLOSING:
            opened = self.open.pop(data["key"], Opened())
            self.close(fact, tuple(opened.pieces), ranges(opened.seqs), tuple(opened.calls))
        elif fact.type == "progress":
            self.milestones[data["key"]] = fact.seq
        elif fact.type == "retry":
            self._retry(fact)
        elif fact.type == "started":
            self.started, self.code, self.version = True, data["code"], data["workflow_version"]
            self.begin(fact.at_us)
        elif fact.type == "cancel_requested":
            self.cancel = fact

    def begin(self, at_us: int) -> None:
        """Its code begins now, unless it began before. From then on its time runs; that in line does not count."""
        self.began_us = self.began_us or at_us

    def begin_anew(self, version: int) -> None:
        """Nothing was said yet, by code of this version. What was spent stays spent."""
        for said in (self.closed, self.places, self.intents, self.failed, self.spent, self.milestones, self.open):
            said.clear()
        self.cut, self.cut_tokens = set(), {}
        self.anew, self.began_us = version, None

    def close(self, fact: Fact, pieces: tuple[str, ...], said: Sequence[Range], calls: tuple[Fact, ...] = ()) -> None:
        """A call has ended, having said these pieces, and asked for these tools, at these places."""
        key = fact.data["key"]
        self.open.pop(key, None)
        self._spend(fact)
        if self.at_end.pop(key, None) is not None:  # the code has registered it and never learns what came of it
            self.ended = self.ended or fact
            self.cleaned.add(key)
            return
        intent = self.intents.pop(key, None)
        self._place(fact)
        seqs = joined([*said, *(intent.seqs if intent else ()), (fact.seq, fact.seq)])
        effect = intent is not None and intent.effect
        # What was taken over is nobody's code here: it is held to what was called and where, not to how it was asked.
        code = self.code if fact.data.get("taken") is None else ""
        self.closed[key] = Closed(fact, code, self.version, pieces, tuple(seqs), effect, calls)

    def at(self, path: str, place: int) -> Closed | None:
        """What the log has at this place of a branch."""
        key = self.places.get((path, place))
        return None if key is None else self.told(key)

    def told(self, key: str) -> Closed | None:
        """What the log has under this name: a call that has ended, or one that was about to happen."""
        return self.closed.get(key) or self.intents.get(key)

    def left_open(self) -> list[tuple[str, list[Range]]]:
        """Calls that were begun and never closed, with all that is dead with them: what they said, and what was made
        while somebody read them. A call made under another one is named by that one alone. Of one that is gone on with
        nothing is dead."""
        found: list[tuple[str, list[Range]]] = []
        for key, opened in sorted(self.open.items(), key=lambda one: one[1].seqs[0]):
            if not any(first <= opened.seqs[0] <= last for _, dead in found for first, last in dead):
                own = [] if opened.kept else ranges(opened.seqs)
                found.append((key, joined([*own, *self.made_under(key, own)])))
        return found

    def made_under(self, key: str, said: Sequence[Range]) -> list[Range]:
        """Where everything is that was made while this call's stream was read.

        A branch does one thing after the other, so that is whatever it made, in itself or below, after the first piece.
        """
        return self.made_in(branch_of(key), after=said[0][0], but=key) if said else []

    def made_in(self, path: str, *, after: int = 0, but: str | None = None) -> list[Range]:
        """Where everything is that a branch has made since a place in the log."""
        found: list[Range] = []
        for key, closed in self.closed.items():
            if key != but and is_within(key, path) and closed.seqs[0][0] > after:
                found += closed.seqs
        for key, opened in self.open.items():
            if key != but and is_within(key, path) and opened.seqs[0] > after:
                found += ranges(opened.seqs)
        found += [(seq, seq) for key, seq in self.milestones.items() if is_within(key, path) and seq > after]
        return joined(found)

    def bury(self, dead: Sequence[Range]) -> None:
        """Forget what was taken back, as if it had never been said.

        How often a call has failed is remembered: one that fails under a stream which breaks with it would otherwise
        be tried for ever.
        """
        if not dead:
            return

        def lives(seq: int) -> bool:
            return not any(first <= seq <= last for first, last in dead)

        for key, opened in [*self.open.items()]:
            if not lives(opened.seqs[0]):  # an attempt dies as a whole
                del self.open[key]
        for key, closed in [*self.closed.items()]:
            if not lives(closed.fact.seq):
                self._try(key, closed.fact.data["attempt"])
                del self.closed[key]
                self.places.pop((branch_of(key), closed.fact.data["place"]), None)
        self.milestones = {key: seq for key, seq in self.milestones.items() if lives(seq)}

    def _hear(self, key: str, fact: Fact) -> None:
        self._say(key, fact, fact.data["text"] if fact.type == "token" else None)
        if fact.data.get("resume") == "continue":
            self.open[key].kept = True
            if fact.data.get("taken") is not None:
                self.cut.add(key)

    def _say(self, key: str, fact: Fact, text: str | None) -> None:
        self._try(key, fact.data["attempt"])
        opened = self.open.setdefault(key, Opened())
        opened.seqs.append(fact.seq)
        if text is not None:
            opened.pieces.append(text)

    def _spend(self, fact: Fact) -> None:
        if (told := fact.data.get("usage")) is not None:
            self.usage = self.usage + Usage.told(told)

    def _try(self, key: str, attempt: int) -> None:
        self.attempts[key] = max(self.attempts.get(key, 0), attempt)

    def _place(self, fact: Fact) -> None:
        self.places[(branch_of(fact.data["key"]), fact.data["place"])] = fact.data["key"]

    def _retry(self, fact: Fact) -> None:
        data, key = fact.data, fact.data["key"]
        self._spend(fact)
        self.bury([(first, last) for first, last in data["superseded"]])
        self._try(key, data["attempt"])
        if data.get("version") is not None:
            self.begin_anew(data["version"])
        elif data["what"] == "run":
            self.handovers += data["reason"] == "handover"
        elif data.get("cut_tokens") is not None:
            self.cut_tokens[key] = data["cut_tokens"]
        elif data["reason"] not in NOT_ITS_FAULT:
            self.spent[key] += 1
            if key.endswith("/"):  # a branch begins again, and all in it with it
                self._forgive(branch_of(key), key)
            elif data.get("next_attempt") is None and data["what"] == "model":
                self.failed[key] = fact

    def _forgive(self, path: str, but: str) -> None:
        self.failed = {key: fact for key, fact in self.failed.items() if not is_within(key, path)}
        self.spent = Counter({key: n for key, n in self.spent.items() if key == but or not is_within(key, path)})


def read_history(facts: Sequence[Fact]) -> History:
    """Walk the log once."""
    history = History(accepted=facts[0])
    for fact in facts:
        history.learn(fact)
    return history
