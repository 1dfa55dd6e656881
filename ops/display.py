"""How a run is shown while it goes on: JSON for programs, plain lines for pipes, a live picture for a terminal."""

import sys
import threading
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.text import Text

from eventstore.domain.lifecycle import TERMINAL_STATUSES
from eventstore.domain.record import Fact, to_us
from eventstore.domain.run import RunState, fold
from eventstore.domain.transcript import milestones, section_text
from ops.client import Frame
from ops.printable import as_json, one_line, outline, printable, words
from ops.story import Story, checks, terms, unwatched

DRAFT_LINES: Final = 8
FINDINGS: Final = 6
NOTES: Final = 3
RISKS: Final = {"high": "bold red", "medium": "yellow", "low": "green"}


class Display(Protocol):
    """Shows frames as they come; a context that puts the terminal back in order."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def show(self, frame: Frame) -> None:
        """One more event."""

    def notice(self, text: str) -> None:
        """Something about the connection, not about the run."""


class JsonLines:
    """Each event as one line of JSON on standard output."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, frame: Frame) -> None:
        print(as_json(frame.data if frame.seq else {"type": frame.name, **frame.data}), file=self._out, flush=True)

    def notice(self, text: str) -> None:
        print(f"runwire: {one_line(text)}", file=sys.stderr, flush=True)


class PlainLines:
    """The story of the run on standard output, one line for each thing that happened."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._story = Story()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, frame: Frame) -> None:
        for line in self._story.lines(frame):
            print(line, file=self._out, flush=True)

    def notice(self, text: str) -> None:
        print(f"runwire: {one_line(text)}", file=sys.stderr, flush=True)


class LivePicture:
    """Milestones, findings and the growing draft, redrawn in place; the ending is printed below and stays."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._state = RunState()
        self._waiting: list[Fact] = []
        self._lock = threading.Lock()  # the picture is drawn by a thread of its own
        self._notes: list[str] = []
        self._spinner = Spinner("dots")
        self._end: Frame | None = None
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=10, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._live.__exit__(kind, error, at)
        if self._end is not None:
            self._console.print(ending(self._end))
            self._end = None

    def show(self, frame: Frame) -> None:
        with self._lock:
            if not frame.seq:
                self._note("pieces of draft text were joined to keep up; results are complete")
                return
            self._waiting.append(fact(frame))
            data = frame.data.get("data") or {}
            if frame.name == "retry":
                self._note(f"retry: {data.get('message') or words(str(data.get('reason', '')))}")
            elif frame.name == "started" and (data.get("attempt") or 1) > 1:
                self._note("another worker took over where the last one stopped")
            elif frame.terminal:
                self._end = frame

    def notice(self, text: str) -> None:
        with self._lock:
            self._note(text)

    def _note(self, text: str) -> None:
        self._notes = [*self._notes, one_line(text)][-NOTES:]

    def _picture(self) -> RenderableType:
        with self._lock:
            # Folded here and not at each frame: a fold copies the state once, however many events it takes in.
            if self._waiting:
                self._state = fold(self._waiting, self._state)
                self._waiting = []
            state, notes, ended = self._state, list(self._notes), self._end is not None
        parts: list[RenderableType] = [_heading(state), *self._steps(state, ended=ended)]
        if state.findings:
            parts.append(_findings(state))
        if not ended and (draft := _draft(state, self._console.width)):
            parts.append(draft)
        parts += [Text(one, style="bold yellow") for one in ([] if ended else questions(state))]
        parts += [Text(note, style="yellow") for note in notes]
        return Group(*parts)

    def _steps(self, state: RunState, *, ended: bool) -> list[RenderableType]:
        rows: list[RenderableType] = []
        for step in milestones(state):
            label = Text(one_line(str(step.get("label"))))
            if step["place"] == "done":
                rows.append(Text("✔ ", style="green") + label)
            elif step["place"] == "to_come":
                rows.append(Text("  ") + Text(label.plain, style="dim"))
            elif ended:
                rows.append(Text("✖ ", style="red") + label + Text(" – stopped here", style="dim"))
            else:
                self._spinner.update(text=Text(label.plain, style="bold") + Text(_detail(state), style="dim"))
                rows.append(self._spinner)
        return rows


