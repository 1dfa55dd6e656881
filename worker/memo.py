"""Names the calls of a run and answers those that the log already closed.

A call is named `branch path/name#occurrence`; its place is its ordinal in its branch, taken when it starts. If the code
asks for something else than the log has at that name or place, or ends without having asked for all that the log has,
the two histories do not belong together: the run ends with `diverged`, unmixed.
"""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from eventstore.domain.record import Fact
from worker.branches import Branch
from worker.digests import digest
from worker.history import Closed, History, branch_of
from worker.stops import Diverged, Misused, Site

KEY_CHARS_MAX: Final = 300

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the workflow: its name in the log, its place, the digest of its arguments, what it did before."""

    key: str
    place: int
    args: str
    attempt: int
    under: str | None
    before: Fact | None

    def closing(self) -> dict[str, Any]:
        """The fields that its closing event carries."""
        told = {"key": self.key, "place": self.place, "args": self.args, "attempt": self.attempt}
        return told if self.under is None else {**told, "under": self.under}


class Memo:
    """Hands out calls in the order in which each branch makes them."""

    def __init__(self, history: History, run_id: UUID, code: str, version: int) -> None:
        self.history = history
        self.run_id = run_id
        self._code = code
        self._version = version
        self._reached: set[str] = set()
        self.changed: set[str] = set()  # calls that the log answers although their arguments are others now

    def call(self, branch: Branch, kind: str, name: str, site: Site, *arguments: Any, key: str | None = None) -> Call:
        """The next call of this name, or the one of this key where a call makes others. Raises Diverged when the log
        tells of another call there."""
        branch.place += 1
        key, args = key or self._next_key(branch, name, site), digest(arguments)
        if len(key) > KEY_CHARS_MAX:
            raise Misused(f"{site}: the name {key[:40]}… is longer than {KEY_CHARS_MAX} characters")
        before = self._recorded(branch, kind, key, args, site)
        self._reached.add(key)
        attempt = self.history.attempts.get(key, 0) + 1
        return Call(key, branch.place, args, attempt, branch.under(), before.fact if before else None)

    def _next_key(self, branch: Branch, name: str, site: Site) -> str:
        if not name or "/" in name or "#" in name:
            raise Misused(f"{site}: {name!r} is no name for a call: it must not be empty nor hold / or #")
        branch.occurrences[name] += 1
        return branch.named(f"{name}#{branch.occurrences[name]}")

    def _recorded(self, branch: Branch, kind: str, key: str, args: str, site: Site) -> Closed | None:
        history, place = self.history, branch.place
        there = history.at(branch.path, place)
        told = there or history.told(key)
        if told is None:
            return None
        fact = told.fact
        moved = (fact.data["key"], fact.data["place"], told.kind) != (key, place, kind)
        same_code = told.code in (None, self._code)
        if moved or (same_code and fact.data["args"] != args):
            self._diverge(branch.path, place, told, f"{kind:<8} {key}  args {args[:4]}  {site}", moved=moved)
        if fact.data["args"] != args:
            if not self.changed:
                logger.info("the log answers for a call whose arguments have changed", run_id=str(self.run_id), key=key)
            self.changed.add(key)
        return history.closed.get(key)

    def same_value(self, branch: Branch, call: Call, name: str, site: Site) -> None:
        """A verdict is on one value: raises Diverged when the log has it of another one, whatever else may differ."""
        told = self.history.closed[call.key]
        if told.fact.data["value_digest"] != name:
            self._diverge(branch.path, call.place, told, f"validate {call.key}  value {name[:4]}  {site}", moved=False)

    def milestone(self, branch: Branch, state: str) -> tuple[str, bool]:
        """The key of the next report of a milestone, and whether the log has it already."""
        name = f"milestone:{state}"
        branch.occurrences[name] += 1
        key = branch.named(f"{name}#{branch.occurrences[name]}")
        return key, key in self.history.milestones

    def pieces(self, key: str) -> tuple[str, ...]:
        """What a closed call said, piece by piece as the log has it."""
        return self.history.closed[key].pieces

    def calls(self, key: str) -> tuple[Fact, ...]:
        """The tools that a closed call of a model asked for, in order."""
        return self.history.closed[key].calls

    def look_back(self, end: str) -> None:
        """The code has ended: raises Diverged when the log holds calls that it never asked for."""
        missed = [told for key, told in self.history.closed.items() if key not in self._reached]
        if missed:
            first = min(missed, key=lambda told: told.fact.seq)
            self._diverge(branch_of(first.fact.data["key"]), first.fact.data["place"], first, end, moved=True)

    def _diverge(self, path: str, place: int, told: Closed, code: str, *, moved: bool) -> None:
        fact = told.fact
        then = f"{told.version}+{(told.code or '')[:4]}"
        first = "restore the order" if moved else "restore the arguments"
        raise Diverged(
            f"run {self.run_id} stopped: code and history disagree (branch {path or 'main'}, place {place})\n"
            f"  history  {fact.type:<8} {fact.data['key']}  args {fact.data['args'][:4]}  seq {fact.seq}, code {then}\n"
            f"  code     {code}, code {self._version}+{self._code[:4]}\n"
            f"  do       {first}, or version={self._version + 1} and branch on run.version, or restart the run"
        )
