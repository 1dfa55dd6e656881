"""What a person reads of a run: milestones, findings, the draft as a draft, the ending as what it is."""

import io
from typing import Any

import pytest
from rich.console import Console

from ops.client import Frame
from ops.display import JsonLines, LivePicture, PlainLines, display_for
from ops.story import Story

PLAN = [{"state": "drafting", "label": "Drafting"}, {"state": "ready", "label": "Ready"}]


def frame(seq: int, name: str, **data: Any) -> Frame:
    at = "2026-11-20T07:12:53.123456Z"
    told = {"seq": seq, "run_id": "run-1", "type": name, "at": at, "attempt": 1, "final": name == "result"}
    return Frame(name, {**told, "data": data})


def milestone(seq: int, index: int, **more: Any) -> Frame:
    return frame(seq, "progress", **PLAN[index - 1], index=index, total=2, key=f"m#{seq}", **more)


def token(seq: int, text: str, shape: str = "text") -> Frame:
    return frame(seq, "token", text=text, section="comments", step="s", attempt=1, shape=shape)


def story(*frames: Frame) -> list[str]:
    told = Story()
    return [line.strip() for one in frames for line in told.lines(one)]


def test_a_milestone_is_told_once_however_often_it_reports() -> None:
    assert story(milestone(2, 1, detail="8 clauses"), milestone(3, 1, done=1, of=8), milestone(4, 2)) == [
        "[1/2] Drafting – 8 clauses",
        "[2/2] Ready",
    ]


def test_draft_text_says_that_it_is_a_draft_and_comes_before_the_next_milestone() -> None:
    assert story(
        milestone(2, 1), token(3, "Clause"), token(4, " 4.\nRisky."), token(5, "{", "json"), milestone(6, 2)
    ) == [
        "[1/2] Drafting",
        "Draft comments (not final) | Clause 4.",
        "Draft comments (not final) | Risky.",
        "[2/2] Ready",
    ]


def test_text_that_an_attempt_replaced_is_not_told() -> None:
    retry = frame(4, "retry", reason="cut_off", superseded=[[3, 3]], attempt=1, next_attempt=2, wait_s=0.25)
    assert story(token(3, "Wrong"), retry, token(5, "Right"), milestone(6, 2)) == [
        "Retry: cut off; attempt 2 follows in 0.2 s",
        "Draft comments (not final) | Right",
        "[2/2] Ready",
    ]


def test_text_that_was_told_already_is_taken_back_in_words() -> None:
    retry = frame(5, "retry", message="Cut off.", superseded=[[3, 4]], attempt=1, next_attempt=None)
    assert story(token(3, "Wrong"), milestone(4, 2), retry)[2:] == [
        "Retry: Cut off; no further attempt",
        "Taken back: what events 3–4 said above, replaced by the next attempt",
    ]


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (frame(9, "result", output={"risk": "high"}), ['Result (validated, final, event 9): {"risk":"high"}']),
        (
            frame(9, "cancelled", reason="too\nlong", partial={"a": 1}),
            ["Cancelled (event 9): too long", 'Partial result (not final): {"a":1}'],
        ),
        (
            frame(9, "error", code="timeout", message="It took too long.", retryable=True),
            [
                "Failed (event 9, timeout): It took too long. A new run may help.",
                "To go on from here in a new run: runwire run --continue run-1",
            ],
        ),
    ],
)
def test_only_a_result_is_called_final(ending: Frame, said: list[str]) -> None:
    assert story(ending) == said


def test_a_validation_says_which_check_failed() -> None:
    checks = [{"name": "quotes", "passed": True}, {"name": "risks", "passed": False, "detail": "5 is missing"}]
    assert story(frame(3, "validation", passed=False, checks=checks)) == ["Validation failed: risks (5 is missing)"]
    assert story(frame(3, "validation", passed=True, checks=checks[:1])) == ["Validation passed: 1 of 1 checks"]


def test_a_question_and_its_answer_are_told_in_words() -> None:
    asked = frame(4, "escalation", question="Keep it?", choices=["keep", "drop"], to="reviewer")
    by = {"subject": "ada", "role": "user"}
    assert story(asked, frame(5, "decision", escalation=4, because="answered", by=by, choice="keep", note="Fine.")) == [
        "Asked reviewer (event 4): Keep it?",
        "Choices: keep, drop",
        "Answered by ada: keep – Fine.",
    ]
    assert story(frame(5, "decision", escalation=4, because="wait_over", answer={"eur": 5})) == [
        "Nobody answered in time: eur: 5"
    ]
    assert story(frame(4, "escalation"), frame(5, "decision")) == ["Asked (event 4): a question", "Answered"]


WILD = "\x1b]0;owned\x07\x1b[2J[bold]\x9b"
EVERYTHING = [
    frame(1, "accepted", title=WILD, workflow="contract_review", milestones=PLAN),
    frame(2, "started", attempt=2),
    milestone(3, 1, detail=WILD),
    frame(4, "finding", item=WILD, value={"why": WILD, WILD: [WILD]}),
    frame(5, "tool_result", tool=WILD, call_id="1", status="ok", summary=WILD),
    token(6, WILD),
    frame(7, "retry", message=WILD, reason="x", superseded=[], attempt=1, next_attempt=2),
    frame(8, "validation", passed=False, checks=[{"name": WILD, "passed": False, "detail": WILD}]),
    frame(9, "escalation", question=WILD, choices=[WILD], to=WILD),
    frame(10, "decision", escalation=9, because="answered", by={"subject": WILD}, choice=WILD, note=WILD),
    frame(11, "escalation", question=WILD, choices=[WILD], to=WILD),
    frame(12, "cancel_requested", reason=WILD, by={"subject": WILD, "role": "user"}),
    frame(13, "cancelled", reason=WILD, partial={"comments": WILD}, missing=[WILD]),
]


def test_nothing_that_is_shown_can_steer_the_terminal() -> None:
    out, plain, lines = (io.StringIO() for _ in range(3))
    console = Console(file=out, force_terminal=False, markup=False, emoji=False, width=100)
    for display in (LivePicture(console), PlainLines(plain), JsonLines(lines)):
        with display:
            for one in EVERYTHING:
                display.show(one)
    for written in (out, plain, lines):
        assert written.getvalue()
        assert not {one for one in written.getvalue() if not one.isprintable()} - {"\n"}


def test_the_picture_shows_the_plan_the_findings_and_the_ending() -> None:
    out = io.StringIO()
    with LivePicture(Console(file=out, force_terminal=False, width=100)) as picture:
        for one in [
            frame(1, "accepted", title="NDA", workflow="contract_review", milestones=PLAN),
            frame(2, "started", attempt=1),
            milestone(3, 1),
            frame(4, "finding", item="4", value={"risk": "high"}),
            token(5, "Never shown as final"),
            milestone(6, 2),
            frame(7, "result", output={"comments": "The real one"}),
        ]:
            picture.show(one)
    shown = out.getvalue()
    assert "✔ Drafting" in shown
    assert "Findings: 1" in shown
    assert "Result – validated, event 7" in shown
    assert "The real one" in shown
    assert "Never shown as final" not in shown


def test_plain_lines_go_where_no_terminal_is() -> None:
    assert isinstance(display_for(as_json_lines=False), PlainLines)
    assert isinstance(display_for(as_json_lines=True), JsonLines)


def test_a_run_that_takes_up_another_says_which() -> None:
    lines = story(frame(1, "accepted", title="NDA", workflow="contract_review", continues={"run_id": "run-0"}))
    assert lines == ["Run run-1: NDA (contract_review)", "It takes up what run run-0 had finished"]
