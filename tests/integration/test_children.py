"""Runs that a run asks for: opened once, waited for without a worker, stopped with it or kept, failing into it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from eventstore import catalogue, log
from eventstore.domain.record import Fact
from eventstore.domain.run import fold
from eventstore.domain.transcript import public
from tests.carrying import Code, Nothing
from tests.running import Runs, until
from tests.staging import Stage
from worker.run import Run
from worker.stops import WorkflowFailed

POLICY = """workflow = "{name}"
version = 3
submit = {submit}
[roles.user]
accepted = []
started = []
cancel_requested = []
result = []
cancelled = []
error = []
"""


class Family:
    """A run called `story`, and the runs called `part` that it asks for."""

    def __init__(self, stage: Stage, engine: AsyncEngine, policies: Path) -> None:
        self.stage = stage
        self.runs: Runs = stage.runs
        self.handed: list[UUID] = []
        self.engine = engine
        self._policies = policies
        stage.more = {"policies": policies, "hand_over": self._hand_over}
        self.policy("part", '["user"]')

    async def _hand_over(self, *run_ids: UUID) -> None:
        self.handed += run_ids

    def policy(self, name: str, submit: str) -> None:
        (self._policies / f"{name}.toml").write_text(POLICY.format(name=name, submit=submit))

    async def play(self, story: Code, part: Code, *, known: bool = True) -> UUID:
        self.stage.play(story)
        self.stage.play(part, name="part")
        if known:
            async with self.engine.begin() as connection:
                await catalogue.register(connection, catalogue.Registered("part", 1, {}))
        return await self.stage.submit(attempts_max=20)

    async def carry(self, run_id: UUID) -> list[Fact]:
        """Let owners carry whatever can be carried until this run has ended."""
        for _ in range(50):
            await self.stage.once(run_id)
            facts = await self.runs.facts(run_id)
            if facts[-1].type in ("result", "cancelled", "error"):
                return facts
            for child in await self.below(run_id):
                await self.stage.once(child)
        raise AssertionError("it does not end")

    async def below(self, run_id: UUID) -> list[UUID]:
        async with self.runs.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT run_id FROM runwire.child WHERE parent_id = :run ORDER BY run_id"), {"run": run_id}
            )
            return [row[0] for row in found]

    async def head(self, run_id: UUID) -> Any:
        async with self.runs.engine.connect() as connection:
            found = await connection.execute(
                text("SELECT status, due_at, lease_until, nudged FROM runwire.head WHERE run_id = :run"),
                {"run": run_id},
            )
            return found.one()


@pytest_asyncio.fixture(loop_scope="session")
async def family(stage: Stage, worker_engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Family]:
    yield Family(stage, worker_engine, tmp_path)


async def asks(run: Run, _: Nothing) -> Nothing:
    told = await run.child("part", Nothing(text="three"), returns=Nothing)
    await run.finding(told, item="told")
    return await run.validate(Nothing(text=f"told {told.text}"), [])


async def answers(run: Run, value: Nothing) -> Nothing:
    await run.step("count", len, value.text)
    return await run.validate(Nothing(text=f"{value.text} is 3"), [])


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


async def test_a_child_runs_for_its_parents_caller_and_its_end_is_proved_by_the_parents_log(family: Family) -> None:
    run_id = await family.play(asks, answers)
    facts = await family.carry(run_id)
    assert facts[-1].data["output"] == {"text": "told three is 3"}
    [child] = await family.below(run_id)
    below = await family.runs.facts(child)
    intent, end = (fact.data for fact in facts if fact.type == "step")
    async with family.runs.engine.connect() as connection:
        head = await log.head(connection, child)
    assert head is not None
    assert intent["child"] == {"run_id": str(child), "workflow": "part", "on_cancel": "cancel"}
    assert end["child"] == {**intent["child"], "status": "completed", "seq": head.seq, "chain": head.chain.hex()}
    parent = facts[0].data
    accepted = below[0].data
    assert accepted["parent"] == {"run_id": str(run_id), "key": "part#1", "depth": 1}
    assert [accepted[name] for name in ("caller", "tenant", "trace_id")] == [
        parent[name] for name in ("caller", "tenant", "trace_id")
    ]
    assert (accepted["policy"]["version"], accepted["workflow_version"]) == (3, 1)
    assert accepted["limits"] == {"run_s": 180.0, "attempts_max": 3}
    assert public(fold(below))["parent"]["run_id"] == str(run_id)
    assert public(fold(facts))["children"] == [end["child"]]
    assert public(fold(facts[:3]))["children"] == [intent["child"]]


async def test_a_parent_that_waits_holds_no_worker_and_is_woken_by_its_childs_end_without_redis(family: Family) -> None:
    run_id = await family.play(asks, answers)
    await family.stage.once(run_id)
    resting = await family.head(run_id)
    assert (resting.lease_until, resting.status) == (None, "running")
    assert resting.due_at is not None
    [child] = await family.below(run_id)
    assert family.handed == [child]
    before = await family.runs.facts(run_id)
    await family.stage.once(run_id)  # nobody may have it before it is due
    assert await family.runs.facts(run_id) == before
    family.stage.more = {**family.stage.more, "hand_over": None}
    await family.stage.once(child)
    assert (await family.head(run_id)).due_at is None
    await family.stage.once(run_id)
    assert (await family.runs.facts(run_id))[-1].type == "result"


async def test_a_child_that_ends_while_its_parent_is_laid_to_rest_is_not_slept_through(family: Family) -> None:
    """The parent's owner has looked and seen nothing; then the child ends; then the parent is laid to rest."""
    run_id = await family.play(asks, answers)
    looked, ended = asyncio.Event(), asyncio.Event()
    suspend = log.suspend

    async def late(*args: Any) -> str:
        if not looked.is_set():
            looked.set()
            await ended.wait()
        return await suspend(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "suspend", late)
        task = family.stage.own(run_id)
        await looked.wait()
        [child] = await family.below(run_id)
        await family.stage.once(child)
        ended.set()
        await task
    assert (await family.runs.facts(run_id))[-1].type == "result"


