"""Two things that workflows rely on and no workflow that comes along does: replaced findings, and old versions."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from ops.golden import read_golden
from runwire_testing.author import Author
from runwire_testing.golden import replayed
from worker.author import Check, Run, RunView, workflow
from worker.declare import Workflow
from worker.registry import WORKFLOWS

pytest_plugins = ("runwire_testing.plugin",)


class Nothing(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Guess(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int


def no_partial(view: RunView) -> dict[str, object]:
    return {"numbers": [found["number"] for found in view.findings]}


def guessing(version: int = 1) -> Workflow:
    """Guesses twice, and since version 2 a third time: the runs of before keep what they did."""

    @workflow(
        "guessing",
        version=version,
        title="Guessing",
        summary="Guesses and thinks again.",
        input=Nothing,
        output=Guess,
        milestones=("Guessing",),
        partial=no_partial,
    )
    async def guess(run: Run, value: Nothing) -> Guess:
        await run.finding(Guess(number=1), item="number")
        await run.finding(Guess(number=0), item="other")
        await run.finding(Guess(number=2), item="number")
        last = 2
        if run.version >= 2:
            await run.finding(Guess(number=3), item="number")
            last = 3
        return await run.validate(Guess(number=last), [Check("it is small", lambda made: made.number < 9)])

    return guess


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setitem(WORKFLOWS, "guessing", guessing())
    return monkeypatch


async def test_a_finding_that_was_replaced_is_named_and_gone(known: pytest.MonkeyPatch, author: Author) -> None:
    run = await author.start("guessing", {})
    ended = await run.end()
    made = [
        (fact.seq, fact.data["value"]["number"], fact.data.get("replaces"))
        for fact in ended.facts
        if fact.type == "finding"
    ]
    assert made == [(made[0][0], 1, None), (made[1][0], 0, None), (made[2][0], 2, made[0][0])]
    assert sorted(found["number"] for found in ended.findings) == [0, 2]
    assert ended.facts[-1].data["counts"]["findings"] == 2
    await run.same_fold_when_killed_after_every_append()


async def test_a_run_of_an_earlier_version_goes_its_own_way_in_todays_code(
    known: pytest.MonkeyPatch, author: Author, tmp_path: Path
) -> None:
    run = await author.start("guessing", {})
    await run.end()
    golden = read_golden(await run.export_golden(tmp_path, "twice"))
    assert await replayed(guessing(version=2), golden) is None
    accepted = replace(golden.facts[0], data={**golden.facts[0].data, "workflow_version": 2})
    careless = replace(golden, facts=[accepted, *golden.facts[1:]])
    assert "code and history disagree" in str(await replayed(guessing(version=2), careless))
