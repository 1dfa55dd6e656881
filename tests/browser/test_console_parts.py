"""The console's pure parts, run in Chromium: its reading of a stream, and its fold beside the server's own."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from playwright.async_api import Page

from eventstore.domain.record import Fact
from eventstore.domain.run import fold
from tests.browser.recorded import PLAN, Recorded, console_app, served

STREAM = (
    "retry: 2000\nid: 1\nevent: accepted\ndata: {\"a\":\ndata: 1}\n\n"
    ":\n:\n"
    "id: 2\r\nevent: token\r\ndata: zwei – zwölf\r\n\r\n"
    "data\n\n"
    "event: left\nid: 3\ndata: three\n\n"
    "event: never finished\ndata: x\n"
)  # fmt: skip
HEARD = [
    {"id": "1", "event": "accepted", "data": '{"a":\n1}'},
    {"id": "2", "event": "token", "data": "zwei – zwölf"},
    {"id": "2", "event": "message", "data": ""},
    {"id": "3", "event": "left", "data": "three"},
]
# One run with everything that changes what a person sees; whole values only.
STORY: list[tuple[str, dict[str, Any]]] = [
    ("accepted", {"workflow": "contract_review", "title": "NDA", "milestones": PLAN}),
    ("started", {"attempt": 1}),
    ("progress", {**PLAN[0], "index": 1, "total": 7}),
    ("token", {"text": "one ", "section": "summary", "step": "draft", "attempt": 1}),
    ("token", {"text": "{", "section": "data", "step": "draft", "attempt": 1, "shape": "json"}),
    ("finding", {"item": "a", "value": {"title": "A"}}),
    ("token", {"text": "lost ", "section": "summary", "step": "draft", "attempt": 1}),
    ("finding", {"item": "b", "value": {"title": "lost"}}),
    ("retry", {"reason": "cut", "superseded": [[7, 8]], "attempt": 1, "next_attempt": 2, "wait_s": 0.5}),
    ("started", {"attempt": 2, "resumed_from": 3}),
    ("progress", {**PLAN[2], "index": 3, "total": 7, "done": 1, "of": 4}),
    ("token", {"text": "two", "section": "summary", "step": "draft", "attempt": 2}),
    ("finding", {"item": "a", "value": {"title": "A again"}}),
    ("token", {"text": "note", "section": "comments", "step": "draft", "attempt": 2}),
    ("validation", {"passed": True, "checks": []}),
    ("escalation", {"question": "Keep it?", "choices": ["keep", "drop"], "to": "reviewer", "wait_s": 60}),
    ("started", {"attempt": 2, "resumed_from": 16}),
    ("decision", {"escalation": 16, "because": "answered", "choice": "keep"}),
    ("escalation", {"question": "And this?", "choices": ["yes"], "to": "reviewer", "wait_s": 60}),
    ("cancel_requested", {"by": {"subject": "u", "role": "user"}, "reason": "no need"}),
    ("started", {"attempt": 3}),
    ("cancelled", {"reason": "no need", "partial": {"sections": {}, "findings": []}, "missing": []}),
]


@pytest_asyncio.fixture
async def console(page: Page) -> AsyncIterator[Page]:
    async with served(console_app(Recorded())) as url:
        await page.goto(url)
        yield page


async def test_a_stream_cut_anywhere_gives_the_same_events(console: Page) -> None:
    heard = await console.evaluate(
        """async (stream) => {
            const { sseParser } = await import("/stream.js");
            const cuttings = [Array.from(stream)];
            for (let at = 0; at <= stream.length; at++) cuttings.push([stream.slice(0, at), stream.slice(at)]);
            return cuttings.map((parts) => {
                const heard = [];
                const feed = sseParser((event) => heard.push(event));
                parts.forEach(feed);
                return heard;
            });
        }""",
        STREAM,
    )
    assert len(heard) == len(STREAM) + 2
    assert all(one == HEARD for one in heard)


async def test_the_console_and_the_server_fold_a_run_to_the_same_state_at_every_seq(console: Page) -> None:
    frames = [
        {"seq": seq, "type": type_, "at": "2026-11-20T07:12:53.000000Z", "attempt": 1, "final": False, "data": data}
        for seq, (type_, data) in enumerate(STORY, 1)
    ]
    shown = await console.evaluate(
        """async (frames) => {
            const { fold, newRun } = await import("/fold.js");
            const run = newRun();
            return frames.map((frame) => {
                fold(run, frame);
                fold(run, frame); // a frame that comes twice changes nothing
                const sections = {};
                for (const piece of run.pieces) sections[piece.section] = (sections[piece.section] ?? "") + piece.text;
                const findings = Object.fromEntries(run.findings.map((one) => [one.item, one.value]));
                const questions = run.questions.map((one) => [one.seq, one.decision?.choice ?? null]);
                return structuredClone({ status: run.status, index: run.index, sections, findings, questions });
            });
        }""",
        frames,
    )
    state = None
    for seq, ((type_, data), told) in enumerate(zip(STORY, shown, strict=True), 1):
        state = fold([Fact(seq, type_, 0, int(data.get("attempt", 1)), json.loads(json.dumps(data)))], state)
        assert told == {
            "status": state.status,
            "index": (state.milestone or {}).get("index", 0),
            "sections": {name: "".join(piece.text for piece in pieces) for name, pieces in state.sections.items()},
            "findings": {item: value for item, (_, value) in state.findings.items()},
            "questions": [[at, one.get("decision", {}).get("choice")] for at, one in state.questions.items()],
        }
