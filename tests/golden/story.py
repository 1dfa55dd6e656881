"""What a golden log holds: runs of every kind, every event type, three blocks, a new key, and a part not sealed yet."""

from typing import Any
from uuid import UUID

from eventstore import log, signing
from eventstore.domain.events import (
    Body,
    Cancelled,
    CancelObserved,
    CancelRequested,
    CheckOutcome,
    Error,
    Finding,
    ModelCall,
    Person,
    Progress,
    Reasoning,
    Result,
    Retry,
    Started,
    Step,
    Token,
    ToolCall,
    ToolResult,
    Usage,
    Validation,
    new_event,
)
from eventstore.seal import Sealer
from tests.sealing import Desk
from tests.writing import NOW_US, append, batch, claim, new_tenant, open_run, started, token

ADA, OLGA = Person(subject="ada", role="user"), Person(subject="olga", role="operator")
SPENT = Usage(input_tokens=1200, output_tokens=340, reasoning_tokens=25, source="provider")
HARD_TEXT = 'Clause 4.1 ✓ – „quoted“ "so"\n\ttab, \\ and / and \u2028, 文, 🖋, é and e\u0301.'


class Owner:
    """One owner of one run, and the batches that it has stored."""

    def __init__(self, d: Desk, run_id: UUID) -> None:
        self._d = d
        self.run_id = run_id
        self._epoch = 0
        self._number = 0

    async def take(self) -> "Owner":
        claimed = await claim(self._d.worker, self.run_id)
        assert claimed.epoch is not None
        self._epoch, self._number = claimed.epoch, 0
        return self

    async def store(self, *bodies: Body) -> None:
        self._number += 1
        [answer] = await append(self._d.worker, batch(self.run_id, self._epoch, self._number, *bodies))
        assert answer.verdict == "ok", answer

    async def give_back(self) -> None:
        async with self._d.worker.begin() as connection:
            await log.release(connection, self.run_id, self._epoch)


async def tell(d: Desk) -> None:
    """All of it, through the functions that the application uses."""
    other, sealer = await new_tenant(d.owner, "globex"), d.sealer()
    await _completed(await _new(d, d.tenant))
    working = await _new(d, other)
    await working.store(started(), Finding(item="fee", value={"clause": "4.1", "eur": 12.5}, **_call(1)), token("A"))
    await _seal(sealer, 1)
    await _failed(await _new(d, d.tenant))
    await _cancelled(d, await _new(d, other))
    await _handed_over(await _new(d, d.tenant))
    await _seal(sealer, 2)
    signing.rotate(d.key_file)
    await _cancelled_while_queued(d)
    await working.store(token("B"), token("C"))
    await _seal(sealer, 3)
    await open_run(d.api, d.tenant)
    await working.store(token("D"))
    await working.give_back()


async def _new(d: Desk, tenant: UUID) -> Owner:
    return await Owner(d, (await open_run(d.api, tenant)).run_id).take()


async def _seal(sealer: Sealer, size: int) -> None:
    tick = await sealer.tick()
    assert (tick.size, tick.signed, tick.fault) == (size, size, None), tick


async def _cancel(d: Desk, run_id: UUID, reason: str) -> None:
    async with d.api.begin() as connection:
        answer = await log.control(connection, run_id, new_event(CancelRequested(by=OLGA, reason=reason), NOW_US))
    assert answer.verdict == "ok"


def _call(place: int, **more: Any) -> dict[str, Any]:
    return {"key": f"call#{place}", "place": place, "args": f"{place:02d}", **more}


def _model(place: int, **more: Any) -> ModelCall:
    return ModelCall(
        name="draft", section="comments", model="m-1", parameters={"temperature": 0.2}, prompt_digest="ab", usage=SPENT,
        **{"finish": "stop", "pieces": 3, **_call(place), **more},
    )  # fmt: skip


async def _completed(run: Owner) -> None:
    await run.store(started())
    await run.store(
        Progress(state="uploaded", label="Uploaded", index=1, total=2, key="p1", detail=HARD_TEXT, done=1, of=3),
        Step(name="parse", status="intent", **_call(1)),
        Step(name="parse", status="ok", output={"clauses": [1, None, {"deep": []}], "text": ""}, **_call(1)),
        Step(name="send", status="failed", error="no", **_call(2, under="call#1", attempt=2)),
    )
    await run.store(Reasoning(text="Which law?", step="draft#1", attempt=1), token(HARD_TEXT))
    await run.store(
        token(""),
        Token(text='{"a":', section="findings", step="draft#1", attempt=1, shape="json"),
        ToolCall(tool="lookup", call_id="c1", arguments={"q": HARD_TEXT}, shown={"q": "…"}, key="t1"),
        ToolResult(
            tool="lookup", call_id="c1", status="ok", summary="2 hits", result_count=2, duration_ms=7,
            output=["x", 1.5, False], **_call(3),
        ),
        Finding(item="fee", value={"clause": "4.1"}, **_call(4)),
        Finding(item="fee", value={"clause": "4.2"}, replaces=13, **_call(5)),
        _model(6, model_served="m-1b", first_piece_ms=120, per_piece_ms=3.25, request_id="r-1"),
    )  # fmt: skip
    checks = [CheckOutcome(name="cites", passed=True, detail="3 of 3"), CheckOutcome(name="length", passed=False)]
    await run.store(Validation(passed=True, checks=checks, value_digest="cd", seqs=[(7, 8), (13, 14)], **_call(7)))
    await run.store(
        Progress(state="ready", label="Ready for review", index=2, total=2, key="p2"),
        Result(output={"summary": HARD_TEXT, "findings": [1]}, counts={"findings": 1}, usage=SPENT),
    )


async def _failed(run: Owner) -> None:
    await run.store(started(), token("Lost"))
    await run.store(
        Retry(what="model", key="draft#1", reason="timeout", message="gave up", superseded=[(3, 3)], attempt=3)
    )
    await run.store(Error(code="model_failed", message="The model did not answer.", partial={}, retryable=True))


async def _cancelled(d: Desk, run: Owner) -> None:
    await run.store(started(), token("Half of "), token("it"))
    await _cancel(d, run.run_id, "not needed any more")
    await run.store(token(", and a piece that was on its way"))
    await run.store(CancelObserved(seen_us=NOW_US + 5, model_closed_us=NOW_US + 9, usage=SPENT))
    await run.store(
        Cancelled(
            reason="not needed any more", by=OLGA, partial={"sections": {"comments": "Half of it"}},
            missing=["summary"], assembled_by="workflow", validated=True,
        )
    )  # fmt: skip


async def _handed_over(run: Owner) -> None:
    await run.store(started(), Step(name="parse", status="ok", output=1, **_call(1)))
    await run.store(token("Superseded "), token("text"), Finding(item="gone", value={"n": 1}, **_call(2)))
    await run.give_back()
    await run.take()
    await run.store(
        Started(attempt=2, worker="other", code="c2", workflow_version=1, resumed_from=3),
        Retry(
            what="run", key="draft#1", reason="worker_lost", message="taken over", superseded=[(4, 6)], attempt=1,
            next_attempt=2, wait_s=0.5,
        ),
        token("Living text", attempt=2),
    )  # fmt: skip
    await run.store(_model(3, attempt=2), Result(output={"ok": True}, counts={}, usage=SPENT))


async def _cancelled_while_queued(d: Desk) -> None:
    run_id = (await open_run(d.api, d.tenant)).run_id
    await _cancel(d, run_id, "")
    run = await Owner(d, run_id).take()
    ended = Cancelled(reason="", by=ADA, partial={}, missing=[], assembled_by="default")
    await run.store(ended)
