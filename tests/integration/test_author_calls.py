"""Workflows of every shape over the real log: how they end when they diverge, are stopped, or never stop."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from eventstore import log
from eventstore.domain.run import fold
from tests.carrying import Nothing
from tests.running import until
from tests.staging import Stage
from worker.run import Run


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def test_code_that_diverged_ends_the_run_with_its_partial_result_whatever_it_caught(stage: Stage) -> None:
    never = asyncio.Event()

    async def first(run: Run, _: Nothing) -> Nothing:
        await run.finding(Nothing(text="kept"), item="x")
        await run.step("wait", never.wait)
        return Nothing()

    async def second(run: Run, _: Nothing) -> Nothing:
        try:
            await run.step("other", str, 1)
        except BaseException:  # noqa: BLE001 - that is the point
            await never.wait()
        return Nothing()

    stage.play(first)
    run_id = await stage.submit()
    stage.own(run_id)
    await stage.runs.has(run_id, "finding")
    await stage.die(run_id)
    stage.play(second, "d2d2")
    end = (await stage.ended(run_id))[-1]
    assert (end.type, end.data["code"]) == ("error", "diverged")
    assert end.data["partial"]["findings"] == [{"text": "kept"}]


async def test_two_calls_at_once_end_the_run_at_its_first_try(stage: Stage) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        await asyncio.gather(run.step("one", str, 1), run.step("two", str, 2), return_exceptions=True)
        return await run.validate(Nothing(), [])

    stage.play(story)
    end = (await stage.ended(await stage.submit()))[-1]
    assert (end.type, end.data["code"]) == ("error", "workflow_misuse")


@pytest.mark.parametrize("checked", ["another", "nothing"])
async def test_a_value_that_was_not_validated_or_was_changed_since_is_not_returned(stage: Stage, checked: str) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        value = Nothing(text="checked")
        if checked == "another":
            await run.branch("part", lambda run: run.validate(value, []))
        value.text = "changed"
        return value

    stage.play(story)
    end = (await stage.ended(await stage.submit()))[-1]
    assert (end.type, end.data["code"]) == ("error", "not_validated")


async def test_a_cancel_closes_every_branchs_connection_and_counts_what_all_have_cost(stage: Stage) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            if word == "a":
                return (await run.model("tell", ask(word), section=word)).text
            return "".join([piece async for piece in run.model("tell", ask(word), section=word).text()])

        await run.each(["a", "b"], look, key=str)
        return await run.validate(Nothing(), [])

    stage.model.hang = asyncio.Event()
    stage.play(story)
    run_id = await stage.submit()
    task = stage.own(run_id)
    for word in ("a", "b"):
        await stage.runs.has(run_id, "token", section=word)
    await stage.runs.cancel(run_id)
    await task
    facts = await stage.runs.ended(run_id)
    assert facts[-1].type == "cancelled"
    assert sorted(stage.model.closed) == ["a", "b"]
    [observed] = [fact for fact in facts if fact.type == "cancel_observed"]
    assert observed.data["usage"]["output_tokens"] > 0
    assert set(facts[-1].data["partial"]["sections"]) == {"a", "b"}


async def test_code_that_never_stops_is_left_behind_and_the_run_ends(stage: Stage) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            while not let_go:
                try:
                    await run.model("tell", ask(word), section=word)
                except BaseException:  # noqa: BLE001 - that is the point
                    continue
            return word

        await run.each(["a", "b"], look, key=str)
        return Nothing()

    let_go: list[bool] = []
    stage.model.hang = asyncio.Event()
    stage.play(story)
    run_id = await stage.submit()
    task = stage.own(run_id)
    for word in ("a", "b"):
        await stage.runs.has(run_id, "token", section=word)
    await stage.runs.cancel(run_id)
    await task
    facts = await stage.runs.ended(run_id)
    assert facts[-1].type == "cancelled"
    let_go.append(True)
    left = [one for one in asyncio.all_tasks() if one.get_name().startswith(("branch ", "run "))]
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def test_a_hand_over_takes_back_what_all_branches_had_half_said(stage: Stage) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            return (await run.model("tell", ask(word), section=word)).text

        return await run.validate(Nothing(text="".join(await run.each(["a", "b"], look, key=str))), [])

    stage.model.hang = asyncio.Event()
    stage.play(story)
    run_id, handover = await stage.submit(), asyncio.Event()
    task = stage.own(run_id, handover)
    for word in ("a", "b"):
        await stage.runs.has(run_id, "token", section=word)
    handover.set()
    await task
    [retry] = [fact for fact in await stage.runs.facts(run_id) if fact.type == "retry"]
    assert retry.data["reason"] == "handover"
    assert not fold(await stage.runs.facts(run_id)).sections
    stage.model.hang = None
    facts = await stage.ended(run_id)
    assert facts[-1].data["output"] == {"text": "A1 A2 B1 B2 "}
    assert [fact.data["attempt"] for fact in facts if fact.type == "model_call"] == [2, 2]
    assert {name: len(pieces) for name, pieces in fold(facts).sections.items()}.keys() == {"a", "b"}


async def test_an_effect_whose_outcome_stays_unknown_is_named_in_what_is_missing(stage: Stage) -> None:
    begun = asyncio.Event()

    async def send() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def story(run: Run, _: Nothing) -> Nothing:
        await run.step("send the letter", send, effect=True)
        return await run.validate(Nothing(), [])

    stage.play(story)
    run_id = await stage.submit()
    task = stage.own(run_id)
    await begun.wait()
    await stage.runs.cancel(run_id)
    await task
    facts = await stage.runs.ended(run_id)
    assert "whether send the letter took place" in facts[-1].data["missing"]


async def test_branches_that_read_streams_resume_over_the_real_log(stage: Stage) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def look(run: Run, word: str) -> str:
            text = ""
            async for piece in run.model("tell", ask(word), section=word).text():
                text += piece
                await run.finding(Nothing(text=text), item=word)
            return text

        told = await run.each(["a", "b"], look, key=str, milestone="Look")
        return await run.validate(Nothing(text="".join(told)), [])

    stage.play(story)
    whole = await stage.ended(await stage.submit())
    for at_seq in range(2, len(whole)):
        run_id = await stage.submit()
        task = stage.own(run_id)

        async def reached(run_id: UUID = run_id, task: Any = task, at_seq: int = at_seq) -> bool | None:
            async with stage.runs.engine.connect() as connection:
                head = await log.head(connection, run_id)
            return True if task.done() or (head is not None and head.seq >= at_seq) else None

        await until(reached, f"seq {at_seq}")
        await stage.die(run_id)
        state = fold(await stage.ended(run_id))
        assert state.result is not None
        assert state.result["output"] == {"text": "A1 A2 B1 B2 "}
        assert {item: value["text"] for item, (_, value) in state.findings.items()} == {"a": "A1 A2 ", "b": "B1 B2 "}
        assert {name: "".join(piece.text for piece in pieces) for name, pieces in state.sections.items()} == {
            "a": "A1 A2 ",
            "b": "B1 B2 ",
        }