async def test_a_childs_failure_is_raised_in_its_parent_and_again_after_a_crash(family: Family) -> None:
    async def fails(run: Run, _: Nothing) -> Nothing:
        raise WorkflowFailed("no_luck", "No luck today.", retryable=True)

    async def catches(run: Run, _: Nothing) -> Nothing:
        try:
            await run.child("part", Nothing())
        except WorkflowFailed as fault:
            await run.step("note", str, fault.code)
            return await run.validate(Nothing(text=f"{fault.code}: {fault.message} {fault.retryable}"), [])
        return Nothing()

    run_id = await family.play(catches, fails)
    facts = await family.carry(run_id)
    assert facts[-1].data["output"] == {"text": "no_luck: No luck today. True"}
    run_id = await family.play(asks, fails)
    facts = await family.carry(run_id)
    assert (facts[-1].type, facts[-1].data["code"], facts[-1].data["retryable"]) == ("error", "no_luck", True)


async def test_a_child_that_somebody_cancelled_fails_the_call(family: Family) -> None:
    run_id = await family.play(asks, answers)
    await family.stage.once(run_id)
    [child] = await family.below(run_id)
    await family.runs.cancel(child)
    facts = await family.carry(run_id)
    assert facts[-1].data["code"] == "child_cancelled"
    assert public(fold(facts))["children"][0]["status"] == "cancelled"


