"""Names the calls of a run and answers those that the log already closed.

A call is named `name#occurrence`; its place is its ordinal in the run, taken when it starts. After a crash the workflow
runs again from the top and each call that was closed before returns what the log holds. If the code now asks for
something else at that name, the two histories do not belong together: the run ends with `diverged`, unmixed.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from eventstore.domain.record import Fact
from worker.digests import digest
from worker.history import History
from worker.stops import Diverged


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the workflow: its name in the log, its place, the digest of its arguments, what it did before."""

    key: str
    place: int
    args: str
    attempt: int
    before: Fact | None

    def closing(self) -> dict[str, Any]:
        """The fields that its closing event carries."""
        return {"key": self.key, "place": self.place, "args": self.args, "attempt": self.attempt}


class Memo:
    """Hands out calls in the order in which the workflow makes them."""

    def __init__(self, history: History, code: str) -> None:
        self._history = history
        self._same_code = history.code in (None, code)
        self._occurrences: Counter[str] = Counter()
        self._place = 0

    def call(self, kind: str, name: str, *arguments: Any) -> Call:
        """The next call of this name. Raises Diverged when the log tells of another call at it."""
        self._occurrences[name] += 1
        self._place += 1
        key, args = f"{name}#{self._occurrences[name]}", digest(arguments)
        before = self._history.closed.get(key)
        if before is not None:
            told = (before.type, before.data["place"], before.data["args"] if self._same_code else args)
            now = (kind, self._place, args)
            if told != now:
                raise Diverged(
                    f"{key}: the log has {told[0]} at place {told[1]} (args {told[2][:8]}, seq {before.seq}), "
                    f"the code asks for {now[0]} at place {now[1]} (args {now[2][:8]})"
                )
        return Call(key, self._place, args, self._history.attempts.get(key, 0) + 1, before)

    def text(self, key: str) -> str:
        """The draft text of a closed call, from its own pieces."""
        return self._history.texts.get(key, "")

    def milestone(self, state: str) -> tuple[str, bool]:
        """The key of the next report of a milestone, and whether the log has it already."""
        name = f"milestone/{state}"
        self._occurrences[name] += 1
        key = f"{name}#{self._occurrences[name]}"
        return key, key in self._history.milestones
