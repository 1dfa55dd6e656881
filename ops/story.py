"""What a run's events say in plain lines: one for each milestone, finding, check and ending, for pipes and for logs.

Draft text is held back until the next milestone is told, so that most text that a later attempt replaces is never
printed; what was printed before is taken back in words.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ops.client import Frame
from ops.printable import as_json, one_line, printable, words

LONGEST_VALUE: Final = 160
INDENT: Final = " " * 6

Data = Mapping[str, Any]


class Story:
    """Turns frames into lines. One story tells one run, from any place in its log on."""

    def __init__(self) -> None:
        self._draft: list[tuple[int, str, str]] = []  # seq, section, text: said, and not told yet
        self._told_to = 0  # draft text up to this seq was told
        self._milestone: object = ()

    def lines(self, frame: Frame) -> list[str]:
        """The lines that this event adds."""
        data: Data = frame.data.get("data") or {}
        if frame.name == "token":
            if data.get("shape", "text") == "text":
                self._draft.append((frame.seq, str(data.get("section", "")), str(data.get("text", ""))))
            return []
        if frame.name == "retry":
            return self._retry(data)
        if frame.name == "progress":
            return self._progress(data)
        if frame.name == "lagging":
            return [f"{INDENT}(pieces of draft text were joined here to keep up; results are complete)"]
        tell = TELL.get(frame.name)
        lines = tell(data, frame) if tell is not None else []
        return [*self._drafted(), *lines] if frame.terminal else lines

    def _progress(self, data: Data) -> list[str]:
        if data.get("state") == self._milestone:
            return []  # the same milestone, further on
        self._milestone = data.get("state")
        detail = data.get("detail")
        line = f"[{data.get('index')}/{data.get('total')}] {one_line(str(data.get('label')))}"
        return [*self._drafted(), line + (f" – {one_line(str(detail))}" if detail else "")]

    def _retry(self, data: Data) -> list[str]:
        dead = data.get("superseded") or []
        self._draft = [one for one in self._draft if not any(first <= one[0] <= last for first, last in dead)]
        why = one_line(str(data.get("message") or words(str(data.get("reason", "unknown")))), LONGEST_VALUE).rstrip(".")
        after = data.get("next_attempt")
        wait = f" in {data['wait_s']:.1f} s" if data.get("wait_s") else ""
        lines = [f"{INDENT}Retry: {why}; " + (f"attempt {after} follows{wait}" if after else "no further attempt")]
        if any(first <= self._told_to for first, _ in dead):
            spans = ", ".join(f"{first}–{last}" for first, last in dead)
            lines.append(f"{INDENT}Taken back: what events {spans} said above, replaced by the next attempt")
        return lines

    def _drafted(self) -> list[str]:
        sections: dict[str, str] = {}
        for seq, section, text in self._draft:
            sections[section] = sections.get(section, "") + text
            self._told_to = max(self._told_to, seq)
        self._draft = []
        return [
            f"{INDENT}Draft {words(section)} (not final) | {line}"
            for section, text in sections.items()
            for line in printable(text).split("\n")
            if line.strip()
        ]


def terms(value: Any) -> str:
    """A finding's or a tool's value on one line."""
    if not isinstance(value, Mapping):
        return one_line(str(value), LONGEST_VALUE)
    return "; ".join(
        f"{words(str(name))}: {one_line(inner if isinstance(inner, str) else as_json(inner), LONGEST_VALUE)}"
        for name, inner in value.items()
    )


def checks(data: Data) -> str:
    """A validation on one line."""
    told = data.get("checks") or []
    failed = [
        one_line(f"{one.get('name')}" + (f" ({one['detail']})" if one.get("detail") else ""), LONGEST_VALUE)
        for one in told
        if not one.get("passed")
    ]
    if data.get("passed"):
        return f"Validation passed: {len(told) - len(failed)} of {len(told)} checks" if told else "Validation passed"
    return "Validation failed: " + ("; ".join(failed) or "no details")


def _accepted(data: Data, frame: Frame) -> list[str]:
    title = one_line(str(data.get("title") or "untitled"), LONGEST_VALUE)
    lines = [f"Run {frame.data.get('run_id')}: {title} ({data.get('workflow')})"]
    if data.get("continues"):
        lines.append(f"{INDENT}It takes up what run {data['continues'].get('run_id')} had finished")
    return [*lines, *([f"{INDENT}It {unwatched(data['on_disconnect'])}"] if data.get("on_disconnect") else [])]


def unwatched(policy: Data) -> str:
    """What becomes of a run that nobody reads."""
    return f"stops when nobody watches for {float(policy.get('cancel_after_s') or 0):g} s"


def _started(data: Data, frame: Frame) -> list[str]:
    attempt = int(data.get("attempt") or frame.data.get("attempt") or 1)
    return [f"{INDENT}Another worker took over (attempt {attempt})"] if attempt > 1 else []


def _tool_result(data: Data, frame: Frame) -> list[str]:
    said = data.get("summary") or data.get("status") or "answered"
    return [f"{INDENT}Tool {words(str(data.get('tool')))}: {one_line(str(said), LONGEST_VALUE)}"]


def _finding(data: Data, frame: Frame) -> list[str]:
    value = data.get("value")
    item = one_line(str(data.get("item", frame.seq)), LONGEST_VALUE)
    return [f"{INDENT}Finding {item}" + (f": {terms(value)}" if value else "")]


def _validation(data: Data, frame: Frame) -> list[str]:
    return [INDENT + checks(data)]


def _escalation(data: Data, frame: Frame) -> list[str]:
    who = f" {one_line(str(data['to']), LONGEST_VALUE)}" if data.get("to") else ""
    lines = [
        f"{INDENT}Asked{who} (event {frame.seq}): {one_line(str(data.get('question') or 'a question'), LONGEST_VALUE)}"
    ]
    choices = ", ".join(one_line(str(one), LONGEST_VALUE) for one in data.get("choices") or ())
    return [*lines, *([f"{INDENT}Choices: {choices}"] if choices else [])]


def _decision(data: Data, frame: Frame) -> list[str]:
    said = data.get("choice") or (terms(data["answer"]) if data.get("answer") is not None else "")
    told = f": {one_line(str(said), LONGEST_VALUE)}" if said else ""
    if data.get("because") == "wait_over":
        return [f"{INDENT}Nobody answered in time{told}"]
    who = f" by {one_line(str(data['by'].get('subject')), LONGEST_VALUE)}" if data.get("by") else ""
    note = f" – {one_line(str(data['note']), LONGEST_VALUE)}" if data.get("note") else ""
    return [f"{INDENT}Answered{who}{told}{note}"]


def _cancel_requested(data: Data, frame: Frame) -> list[str]:
    return [f"{INDENT}Stop was asked for: {one_line(str(data.get('reason') or 'no reason given'), LONGEST_VALUE)}"]


def _result(data: Data, frame: Frame) -> list[str]:
    return [f"Result (validated, final, event {frame.seq}): {as_json(data.get('output', data))}"]


def _cancelled(data: Data, frame: Frame) -> list[str]:
    reason = one_line(str(data.get("reason") or "no reason given"), LONGEST_VALUE)
    return [f"Cancelled (event {frame.seq}): {reason}", *_partial(data)]


def _error(data: Data, frame: Frame) -> list[str]:
    message = one_line(str(data.get("message") or "no details"), LONGEST_VALUE)
    hint = " A new run may help." if data.get("retryable") else ""
    lines = [f"Failed (event {frame.seq}, {data.get('code', 'error')}): {message}{hint}", *_partial(data)]
    # Whatever it failed of, what it had finished need not be done again.
    return [*lines, f"To go on from here in a new run: runwire run --continue {frame.data.get('run_id')}"]


def _partial(data: Data) -> list[str]:
    return [f"Partial result (not final): {as_json(data['partial'])}"] if data.get("partial") else []


TELL: Final[Mapping[str, Callable[[Data, Frame], list[str]]]] = {
    "accepted": _accepted,
    "started": _started,
    "tool_result": _tool_result,
    "finding": _finding,
    "validation": _validation,
    "escalation": _escalation,
    "decision": _decision,
    "cancel_requested": _cancel_requested,
    "result": _result,
    "cancelled": _cancelled,
    "error": _error,
}
