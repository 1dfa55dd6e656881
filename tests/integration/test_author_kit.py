"""The author's test kit sees what it is there to see: runs that do not repeat, prompts without a script, lost text."""

from dataclasses import replace
from pathlib import Path

import pytest

from ops.scaffold import new_workflow
from runwire_testing.author import Author
from tests.carrying import Nothing, declared
from tests.house import ROOT
from worker.run import Run

pytest_plugins = ("runwire_testing.plugin", "pytester")

SHORT = {"title": "Two clauses", "text": "1. Liability\nThe customer bears unlimited liability.\n\n2. Law\nOurs.\n"}


async def test_a_run_is_watched_to_its_end(author: Author) -> None:
    run = await author.start("contract_review", SHORT)
    seen = await run.until("finding", item="1")
    assert seen.data["value"]["risk"] == "high"
    ended = await run.end()
    assert (ended.status, ended.error, ended.partial) == ("completed", None, None)
    assert ended.result["high"] == ["1"]
    assert ended.sections["comments"] == ended.result["comments"]
    assert ended.tools == ["search_policy"]
    assert all(ended.checks.values())
    assert len(ended.milestones) == 7


async def test_a_run_is_stopped_and_its_partial_result_is_at_hand(author: Author) -> None:
    author.model.hang("Task: draft comments", after_pieces=40)  # its thinking counts
    run = await author.start("contract_review", SHORT)
    await run.until("token", section="comments")
    await run.cancel("seen enough")
    ended = await run.end()
    assert (ended.status, ended.result) == ("cancelled", None)
    assert sorted(found["clause"] for found in ended.partial["findings"]) == ["1", "2"]


async def test_what_a_test_lets_the_model_say_comes_before_its_scripts(author: Author) -> None:
    author.model.say("Task: draft comments", "Clause 1 is bad.")
    ended = await (await author.start("contract_review", SHORT)).end()
    assert ended.result["comments"] == "Clause 1 is bad."


async def test_an_answer_that_is_cut_off_leaves_a_retry_and_no_dead_text(author: Author) -> None:
    author.model.cut("Task: draft comments", after_pieces=5)
    run = await author.start("contract_review", SHORT)
    ended = await run.end()
    assert [fact.type for fact in ended.facts].count("retry") == 1
    assert ended.sections["comments"] == ended.result["comments"]


async def test_a_run_is_continued_and_killed_everywhere_while_it_is(author: Author) -> None:
    author.model.say("Task: draft comments", "Clause 1", finish="length")
    run = await author.start("contract_review", SHORT)
    cut = await run.end()
    assert (cut.status, cut.error, cut.sections["comments"]) == ("failed", "model_length", "Clause 1")
    author.model.say("Task: draft comments", "Clause 1 is bad.")
    later = await author.go_on(run)
    ended = await later.end()
    assert (ended.status, ended.result["comments"]) == ("completed", "Clause 1 is bad.")
    assert ended.findings == cut.findings
    assert [fact.type for fact in ended.facts if fact.type == "model_call" and "taken" not in fact.data] == [
        "model_call"
    ]
    assert await later.same_fold_when_killed_after_every_append() == len(ended.facts) - 1


@pytest.fixture
def a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider in the environment, which nobody answers for."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-used")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")


async def test_no_key_leads_to_a_provider(a_key: None, author: Author) -> None:
    assert (await (await author.start("contract_review", SHORT)).end()).status == "completed"


async def test_a_run_that_was_killed_at_any_event_or_cut_at_any_piece_ends_the_same(author: Author) -> None:
    run = await author.start("contract_review", SHORT)
    ended = await run.end()
    assert await run.same_fold_when_killed_after_every_append() == len(ended.facts) - 1
    pieces = [fact.data["pieces"] for fact in ended.facts if fact.type == "model_call"]
    assert await run.same_fold_when_cut_at_every_piece(every=20) == sum(len(range(0, each + 1, 20)) for each in pieces)


async def test_a_drill_ends_the_same_wherever_its_worker_dies(author: Author) -> None:
    run = await author.start("drill", {"pieces": 12, "rate_per_s": 0, "steps": 3, "tool_calls": 2, "findings": 2})
    assert await run.same_fold_when_killed_after_every_append() > 10


async def test_waiting_for_what_never_comes_ends_with_the_run(author: Author) -> None:
    run = await author.start("drill", {"pieces": 1, "rate_per_s": 0})
    with pytest.raises(AssertionError, match="the run ended with result and without escalation"):
        await run.until("escalation")


async def test_an_input_that_does_not_fit_and_a_name_that_nobody_knows_are_told_at_once(author: Author) -> None:
    with pytest.raises(ValueError, match="pieces"):
        await author.start("drill", {"pieces": -1})
    with pytest.raises(AssertionError, match=r"there is no workflow drills; there are agent, clinical_note"):
        await author.start("drills")
    with pytest.raises(AssertionError, match="has no sample nothing"):
        await author.start("contract_review", sample="nothing")