async def test_an_owner_that_dies_anywhere_opens_its_child_once(family: Family) -> None:
    run_id = await family.play(asks, answers)
    whole = await family.carry(run_id)
    for at_seq in range(2, len(whole)):
        run_id = await family.play(asks, answers)
        for dies in (True, False):
            task = family.stage.own(run_id)
            if dies:

                async def reached(run_id: UUID = run_id, task: Any = task, at_seq: int = at_seq) -> bool | None:
                    async with family.runs.engine.connect() as connection:
                        head = await log.head(connection, run_id)
                    return True if task.done() or (head is not None and head.seq >= at_seq) else None

                await until(reached, f"seq {at_seq}")
                await family.stage.die(run_id)
        facts = await family.carry(run_id)
        assert facts[-1].data["output"] == {"text": "told three is 3"}, f"died at {at_seq}"
        assert len(await family.below(run_id)) == 1, f"died at {at_seq}"
        assert len([fact for fact in facts if fact.type == "step"]) == 2, f"died at {at_seq}"


async def test_an_owner_that_dies_between_the_intent_and_the_opening_leaves_the_id_to_the_next(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await family.play(asks, answers)
    never = asyncio.Event()

    async def dies(*_: Any) -> str:
        await never.wait()
        return "ok"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eventstore.children.open_child", dies)
        family.stage.own(run_id)
        intent = await family.runs.has(run_id, "step", status="intent")
        await family.stage.die(run_id)
    assert await family.below(run_id) == []
    await family.carry(run_id)
    assert [str(child) for child in await family.below(run_id)] == [intent.data["child"]["run_id"]]


@pytest.mark.parametrize(("on_cancel", "end"), [("cancel", "cancelled"), ("keep", "result")])
async def test_a_cancel_reaches_the_child_as_it_was_declared(family: Family, on_cancel: Any, end: str) -> None:
    async def keeps(run: Run, _: Nothing) -> Nothing:
        return Nothing.model_validate(await run.child("part", Nothing(text="x"), on_cancel=on_cancel))

    run_id = await family.play(keeps, answers)
    await family.stage.once(run_id)
    await family.runs.cancel(run_id, "not needed")
    facts = await family.carry(run_id)
    assert facts[-1].type == "cancelled"
    [child] = await family.below(run_id)
    await family.stage.once(child)
    below = await family.runs.ended(child)
    assert below[-1].type == end
    if end == "cancelled":
        assert below[-1].data["by"] == facts[-1].data["by"]
        assert "not needed" in below[-1].data["reason"]


async def test_a_run_that_fails_or_is_over_takes_its_children_with_it(family: Family) -> None:
    async def leaves(run: Run, _: Nothing) -> Nothing:
        async def child(run: Run) -> None:
            await run.child("part", Nothing(text="x"))

        async def fails(run: Run) -> None:
            await run.step("wait", opened.wait)
            raise WorkflowFailed("enough", "Enough.")

        await run.gather({"child": child, "fails": fails})
        return Nothing()

    opened = asyncio.Event()
    run_id = await family.play(leaves, answers)
    task = family.stage.own(run_id)

    async def there() -> bool | None:
        return bool(await family.below(run_id)) or None

    await until(there, "the child")
    opened.set()
    await task
    assert (await family.runs.facts(run_id))[-1].data["code"] == "enough"
    [child] = await family.below(run_id)
    await family.stage.once(child)
    assert (await family.runs.ended(child))[-1].type == "cancelled"


async def test_several_children_beside_each_other_and_beside_other_work(family: Family) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        async def one(run: Run, word: str) -> str:
            told = await run.child("part", Nothing(text=word), returns=Nothing)
            return str(told.text)

        told = await run.each(["a", "bb", "ccc"], one, key=str)
        said = await run.model("tell", ask("a"), section="a")
        return await run.validate(Nothing(text=" ".join([*told, said.text])), [])

    run_id = await family.play(story, answers)
    facts = await family.carry(run_id)
    assert facts[-1].data["output"] == {"text": "a is 3 bb is 3 ccc is 3 A1 A2 "}
    assert len(await family.below(run_id)) == 3


async def test_a_childs_end_is_seen_while_another_branch_works_on(family: Family) -> None:
    seen = asyncio.Event()

    async def story(run: Run, _: Nothing) -> Nothing:
        async def child(run: Run) -> None:
            await run.child("part", Nothing(text="x"))
            seen.set()

        async def works(run: Run) -> None:
            await run.step("work", seen.wait)

        await run.gather({"child": child, "works": works})
        return await run.validate(Nothing(), [])

    run_id = await family.play(story, answers)
    task = family.stage.own(run_id)

    async def there() -> bool | None:
        return bool(await family.below(run_id)) or None

    await until(there, "the child")
    [child] = await family.below(run_id)
    await family.stage.once(child)
    await asyncio.wait_for(task, 20)
    assert (await family.runs.facts(run_id))[-1].type == "result"


async def deeper(run: Run, value: Nothing) -> Nothing:
    return Nothing.model_validate(await run.child("part", value))


@pytest.mark.parametrize("why", ["workflow", "role", "policy", "input", "unregistered"])
async def test_what_the_api_would_refuse_is_refused_and_the_refusal_is_a_recorded_failure(
    family: Family, why: str
) -> None:
    async def story(run: Run, _: Nothing) -> Nothing:
        name = "nobody" if why == "workflow" else "part"
        try:
            await run.child(name, {"text": 5} if why == "input" else Nothing())
        except WorkflowFailed as fault:
            await run.step("note", str, fault.code)
            return await run.validate(Nothing(text=fault.code), [])
        return Nothing()

    if why == "unregistered":
        async with family.engine.begin() as connection:
            await connection.execute(text("UPDATE runwire.workflow SET version = 0 WHERE name = 'part'"))
    run_id = await family.play(story, answers, known=why != "unregistered")
    if why == "role":
        family.policy("part", '["operator"]')
    if why == "policy":
        family.policy("another", '["user"]')
        (family.stage.more["policies"] / "part.toml").unlink()
    facts = await family.carry(run_id)
    expected = "workflow_unknown" if why == "workflow" else "child_refused"
    assert facts[-1].data["output"] == {"text": expected}
    assert await family.below(run_id) == []


async def test_runs_do_not_ask_for_each_other_without_end(family: Family) -> None:
    run_id = await family.play(deeper, deeper)
    chain = [run_id]
    while True:
        await family.stage.once(chain[-1])
        found = await family.below(chain[-1])
        if not found:
            break
        chain += found
    assert len(chain) == 9
    for each in reversed(chain):
        await family.stage.once(each)
    assert (await family.runs.facts(run_id))[-1].data["code"] == "child_refused"


async def test_only_the_parents_owner_can_open_or_stop_a_child(family: Family, worker_engine: AsyncEngine) -> None:
    run_id = await family.play(asks, answers)
    await family.stage.once(run_id)
    [child] = await family.below(run_id)
    stranger = await family.stage.submit()
    call = text("SELECT verdict FROM runwire.stop_child(:parent, :epoch, :child, 1::smallint, 0, '{}'::bytea)")
    for parent, epoch, verdict in ((run_id, 99, "fenced"), (stranger, 0, "unknown"), (child, 0, "unknown")):
        async with worker_engine.begin() as connection:
            told = await connection.execute(call, {"parent": parent, "epoch": epoch, "child": child})
            assert told.scalar_one() == verdict
    body = b'{"workflow":"part","workflow_version":1,"caller":{"subject":"eve"}}'
    opening = text(
        "SELECT verdict FROM runwire.open_child(:parent, :epoch, 'k', :run, 'part', 't', '{}', 1::smallint, 0, :body)"
    )
    async with worker_engine.begin() as connection:
        head = await log.head(connection, stranger)
        assert head is not None
        for epoch, run, verdict in (
            (head.epoch + 1, UUID(int=stranger.int + 1), "fenced"),
            (head.epoch, child, "mismatch"),
            (head.epoch, UUID(int=stranger.int + 1), "mismatch"),  # in somebody else's name
            (head.epoch, UUID(int=run_id.int - 1), "mismatch"),  # older than its parent
        ):
            told = await connection.execute(opening, {"parent": stranger, "epoch": epoch, "run": run, "body": body})
            assert told.scalar_one() == verdict
