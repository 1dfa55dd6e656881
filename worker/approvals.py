"""Calls of tools that a person must allow: each is asked about as it stands, and a no is an answer like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from eventstore.domain import events
from eventstore.domain.record import Fact
from worker.branches import Branch
from worker.declare import Tool
from worker.digests import digest, plain
from worker.stops import Misused, Site
from worker.waits import decision_on, due_us
from worker.work import Work

ALLOW: Final = "allow"
DENY: Final = "deny"
SHOWN_CHARS: Final = 200  # of one argument, in the question


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that somebody has to allow: this one, with these arguments."""

    tool: Tool
    to: str
    call_id: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Word:
    """What the person said."""

    allowed: bool
    note: str | None = None


async def ask_all(work: Work, branch: Branch, site: Site, wanted: Sequence[Wanted]) -> list[Word]:
    """Ask about all of these, then wait until each is decided, holding no worker meanwhile. The branch must be busy."""
    asked = [await _ask(work, branch, site, each) for each in wanted]
    missing = [question for question in asked if decision_on(work.asked, question) is None]
    if missing:
        first = min(missing, key=due_us)
        seqs = [question.seq for question in missing]
        await work.waits.wait(branch, first.data["key"], due_us(first), *seqs)
    return [_word(work, branch, question, each) for question, each in zip(asked, wanted, strict=True)]


async def _ask(work: Work, branch: Branch, site: Site, wanted: Wanted) -> Fact:
    tool = wanted.tool
    question = _question(wanted)
    bound = digest(plain(wanted.arguments))
    call = work.begin(branch, "escalation", f"allow {tool.name}", site, question, wanted.to, wanted.call_id, bound)
    if (above := branch.under()) is not None:
        raise Misused(f"{site}: {tool.name} waits for a person and was called while the stream {above} is read")
    if call.before is not None:
        return call.before
    await work.outside(branch)
    body = events.Escalation(
        name=f"allow {tool.name}",
        question=question,
        choices=[ALLOW, DENY],
        to=wanted.to,
        wait_s=tool.approve_s,
        default=DENY,
        call_id=wanted.call_id,
        arguments_digest=bound,
        **call.closing(),
    )
    return await work.close(branch, body)


def _question(wanted: Wanted) -> str:
    """In it stand only the arguments that may be shown."""
    shown = [
        f"{name}: {str(wanted.arguments[name])[:SHOWN_CHARS]}" for name in wanted.tool.shown if name in wanted.arguments
    ]
    return f"May {wanted.tool.name} be called{' with ' + ', '.join(shown) if shown else ''}?"


def _word(work: Work, branch: Branch, question: Fact, wanted: Wanted) -> Word:
    """A yes is for the call and the arguments that were asked about, and for no other."""
    decision = decision_on(work.asked, question)
    assert decision is not None
    branch.passed(decision.seq, decision.at_us)
    told = question.data.get("decided") or question.data
    bound = (told.get("call_id"), told.get("arguments_digest"))
    same = bound == (wanted.call_id, digest(plain(wanted.arguments)))
    return Word(same and decision.data.get("choice") == ALLOW, decision.data.get("note"))