AGAIN = """notes.append(note)
        SEEN.append(number)  # runwire: ok - the kit must see what the lint was told to ignore
        await run.finding(note, item=f"{number} of {len(SEEN)}")"""
SOMETIMES = """if next(DICE) % 2:  # runwire: ok - the kit must see what the lint was told to ignore
        await run.step("roll", roll)
    await run.milestone("Summing up")"""
BY_ITS_ID = 'prompts.summary(f"{given.title} of {run.run_id}", notes)'
ONCE_MORE = """if next(DICE) % 2:  # runwire: ok - the kit must see what the lint was told to ignore
        await run.milestone("Checking")
    await run.milestone("Checking")"""
TOP = """SECTION = "summary"
SEEN: list[int] = []
DICE = iter(range(99))


def roll() -> int:
    return 6
"""


@pytest.fixture
def author_folders(request: pytest.FixtureRequest, tmp_path: Path) -> list[Path]:
    """In place of the plugin's: a new workflow, with one line of its code changed if a test asks for it."""
    folder = new_workflow("triage", tmp_path)
    code = (folder / "workflow.py").read_text()
    for old, new in [('SECTION = "summary"\n', TOP), *getattr(request, "param", ())]:
        assert old in code
        code = code.replace(old, new)
    (folder / "workflow.py").write_text(code)
    return [folder]


@pytest.mark.parametrize(
    ("author_folders", "said"),
    [
        ([("notes.append(note)", AGAIN)], "replayed from its own log: (findings was|error was None)"),
        (
            [('await run.milestone("Summing up")', SOMETIMES)],
            "its own log: error was None and is 'diverged'",
        ),
        ([('await run.milestone("Checking")', ONCE_MORE)], "replayed from its own log: it did something new: progress"),
    ],
    indirect=["author_folders"],
)
async def test_a_workflow_that_does_not_repeat_itself_is_seen_by_the_replay(author: Author, said: str) -> None:
    await (await author.start("triage")).end()
    with pytest.raises(AssertionError, match=said):
        await author.close()
    author.forget()


@pytest.mark.parametrize("author_folders", [[("notes.append(note)", AGAIN)]], indirect=True)
async def test_a_workflow_that_does_not_repeat_itself_is_seen_when_its_worker_dies(author: Author) -> None:
    run = await author.start("triage")
    with pytest.raises(AssertionError, match=r"killed when event \d+ \(finding\) was stored: (findings|error) was"):
        await run.same_fold_when_killed_after_every_append()
    author.forget()


@pytest.mark.parametrize("author_folders", [[("prompts.summary(given.title, notes)", BY_ITS_ID)]], indirect=True)
async def test_a_copy_goes_by_the_id_of_its_original(author: Author) -> None:
    run = await author.start("triage")
    assert str(run.run_id) in (await run.end()).result["summary"]
    await run.same_fold_when_killed_after_every_append(every=5)


async def test_a_prompt_that_no_script_answers_is_told_and_asked_of_nobody(author: Author) -> None:
    ended = await (await author.start("triage", {"title": "Odd", "text": '"Quoted."'})).end()
    assert (ended.status, ended.error) == ("failed", "provider_refused")
    with pytest.raises(AssertionError, match="no script answers this prompt"):
        await author.close()
    author.forget()


def test_the_test_that_comes_with_a_new_workflow_passes_as_it_was_written(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from this repository, in a process and on servers of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    new_workflow("triage", pytester.path)
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", "triage", timeout=120)
    done.assert_outcomes(passed=3)


POLICY = """workflow = "part"
version = 1
submit = ["user"]
[roles.user]
accepted = []
started = []
cancel_requested = []
result = []
cancelled = []
error = []
"""


async def test_runs_that_a_run_asks_for_are_carried_too_and_their_parent_is_killed_everywhere(
    author: Author, tmp_path: Path
) -> None:
    async def asks(run: Run, _: Nothing) -> Nothing:
        told = await run.child("part", Nothing(text="three"), returns=Nothing)
        return await run.validate(Nothing(text=f"told {told.text}"), [])

    async def answers(run: Run, value: Nothing) -> Nothing:
        await run.sleep("rest", 0.01)
        return await run.validate(Nothing(text=f"{value.text} is 3"), [])

    (tmp_path / "policy.toml").write_text(POLICY)
    for name, code in (("story", asks), ("part", answers)):
        author._bench.workflows[name] = replace(declared(code), name=name, folder=tmp_path)
    await author._bench.register()
    run = await author.start("story", {"text": ""})
    assert (await run.end()).result == {"text": "told three is 3"}
    await run.same_fold_when_killed_after_every_append()
