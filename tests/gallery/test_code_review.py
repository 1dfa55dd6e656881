"""A change is reviewed file by file; a remark that points to nothing in the change is never final."""

from pathlib import Path

import orjson
import pytest

from runwire_testing.author import Author
from worker.stops import WorkflowFailed
from worker.workflows import code_review
from worker.workflows.code_review.diff import changes

pytest_plugins = ("runwire_testing.plugin",)

SAMPLES = Path(code_review.__file__).parent / "samples"
LETTERS = orjson.loads((SAMPLES / "letters.json").read_bytes())["diff"]


def test_a_diff_is_cut_into_files_whose_lines_have_the_numbers_of_the_new_file() -> None:
    cut = changes(LETTERS)
    assert [change.path for change in cut] == ["mail/send.py", "mail/rules.py", "mail/old.py", "tests/test_send.py"]
    assert cut[0].lines(LETTERS)[6] == "+        self.failed = 0"
    assert cut[0].lines(LETTERS)[11] == "+        except:"
    assert cut[1].lines(LETTERS) == {
        1: " def matches(rule, letter):",
        2: "+    # rules may be expressions now",
        3: "+    return bool(eval(rule.text, {}, dict(letter=letter)))",
    }
    assert cut[2].lines(LETTERS) == {}, "what was removed has no line in the new file"
    assert list(cut[3].lines(LETTERS)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("diff", "code"),
    [
        ("no diff at all\n", "no_files"),
        (LETTERS * 11, "too_many_files"),
        (LETTERS * 2, "file_twice"),
    ],
)
def test_what_cannot_be_reviewed_is_said(diff: str, code: str) -> None:
    with pytest.raises(WorkflowFailed) as fault:
        changes(diff)
    assert fault.value.code == code


async def test_a_change_becomes_remarks_a_verdict_and_a_summary(author: Author) -> None:
    ended = await (await author.start("code_review", sample="letters")).end()
    assert ended.status == "completed"
    assert all(ended.checks.values())
    told = {(found["path"], found["line"], found["severity"]) for found in ended.findings}
    assert told == {
        ("mail/send.py", 11, "warning"),
        ("mail/rules.py", 3, "blocking"),
        ("tests/test_send.py", 4, "warning"),
    }
    assert [file["path"] for file in ended.result["files"]] == [change.path for change in changes(LETTERS)]
    assert (ended.result["verdict"], ended.result["unread"]) == ("request changes", [])
    assert "mail/rules.py:3 (blocking)" in ended.sections["summary"]


async def test_a_remark_is_found_while_the_model_still_speaks(author: Author) -> None:
    author.model.hang("^File: shop/prices.py", after_pieces=24)
    author.model.say(
        "^File: shop/prices.py",
        '{"remarks": [{"line": 3, "severity": "note", "quote": "eval", "comment": "One"}, '
        '{"line": 3, "severity": "note", "quote": "eval", "comment": "Two, which never ends"}]}',
    )
    run = await author.start("code_review", sample="prices")
    await run.until("finding", item="shop/prices.py 1")
    await run.cancel()
    ended = await run.end()
    assert ended.status == "cancelled"
    assert {remark["comment"] for remark in ended.partial["remarks"]} >= {"One"}


@pytest.mark.parametrize(
    ("when", "said", "failed"),
    [
        (
            "^File: shop/prices.py",
            '{"remarks": [{"line": 99, "severity": "note", "quote": "eval(text)", "comment": "No such line"}]}',
            {"every remark points to a line that was added", "every quote stands on its line"},
        ),
        (
            "^File: shop/prices.py",
            '{"remarks": [{"line": 1, "severity": "note", "quote": "def price", "comment": "It was there before"}]}',
            {"every remark points to a line that was added", "every quote stands on its line"},
        ),
        (
            "^File: shop/prices.py",
            '{"remarks": [{"line": 3, "severity": "note", "quote": "exec(text)", "comment": "Not what it says"}]}',
            {"every quote stands on its line"},
        ),
        (
            "Task: sum up a review",
            "All is well.",
            {"the summary names every file with a blocking remark"},
        ),
    ],
)
async def test_a_review_with_a_fault_is_not_final(author: Author, when: str, said: str, failed: set[str]) -> None:
    author.model.say(when, said)
    ended = await (await author.start("code_review", sample="prices")).end()
    assert (ended.status, ended.error) == ("failed", "validation_failed")
    assert {name for name, passed in ended.checks.items() if not passed} == failed


async def test_a_file_that_the_model_cannot_review_is_named_and_costs_no_other(author: Author) -> None:
    author.model.say("^File: shop/orders.py", "I would rather not.")
    ended = await (await author.start("code_review", sample="prices")).end()
    assert ended.status == "completed"
    assert ended.result["unread"] == ["shop/orders.py"]
    assert [file["path"] for file in ended.result["files"]] == ["shop/prices.py"]
    assert "shop/orders.py could not be" in ended.result["summary"]


async def test_a_summary_that_keeps_silent_about_an_unread_file_is_not_final(author: Author) -> None:
    author.model.say("^File: shop/orders.py", "I would rather not.")
    author.model.say("Task: sum up a review", "shop/prices.py runs text as code.")
    ended = await (await author.start("code_review", sample="prices")).end()
    assert ended.error == "validation_failed"
    assert ended.checks["the summary names every unread file"] is False
