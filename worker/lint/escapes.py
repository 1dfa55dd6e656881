"""`# runwire: ok - reason`: how an author says that a finding is meant, and why."""

import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from worker.lint.finding import Finding

ESCAPE: Final = re.compile(r"#\s*runwire:\s*ok\b[\s:\-–—]*(.*)$")
REASON_WORDS_MIN: Final = 2


@dataclass(frozen=True, slots=True)
class Escape:
    """One escape: where it stands, for which line, and the reason given."""

    line: int
    covers: int
    reason: str

    @property
    def has_reason(self) -> bool:
        return len(self.reason.split()) >= REASON_WORDS_MIN


def escapes(text: str) -> list[Escape]:
    """All of a file. One on a line of its own is for the next line of code."""
    found, waiting = [], list[tuple[int, str]]()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and (match := ESCAPE.search(token.string)):
                if token.line[: token.start[1]].strip():
                    found.append(Escape(token.start[0], token.start[0], match[1].strip()))
                else:
                    waiting.append((token.start[0], match[1].strip()))
            elif waiting and token.type not in _NO_CODE:
                found += [Escape(line, token.start[0], reason) for line, reason in waiting]
                waiting.clear()
    except (tokenize.TokenError, SyntaxError):  # what Python can parse and its tokenizer cannot has no escapes
        return found
    return found


_NO_CODE: Final = frozenset({tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT})


def apply(findings: list[Finding], by_path: Mapping[str, list[Escape]]) -> Iterator[Finding]:
    """What is left of the findings, and what there is to say of the escapes."""
    used: set[tuple[str, int]] = set()
    for finding in findings:
        covering = [each for each in by_path.get(finding.path, ()) if each.covers == finding.line]
        used |= {(finding.path, each.line) for each in covering}
        if not any(each.has_reason for each in covering):
            yield finding
    for path, found in by_path.items():
        for each in found:
            if not each.has_reason:
                what = "an escape without its reason has no effect"
                yield Finding(path, each.line, 1, "escape", "error", what, "write `# runwire: ok - why this is safe`")
            elif (path, each.line) not in used:
                what = "there is nothing here to escape"
                yield Finding(path, each.line, 1, "escape", "warning", what, "remove the comment")
