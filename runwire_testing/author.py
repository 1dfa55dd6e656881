"""What an author's test is given: runs that are started, watched, stopped, killed, cut off and replayed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
from pydantic import BaseModel

from eventstore.domain.events import CancelRequested, Continues, Decision, Person
from eventstore.domain.lifecycle import TERMINAL_STATUSES, TERMINAL_TYPES
from eventstore.domain.record import Fact, Recorded
from eventstore.domain.run import fold
from ops.golden import export, golden_runs
from runwire_testing.bench import ADA, Workbench
from runwire_testing.clock import Clock
from runwire_testing.ending import Ended, difference, ended, repeated, stopped_in_order
from runwire_testing.golden import partial_on_every_prefix, replayed
from runwire_testing.model import Cut, ScriptedModel, WatchedModel
from worker.declare import Workflow
from worker.llm.model import Model

T = TypeVar("T")

DEADLINE_S: Final = 30.0
LOOK_S: Final = 0.005
AT_ONCE: Final = 8
ANSWER_FIELDS: Final = ("key", "place", "args", "under", "attempt")


class Author:
    """Starts runs on a log of its own. `model` says what the scripted model answers."""

    def __init__(self, bench: Workbench, model: ScriptedModel, upstream: Model) -> None:
        self.model = model
        self.clock: Clock = bench.clock
        self._bench = bench
        self._upstream = upstream
        self._runs: list[AuthorRun] = []

    async def start(
        self,
        workflow: str,
        value: Mapping[str, Any] | None = None,
        *,
        sample: str | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> "AuthorRun":
        """Submit a run and carry it. Its input is the value, a sample by name, or the first sample."""
        declared = self._bench.workflows.get(workflow)
        if declared is None:
            known = ", ".join(sorted(self._bench.workflows))
            raise AssertionError(f"there is no workflow {workflow}; there are {known}")
        value = value if value is not None else _sample(declared, sample)
        declared.input.model_validate(value)
        run = AuthorRun(self._bench, self.model, self._upstream, declared, value, dict(limits or {}))
        self._runs.append(run)
        await run.begin()
        return run

    async def go_on(self, earlier: "AuthorRun") -> "AuthorRun":
        """Submit a run that continues this one, which must have ended without a result, and carry it."""
        run = await earlier.continued()
        self._runs.append(run)
        await run.begin()
        return run

    async def close(self) -> None:
        """Stop what still runs; replay what ended; tell of prompts that no script answered."""
        for run in self._runs:
            await run.abandon()
        unscripted = list(self.model.unscripted)
        assert not unscripted, "no script answers this prompt, so no model was asked:\n" + unscripted[0]
        self.model.heal()
        for run in self._runs:
            await run.same_fold_when_replayed()

    async def same_golden_runs(self, folder: Path) -> int:
        """Replay each run that was exported to this folder against today's code, with everything outside forbidden, and
        make the partial result of each of its beginnings. How many runs there were is told."""
        files = golden_runs(folder)
        for file, golden in files.items():
            workflow = self._bench.workflows.get(golden.workflow)
            assert workflow is not None, f"{file}: there is no workflow {golden.workflow} any more"
            problem = await replayed(workflow, golden) or partial_on_every_prefix(workflow, golden.facts)
            assert problem is None, f"{file}, replayed against version {workflow.version}: {problem}"
        return len(files)

    def forget(self) -> None:
        """Hold nothing against the runs so far: for a test of what a broken workflow does."""
        self._runs.clear()
        self.model.unscripted.clear()


class AuthorRun:
    """One run of a test."""

    def __init__(
        self,
        bench: Workbench,
        script: ScriptedModel,
        upstream: Model,
        workflow: Workflow,
        value: Mapping[str, Any],
        limits: dict[str, Any],
        continues: Continues | None = None,
    ) -> None:
        self._bench = bench
        self._script = script
        self._upstream = upstream
        self._workflow = workflow
        self._value = value
        self._limits = limits
        self._continues = continues
        self._model = WatchedModel(upstream, script)
        self._task: asyncio.Task[None] | None = None
        self.run_id = UUID(int=0)

    async def begin(self) -> None:
        """Accept it, and let a worker have it."""
        self.run_id = await self._bench.open(self._workflow, self._value, self._limits, self._continues)
        self._task = asyncio.create_task(self._go())

    async def _go(self) -> None:
        """Be carried, and again each time that what it waits for may have come."""
        while True:
            await self._bench.carry(self.run_id, self._model)
            if (await self._bench.head(self.run_id)).status in TERMINAL_STATUSES:
                return
            await asyncio.sleep(LOOK_S)

    async def continued(self) -> "AuthorRun":
        """The run that takes this one up, not begun."""
        ended = await self.end()
        assert ended.status != "completed", "a run that has its result is not continued"
        continues = await self._bench.end_of(self.run_id)
        return AuthorRun(
            self._bench, self._script, self._upstream, self._workflow, self._value, self._limits, continues
        )

    async def until(self, type_: str, **fields: Any) -> Fact:
        """Wait until the log holds an event of this type with these fields."""

        async def look() -> Fact | None:
            facts = await self._bench.facts(self.run_id)
            found = (fact for fact in facts if fact.type == type_ and _has(fact, fields))
            if (first := next(found, None)) is None and facts[-1].type in TERMINAL_TYPES:
                raise AssertionError(f"the run ended with {facts[-1].type} and without {type_} {fields}")
            return first

        return await self._wait(look, f"{type_} {fields}")

    async def cancel(self, reason: str = "the test has seen enough") -> None:
        """Ask the run to stop."""
        await self._bench.say(self.run_id, CancelRequested(by=ADA, reason=reason))

    async def answer(
        self, name: str, said: str | BaseModel | Mapping[str, Any], *, by: str = ADA.subject, note: str | None = None
    ) -> None:
        """Answer a question of this name, once it is asked: with one of its choices, or with what it asks for."""
        seq = (await self.until("escalation", name=name)).seq
        asked = [fact for fact in await self._bench.facts(self.run_id) if fact.seq >= seq]
        given = {fact.data["escalation"] for fact in asked if fact.type == "decision"}
        still = [fact for fact in asked if fact.type == "escalation" and fact.data["name"] == name]
        question = next((fact for fact in still if fact.seq not in given), still[-1])
        choices = question.data.get("choices", [])
        if bool(choices) != isinstance(said, str) or (choices and said not in choices):
            wanted = f"one of {', '.join(choices)}" if choices else "a value for the model that it names"
            raise AssertionError(f"the question {name} takes {wanted}, and was given {said!r}")
        value = said.model_dump(mode="json") if isinstance(said, BaseModel) else said
        how: dict[str, Any] = {"choice": value} if choices else {"answer": value}
        verdict = await self._bench.say(
            self.run_id, _decision(question, by=Person(subject=by, role="user"), note=note, **how)
        )
        assert verdict == "ok", f"the answer to {name} came to nothing: {verdict}"

    async def end(self) -> Ended:
        """Wait for the end."""

        async def look() -> Ended | None:
            facts = await self._bench.facts(self.run_id)
            if self._task is not None and self._task.done():
                self._task.result()  # what broke in the worker is the test's to see
            return ended(facts) if facts[-1].type in TERMINAL_TYPES else None

        return await self._wait(look, "the end of the run")

    async def same_fold_when_killed_after_every_append(self, *, every: int = 1) -> int:
        """Run it again for each event of its log, as if its worker had died when that was stored. How often is told.

        `every` looks at each so-manieth place only, for a run with a long log.
        """
        expected, recorded = await self._finished()
        places = range(1, len(recorded), every)

        async def one(place: int) -> str | None:
            run_id = await self._again()
            await self._bench.left_by_a_dead_owner(run_id, recorded[1:place])
            told = await self._carried(run_id, WatchedModel(self._upstream, self._script))
            return difference(expected, told) or _twice(told.facts)

        await self._all(one, places, lambda place: f"killed when event {place} ({recorded[place - 1].type}) was stored")
        return len(places)

    async def same_fold_when_cut_at_every_piece(self, *, every: int = 1) -> int:
        """Run it again for each piece that its model said, with the connection broken there. How often is told."""
        expected, _ = await self._finished()
        cuts = [Cut(asked, place) for asked in self._model.asked for place in range(0, asked.pieces + 1, every)]

        async def one(cut: Cut) -> str | None:
            told = await self._carried(await self._again(), WatchedModel(self._upstream, self._script, cut=cut))
            if not any(fact.type == "retry" for fact in told.facts):
                return "no answer was cut off, so this proves nothing"
            return difference(expected, told)

        await self._all(one, cuts, lambda cut: f"cut after piece {cut.after_pieces} of {cut.asked.pieces}")
        return len(cuts)

    async def cancelled_after_every_append(self, *, every: int = 1) -> int:
        """Run it again for each event of its log, asked to stop right after that one was stored. How often is told.

        Each ends exactly once, as cancelled unless it had ended before; nothing is said after the stop was seen; and
        the partial result is what the workflow's own assembler makes of the log.
        """
        expected, recorded = await self._finished()
        places = range(1, len(recorded), every)

        async def one(place: int) -> str | None:
            run_id = await self._again()

            async def cancel() -> None:
                await self._bench.say(run_id, CancelRequested(by=ADA, reason="the test stops every run"))

            if place == 1:
                await cancel()
            else:
                self._bench.recorder.once[run_id] = (place, cancel)
            told = await self._carried(run_id, WatchedModel(self._upstream, self._script))
            return stopped_in_order(self._workflow, expected, told)

        await self._all(one, places, lambda place: f"cancelled when event {place} was stored")
        return len(places)

    async def export_golden(self, folder: Path, name: str) -> Path:
        """Write this run, which must have ended, as `runwire export-golden` does."""
        async with self._bench.worker.connect() as connection:
            return await export(connection, self.run_id, folder, name)

    async def same_fold_when_replayed(self) -> None:
        """Go through the code once more with nothing but the log: whoever asks the world again has not read its log."""
        facts = await self._bench.facts(self.run_id)
        if facts[-1].type != "result" and facts[-1].data.get("code") != "validation_failed":
            return  # where a stop caught it or the world failed it is no part of the code
        recorded = (await self._bench.recorded(self.run_id))[1:-1]
        run_id = await self._again()
        await self._bench.left_by_a_dead_owner(run_id, recorded)
        told = await self._carried(run_id, WatchedModel(self._upstream, self._script, forbidden=True))
        new = [fact.type for fact in told.facts[len(recorded) + 1 : -1] if fact.type != "started"]
        broken = difference(ended(facts), told) or (f"it did something new: {', '.join(new)}" if new else None)
        assert broken is None, f"{self._workflow.name}, replayed from its own log: {broken}"

    async def abandon(self) -> None:
        """Let go of a run that a test did not see to its end."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _finished(self) -> tuple[Ended, list[Recorded]]:
        expected = await self.end()
        self._script.heal()
        assert expected.status != "cancelled", "a cancelled run ends where the stop caught it"
        return expected, await self._bench.recorded(self.run_id)

    async def _again(self) -> UUID:
        """The same run, not begun. One owner more than the first must be allowed."""
        attempts = max(2, self._limits.get("attempts_max", self._workflow.limits.attempts_max))
        limits = {**self._limits, "attempts_max": attempts}
        return await self._bench.open(self._workflow, self._value, limits, self._continues)

    async def _carried(self, run_id: UUID, model: WatchedModel) -> Ended:
        """To its end; what it asks on the way is answered as the first run was answered."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                await self._bench.carry(run_id, model, known_as=self.run_id)
                facts = await self._bench.facts(run_id)
                if facts[-1].type in TERMINAL_TYPES:
                    return ended(facts)
                await self._given_as_before(run_id, facts)

    async def _given_as_before(self, run_id: UUID, facts: list[Fact]) -> None:
        """A copy waits: give it the answer that the first run got, or let the time pass that it sleeps."""
        before = fold(await self._bench.facts(self.run_id)).questions.values()
        answers = {one["key"]: one["decision"] for one in before if "decision" in one}
        for seq, question in fold(facts).questions.items():
            if "decision" not in question and (answer := answers.get(question["key"])) is not None:
                body = {name: value for name, value in answer.items() if name != "seq"}
                await self._bench.say(run_id, Decision.model_validate({**body, "escalation": seq}))
        risen = {fact.data["key"] for fact in facts if fact.type == "step" and fact.data["status"] != "intent"}
        for fact in facts:
            if fact.type == "step" and fact.data.get("wait_s") is not None and fact.data["key"] not in risen:
                await self._bench.clock.to(fact.at_us + round(fact.data["wait_s"] * 1e6))
        await asyncio.sleep(LOOK_S)

    async def _all(
        self, one: Callable[[T], Awaitable[str | None]], wanted: Sequence[T], named: Callable[[T], str]
    ) -> None:
        """Several at once, or one by one where time must pass, as it passes for all. The first difference is told."""
        asleep = any(fact.data.get("wait_s") for fact in await self._bench.facts(self.run_id) if fact.type == "step")
        room = asyncio.Semaphore(1 if asleep else AT_ONCE)

        async def bounded(each: T) -> str | None:
            async with room:
                return await one(each)

        tasks = [asyncio.create_task(bounded(each)) for each in wanted]
        try:
            told = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for each, broken in zip(wanted, told, strict=True):
            assert broken is None, f"{self._workflow.name}, {named(each)}: {broken}"

    async def _wait(self, look: Callable[[], Awaitable[T | None]], what: str) -> T:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while (found := await look()) is None:
            assert loop.time() < deadline, f"waited {DEADLINE_S:g} s for {what}"
            await asyncio.sleep(LOOK_S)
        return found


def _decision(question: Fact, **more: Any) -> Decision:
    closing = {name: question.data[name] for name in ANSWER_FIELDS if name in question.data}
    return Decision(escalation=question.seq, because="answered", **closing, **more)


def _has(fact: Fact, fields: Mapping[str, Any]) -> bool:
    return all(fact.data.get(name) == value for name, value in fields.items())


def _twice(facts: list[Fact]) -> str | None:
    again = repeated(facts)
    return f"calls were made twice: {', '.join(again)}" if again else None


def _sample(workflow: Workflow, name: str | None) -> Mapping[str, Any]:
    files = sorted((workflow.folder / "samples").glob("*.json"))
    chosen = next((file for file in files if name is None or file.stem == name), None)
    if chosen is None:
        raise AssertionError(f"{workflow.name} has no sample {name or ''}; there are {[file.stem for file in files]}")
    value: Mapping[str, Any] = orjson.loads(chosen.read_bytes())
    return value
