"""Text that is held back until a checkpoint has passed, and redacted before the log or the author gets it.

What is released depends on the text alone, never on how the model's server cut it into pieces. So every decision is
made on a window that only the text defines: a checkpoint is judged with exactly `span_max` characters after it, or with
the end of the text, however much more has already come. A checkpoint inside a match of a redaction is no checkpoint.
The price is that text appears `span_max` characters after it was said; without redactions that is not waited for.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from worker.stops import WorkflowFailed

# How many characters of the held text may go. It is asked at every end of a word, and once more, with True, when the
# model is done: what it does not let go then is dropped.
Check = Callable[[str, bool], int]
Hold = Literal["word", "sentence", "section"] | Check

HOLD_CHARS_MAX: Final = 4_000
SPAN_MAX: Final = 120
# Each says by its own last character that it is a checkpoint, so that one never moves when more text comes.
_WORD: Final = re.compile(r"[\s,]")
_CHECKPOINTS: Final = {
    "word": _WORD,
    "sentence": re.compile(r"[.!?…][\"'”’»)\]]*\s|[。！？]|\n"),
    "section": re.compile(r"\n[ \t]*\n"),
}


@dataclass(frozen=True, slots=True)
class Redaction:
    """What must not appear, and what appears in its place.

    A match is found if it shows itself within `span_max` characters of where it begins; how long it then goes on does
    not matter, as long as it fits into what may be held.
    """

    pattern: str
    replacement: str = "[redacted]"
    flags: int = 0
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        compiled = re.compile(self.pattern, self.flags)
        if compiled.match("") is not None:
            raise ValueError(f"the pattern {self.pattern!r} matches nothing at all, so it would match everywhere")
        object.__setattr__(self, "compiled", compiled)


@dataclass(frozen=True, slots=True)
class Guard:
    """What a call holds back and redacts."""

    hold: Hold = "word"
    redact: tuple[Redaction, ...] = ()
    hold_chars_max: int = HOLD_CHARS_MAX
    span_max: int = SPAN_MAX

    def __post_init__(self) -> None:
        if not callable(self.hold) and self.hold not in _CHECKPOINTS:
            raise ValueError(f"hold must be a function or one of {', '.join(_CHECKPOINTS)}")
        if not 0 < self.span_max < self.hold_chars_max:
            raise ValueError("span_max must be positive and smaller than hold_chars_max")

    def holder(self) -> "Holder":
        """One text's way through it."""
        return Holder(self)


def guard_of(hold: Hold | None, redact: Sequence[Redaction], hold_chars_max: int = HOLD_CHARS_MAX) -> Guard | None:
    """The guard of a call that asks for these; none where it asks for nothing."""
    return Guard(hold or "word", tuple(redact), hold_chars_max) if hold or redact else None


class Holder:
    """Between the model and the log, for one text. What it holds is only here: it is dropped with the attempt."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._pattern = _WORD if callable(guard.hold) else _CHECKPOINTS[guard.hold]
        self._span = guard.span_max if guard.redact else 0
        self._text = ""  # what was released last, for looking back, then what is held
        self._released = 0  # where in it the held text begins
        self._judged = 0  # the last checkpoint in it that was judged, so that none is judged twice

    @property
    def holds(self) -> int:
        """How many characters are held."""
        return len(self._text) - self._released

    def feed(self, piece: str) -> Iterator[str]:
        """Take a piece; give what may go now. Raises WorkflowFailed when too much is held: nothing of that goes."""
        self._text += piece
        yield from self._go(ended=False)
        if self.holds > self._guard.hold_chars_max:
            raise self._too_much()

    def close(self) -> Iterator[str]:
        """The text ended well: give what is left. After any other end it must not be asked."""
        yield from self._go(ended=True)
        until = len(self._text)
        if callable(self._guard.hold):
            until = self._allowed(until, ended=True)
        rest = self._clean(until, self._matches(len(self._text)))
        self._text, self._released, self._judged = "", 0, 0
        if rest:
            yield rest

    def _go(self, *, ended: bool) -> Iterator[str]:
        while (place := self._checkpoint()) is not None:
            if not ended and place + self._span > len(self._text):
                return
            if place - self._released > self._guard.hold_chars_max - self._span and (
                self.holds > self._guard.hold_chars_max
            ):
                raise self._too_much()
            self._judged = place
            until = self._allowed(place, ended=False)
            matches = self._matches(min(place + self._span, len(self._text)))
            if until > self._released and not any(start < until < end for start, end, _ in matches):
                released = self._clean(until, matches)
                self._forget(until)
                yield released

    def _checkpoint(self) -> int | None:
        for match in self._pattern.finditer(self._text, self._released):
            if match.end() > self._judged:
                return match.end()
        return None

    def _allowed(self, place: int, *, ended: bool) -> int:
        """Up to where the held text may go, as far as the guard's own rule is concerned."""
        if not callable(self._guard.hold):
            return place
        count = self._guard.hold(self._text[self._released : place], ended)
        return self._released + max(0, min(count, place - self._released))

    def _clean(self, until: int, matches: list[tuple[int, int, str]]) -> str:
        """The held text up to here, redacted."""
        parts: list[str] = []
        at = self._released
        for start, end, replacement in matches:
            if start >= until:
                break
            parts += (self._text[at:start], replacement)
            at = end
        parts.append(self._text[at:until])
        return "".join(parts)

    def _matches(self, window: int) -> list[tuple[int, int, str]]:
        """Everything to be redacted in the held text up to here, in order; what overlaps is one."""
        if not self._guard.redact:
            return []
        found = sorted(
            (match.start(), match.end(), redaction.replacement)
            for redaction in self._guard.redact
            for match in redaction.compiled.finditer(self._text, self._released, window)
            if match.end() > match.start()
        )
        joined: list[tuple[int, int, str]] = []
        for start, end, replacement in found:
            if joined and start < joined[-1][1]:
                first, last, said = joined[-1]
                joined[-1] = (first, max(last, end), said)
            else:
                joined.append((start, end, replacement))
        return joined

    def _forget(self, until: int) -> None:
        """What went is kept only as far as a pattern may look back."""
        drop = max(0, until - self._span)
        self._text = self._text[drop:]
        self._released = until - drop
        self._judged = max(self._released, self._judged - drop)

    def _too_much(self) -> WorkflowFailed:
        """Closed for good: what is held is gone, and the attempt with it."""
        self._text, self._released, self._judged = "", 0, 0
        most = self._guard.hold_chars_max
        message = f"More than {most} characters of the draft were held back, and none of them may be shown."
        return WorkflowFailed("limit_hold_chars_max", message)
