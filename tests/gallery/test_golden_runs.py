"""Runs of every version of every workflow still fit today's code, and a change that would break them is named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ops.exits import Complaint
from ops.golden import Golden, golden_runs, read_golden
from runwire_testing.author import Author
from runwire_testing.golden import partial_on_every_prefix, replayed
from tests.golden.record_runs import RUNS, SHORT
from worker.declare import RunView
from worker.registry import WORKFLOWS

pytest_plugins = ("runwire_testing.plugin",)

GOLDEN = golden_runs(RUNS)
COMPLETED = RUNS / "contract_review/v1/completed.jsonl"


def test_there_is_a_golden_run_of_every_workflow_at_its_version() -> None:
    recorded = {(golden.workflow, golden.version) for golden in GOLDEN.values()}
    assert {(each.name, each.version) for each in WORKFLOWS.values()} <= recorded, "python -m tests.golden.record_runs"


@pytest.mark.parametrize("file", [pytest.param(file, id=f"{file.parts[-3]}-{file.stem}") for file in GOLDEN])
async def test_a_golden_run_is_replayed_by_todays_code_with_everything_outside_forbidden(file: Path) -> None:
    golden = GOLDEN[file]
    assert await replayed(WORKFLOWS[golden.workflow], golden) is None


@pytest.mark.parametrize("file", [pytest.param(file, id=f"{file.parts[-3]}-{file.stem}") for file in GOLDEN])
def test_a_partial_result_is_made_of_every_beginning_of_a_golden_run(file: Path) -> None:
    golden = GOLDEN[file]
    assert partial_on_every_prefix(WORKFLOWS[golden.workflow], golden.facts) is None


async def test_a_run_goes_through_a_file_unchanged(author: Author, tmp_path: Path) -> None:
    run = await author.start("contract_review", SHORT)
    ended = await run.end()
    file = await run.export_golden(tmp_path, "two-clauses")
    assert file == tmp_path / "contract_review/v1/two-clauses.jsonl"
    golden = read_golden(file)
    assert (golden.workflow, golden.version, golden.run_id) == ("contract_review", 1, run.run_id)
    assert golden.input == SHORT
    assert golden.facts == ended.facts
    assert await author.same_golden_runs(tmp_path) == 1
    with pytest.raises(Complaint, match="is there already"):
        await run.export_golden(tmp_path, "two-clauses")
    with pytest.raises(Complaint, match="is no name for a file"):
        await run.export_golden(tmp_path, "../two")


def dropped(golden: Golden, gone: Callable[[Any], bool]) -> Golden:
    return replace(golden, facts=[fact for fact in golden.facts if not gone(fact)])


async def test_code_that_asks_for_more_than_the_log_has_is_seen() -> None:
    golden = read_golden(COMPLETED)
    lacking = dropped(golden, lambda fact: fact.type == "validation")
    assert await replayed(WORKFLOWS["contract_review"], lacking) == "a call in the main branch is not in the log"
    untold = dropped(golden, lambda fact: fact.type == "progress" and fact.data["label"] == "Parsing")
    assert await replayed(WORKFLOWS["contract_review"], untold) == "it did something new: progress"


async def test_code_that_asks_for_less_than_the_log_has_is_seen() -> None:
    golden = read_golden(COMPLETED)
    step = next(fact for fact in golden.facts if fact.type == "step" and fact.data["name"] == "parse")
    more = replace(step, data={**step.data, "key": "count#1", "place": 99, "name": "count"})
    facts = [*golden.facts[:-1], more, golden.facts[-1]]
    assert "code and history disagree" in str(
        await replayed(WORKFLOWS["contract_review"], replace(golden, facts=facts))
    )


async def test_code_that_ends_otherwise_is_seen() -> None:
    golden = read_golden(COMPLETED)
    end = golden.facts[-1]
    other = replace(end, data={**end.data, "output": {**end.data["output"], "title": "Another"}})
    said = await replayed(WORKFLOWS["contract_review"], replace(golden, facts=[*golden.facts[:-1], other]))
    assert str(said).startswith("its result was ")
    failed = read_golden(RUNS / "policy_document/v1/not_fit_to_be_final.jsonl")
    end = replace(failed.facts[-1], data={**failed.facts[-1].data, "code": "another"})
    said = await replayed(WORKFLOWS["policy_document"], replace(failed, facts=[*failed.facts[:-1], end]))
    assert str(said).startswith("it ended with another and ends with validation_failed now")


async def test_an_input_that_does_not_fit_any_more_is_seen() -> None:
    golden = replace(read_golden(COMPLETED), input={"title": "Two clauses"})
    assert "its input does not fit any more" in str(await replayed(WORKFLOWS["contract_review"], golden))


def test_an_assembler_that_cannot_take_a_beginning_is_seen() -> None:
    def partial(view: RunView) -> dict[str, Any]:
        return {"first": view.findings[0]}

    golden = read_golden(COMPLETED)
    said = partial_on_every_prefix(replace(WORKFLOWS["contract_review"], partial=partial), golden.facts)
    assert said == "partial raised IndexError on the log up to event 1 (accepted): list index out of range"


async def test_a_workflow_that_is_gone_is_seen(author: Author, tmp_path: Path) -> None:
    text = COMPLETED.read_text().replace('"workflow":"contract_review"', '"workflow":"contract"', 1)
    (tmp_path / "one.jsonl").write_text(text)
    with pytest.raises(AssertionError, match="there is no workflow contract any more"):
        await author.same_golden_runs(tmp_path)


async def test_a_run_that_goes_on_and_one_that_nobody_knows_are_not_exported(author: Author, tmp_path: Path) -> None:
    run = await author.start("drill", {"questions": 1, "pieces": 0})
    await run.until("escalation")
    with pytest.raises(Complaint, match="the run is waiting"):
        await run.export_golden(tmp_path, "going")
    await run.cancel()
    assert golden_runs(tmp_path) == {}