def display_for(*, as_json_lines: bool, whole: bool = True) -> Display:
    """The display that fits where standard output goes. A picture needs the whole run, from its first event on."""
    if as_json_lines:
        return JsonLines(sys.stdout)
    console = Console(highlight=False, markup=False, emoji=False)
    if whole and console.is_terminal and not console.is_dumb_terminal:
        return LivePicture(console)
    return PlainLines(sys.stdout)


def questions(state: RunState) -> list[str]:
    """What somebody is asked at the moment."""
    return [
        one_line(f"Waiting for {asked.get('to') or 'somebody'}: {asked.get('question') or 'a question'} (event {seq})")
        for seq, asked in state.questions.items()
        if "decision" not in asked
    ]


def fact(frame: Frame) -> Fact:
    """A frame as the domain knows it."""
    at = frame.data.get("at")
    at_us = to_us(datetime.fromisoformat(at)) if isinstance(at, str) else 0
    return Fact(frame.seq, frame.name, at_us, int(frame.data.get("attempt") or 0), frame.data.get("data") or {})


def ending(frame: Frame) -> RenderableType:
    """The terminal event: the validated result, or what there is of a partial one."""
    data: Mapping[str, Any] = frame.data.get("data") or {}
    if frame.name == "result" and frame.data.get("final") is True:
        body, title, style = data.get("output", data), f"Result – validated, event {frame.seq}", "green"
    elif frame.name == "cancelled":
        reason = one_line(str(data.get("reason") or "no reason given"))
        body, title, style = data.get("partial") or {}, f"Cancelled: {reason} – partial result, not final", "yellow"
    else:
        message = one_line(str(data.get("message") or "no details"))
        body, title, style = data.get("partial") or {}, f"Failed: {message} – partial result, not final", "red"
    return Panel(Text("\n".join(outline(body)) or "nothing"), title=Text(title), border_style=style, title_align="left")


def _heading(state: RunState) -> Text:
    title = one_line(str(state.title or words(str(state.workflow or "run"))), 120)
    told = f" · {state.status or '…'}"
    if state.on_disconnect and state.status not in TERMINAL_STATUSES:
        told += f" · {unwatched(state.on_disconnect)}"
    return Text(title, style="bold") + Text(told)


def _detail(state: RunState) -> str:
    told = state.milestone or {}
    if told.get("of"):
        return f" – {told.get('done') or 0} of {told['of']}"
    return f" – {one_line(str(told['detail']))}" if told.get("detail") else ""


def _findings(state: RunState) -> RenderableType:
    told = list(state.findings.items())
    lines = [Text(f"Findings: {len(told)}", style="bold")]
    for item, (_, value) in told[-FINDINGS:]:
        style = RISKS.get(str(value.get("risk", value.get("severity", ""))), "")
        line = Text(f"  {one_line(item)}", style=style, no_wrap=True, overflow="ellipsis")
        lines.append(line.append(f"  {terms(value)}" if value else "", style="dim"))
    if state.validation is not None:
        lines.append(Text(checks(state.validation)))
    return Group(*lines)


def _draft(state: RunState, width: int) -> RenderableType | None:
    """The last lines of the draft, set apart from anything final."""
    if not state.sections:
        return None
    section = list(state.sections)[-1]
    room = max(20, width - 4)
    shown = printable(section_text(state, section))[-2 * room * DRAFT_LINES :]
    lines = list(Text(shown, style="italic dim").wrap(Console(width=room), room))[-DRAFT_LINES:]
    title = Text(f"Draft, not final – {words(section)}")
    return Panel(Text("\n").join(lines), title=title, border_style="dim", title_align="left")
