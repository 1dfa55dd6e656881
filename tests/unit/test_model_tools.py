"""What a model asks its tools: what fits is called as the tool wants it, what does not is told in words."""

import asyncio
import gc
from typing import Any
from weakref import ref

import pytest
from pydantic import BaseModel, SecretStr

from tests.carrying import Nothing, declared, told
from tests.tooling import MADE, Answering, ask, call, carried_with, ends, look_up, note, output
from worker.declare import Tool, tool
from worker.history import read_history
from worker.holding import Redaction
from worker.llm.model import ToolCallPiece
from worker.run import Run
from worker.settings import WorkerSettings
from worker.stops import Misused, WorkflowFailed
from worker.toolbox import ToolContext, offered


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    MADE.clear()


@tool(effect=True)
async def send(ctx: ToolContext, to: str) -> str:
    MADE.append(f"send {to} {ctx.idempotency_key.partition('/')[2]}")
    return f"sent to {to}"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (call("look_up", '{"word":'), "no JSON object"),
        (call("look_up", "[1]"), "no JSON object"),
        (call("look_up", '{"word":"a","word":"b"}'), "no JSON object"),
        (call("look_up", '{"word":"a\\u0000b"}'), "no JSON object"),
        (call("look_up", "{}"), "word: Field required"),
        (call("look_up", '{"word":"abc","limit":"many"}'), "limit: Input should be a valid integer"),
        (call("look_up", '{"word":"abc","deep":1}'), "deep: Extra inputs are not permitted"),
        (call("delete/all#", "{}"), "there is no tool of this name; there are: fail, look_up, note"),
        (call("fail", '{"why":"It is closed today."}'), "It is closed today."),
    ],
    ids=lambda each: getattr(each, "arguments", each)[:24],
)
async def test_a_call_that_cannot_be_made_or_fails_has_a_result_that_the_model_reads(
    asked: ToolCallPiece, why: str
) -> None:
    carried = carried_with(script=Answering([asked], ["Sorry, then not."]))
    assert await carried.carry() is None
    [result] = carried.of("tool_result")
    assert (result.data["status"], why in result.data["output"]["error"]) == ("failed", True), result.data["output"]
    assert why not in result.data["summary"], "people are told no more than that it failed"
    sent = carried.model.requests[-1].messages
    assert why in sent[-1]["content"]
    assert output(carried) == "1 Sorry, then not. 2"


async def test_arguments_that_are_no_json_are_sent_back_as_they_were_written() -> None:
    carried = carried_with(script=Answering([call("look_up", '{"word":')], ["Sorry."]))
    assert await carried.carry() is None
    [asked] = carried.of("tool_call")
    assert (asked.data["written"], asked.data["arguments"]) == ('{"word":', {})
    assert carried.model.requests[-1].messages[1]["tool_calls"][0]["function"]["arguments"] == '{"word":'


async def test_arguments_that_are_empty_are_none_at_all() -> None:
    @tool()
    async def now() -> str:
        """Says when."""
        return "noon"

    async def code(run: Run, _: Nothing) -> Nothing:
        return await ends(run, (await run.model("agent", ask("go"), section="s", tools=[now])).text)

    carried = carried_with(code, Answering([call("now", "")], ["At noon."]))
    assert await carried.carry() is None
    assert carried.of("tool_result")[0].data["output"] == "noon"


async def test_calls_that_only_read_are_made_beside_each_other_and_others_alone_in_their_order() -> None:
    at_once, most = 0, {"look": 0, "write": 0}
    gate = asyncio.Event()

    @tool(reads_only=True)
    async def look(n: int) -> int:
        nonlocal at_once
        at_once += 1
        most["look"] = max(most["look"], at_once)
        if n == 2:
            gate.set()
        await gate.wait()  # the first answers only when the second was called
        at_once -= 1
        return n

    @tool()
    async def write(n: int) -> int:
        nonlocal at_once
        at_once += 1
        most["write"] = max(most["write"], at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return n

    async def code(run: Run, _: Nothing) -> Nothing:
        return await ends(run, (await run.model("agent", ask("go"), section="s", tools=[look, write])).text)

    names = ["look", "look", "write", "write"]
    calls = [call(name, f'{{"n":{n}}}', n) for n, name in enumerate(names, start=1)]
    carried = carried_with(code, Answering(calls, ["Done."]))
    assert await carried.carry() is None
    assert most == {"look": 2, "write": 1}
    assert [fact.data["output"] for fact in carried.of("tool_result")] == [1, 2, 3, 4]


SENDING = Answering([call("send", '{"to":"ada"}')], ["Sent."])


async def sending(run: Run, _: Nothing) -> Nothing:
    return await ends(run, (await run.model("agent", ask("go"), section="s", tools=[send])).text)


async def test_an_effect_is_called_with_one_key_wherever_its_owner_dies() -> None:
    whole = carried_with(sending, SENDING)
    assert await whole.carry() is None
    [intent] = [fact for fact in whole.of("step") if fact.data["status"] == "intent"]
    assert intent.seq < whole.of("tool_result")[0].seq
    keys = set(MADE)
    for die_at in range(2, len(whole.facts)):
        carried = carried_with(sending, SENDING)
        await carried.carry(die_at=die_at)
        assert await carried.carry() is None, f"died at {die_at}"
        assert told(carried.state) == told(whole.state), f"died at {die_at}"
    assert {*MADE} == keys == {"send ada agent#1:1"}


async def test_an_effect_whose_tool_is_a_tool_no_more_diverges() -> None:
    carried = carried_with(sending, SENDING)
    await carried.carry(die_at=5)
    assert carried.facts[-1].type == "step"

    async def other(run: Run, _: Nothing) -> Nothing:
        await run.model("agent", ask("go"), section="s", tools=[send])
        return await ends(run, "")

    history = read_history(carried.facts)
    assert history.intents["agent#1:1"].kind == "tool_result"
    assert await carried.carry(workflow=declared(other, code="c2")) is None


async def test_an_effect_under_an_open_stream_is_refused_before_anything_is_sent() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        async for _piece in run.model("outer", ask("outer"), section="o").text():
            await run.model("agent", ask("go"), section="s", tools=[send])
        return await ends(run, "")

    carried = carried_with(code, {"outer": ["a", "b", "c", "d", "e", "f"], **SENDING})
    carried.model.hang = asyncio.Event()
    carried.model.hang.set()
    assert isinstance(await carried.carry(), Misused)
    assert not MADE


async def test_what_a_tool_is_not_shown_is_told_to_nobody_but_the_log() -> None:
    carried = carried_with(script=Answering([call("fail", '{"why":"hush"}')], ["Done."]))
    assert await carried.carry() is None
    assert carried.of("tool_call")[0].data["shown"] == {}


CANARY = "canary-7f3a"


@tool(shown=("query",))
async def ask_archive(ctx: ToolContext, query: str) -> dict[str, str]:
    """Echoes what it was given, as careless servers do."""
    assert ctx.time_left_s > 0
    return {"asked": query, "with": f"Bearer {ctx.secret('archive')}"}


@tool()
async def break_archive(ctx: ToolContext) -> str:
    """Fails with its secret in its mouth."""
    raise WorkflowFailed("no", f"401 for {ctx.secret('archive')}")


async def archive(run: Run, _: Nothing) -> Nothing:
    said = await run.model("agent", ask("go"), section="s", tools=[ask_archive, break_archive])
    await run.tool(ask_archive, query="q")
    return await ends(run, said.text)


async def test_a_secret_reaches_the_tool_and_neither_the_model_nor_the_log_nor_our_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = [call("ask_archive", '{"query":"caps"}'), call("break_archive", "{}", 1)]
    carried = carried_with(archive, Answering(calls, ["Done."]))
    carried.secrets = {"archive": SecretStr(CANARY)}
    assert await carried.carry() is None
    results = [fact.data["output"] for fact in carried.of("tool_result")]
    assert results[0] == {"asked": "caps", "with": "Bearer [secret]"}
    assert results[2] == {"asked": "q", "with": "Bearer [secret]"}
    assert results[1] == {"error": "401 for [secret]"}
    told_out = capsys.readouterr()
    for place in (carried.facts, carried.model.requests, told_out.out + told_out.err):
        assert CANARY not in repr(place)


async def test_a_secret_that_is_not_configured_is_a_failed_call() -> None:
    carried = carried_with(archive, Answering([call("ask_archive", '{"query":"caps"}')], ["Done."]))
    assert await carried.carry() is None
    assert carried.of("tool_result")[0].data["status"] == "failed"


async def test_what_is_redacted_in_the_text_is_redacted_in_what_it_asks_for() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        mail = Redaction(r"[a-z]+@[a-z.]+")
        said = await run.model("agent", ask("go"), section="s", tools=[look_up, note], redact=[mail])
        return await ends(run, said.text)

    carried = carried_with(code, Answering([call("note", '{"text":"to ada@example.org, now"}')], ["Done."]))
    assert await carried.carry() is None
    assert MADE == ["note to [redacted], now"]
    assert "ada@" not in repr(carried.facts)
    assert "ada@" not in repr(carried.model.requests[-1].messages)


async def test_tools_read_their_arguments_as_their_signature_says() -> None:
    class Place(BaseModel):
        city: str

    seen: list[Any] = []

    @tool()
    async def visit(place: Place, json: bool = False, *, days: int = 2) -> str:
        """Goes there."""
        seen.append((place, json, days))
        return "there"

    async def code(run: Run, _: Nothing) -> Nothing:
        return await ends(run, (await run.model("agent", ask("go"), section="s", tools=[visit])).text)

    carried = carried_with(code, Answering([call("visit", '{"place":{"city":"Ulm"},"days":3}')], ["Done."]))
    assert await carried.carry() is None
    assert seen == [(Place(city="Ulm"), False, 3)]
    function = carried.model.requests[0].tools[0]["function"]
    assert (function["name"], function["description"], function["strict"]) == ("visit", "Goes there.", False)
    assert set(function["parameters"]["properties"]) == {"place", "json", "days"}
    assert function["parameters"]["required"] == ["place"]
    assert function["parameters"]["additionalProperties"] is False


@pytest.mark.parametrize("wrong", ["no type", "star", "twice"])
async def test_what_a_model_cannot_be_told_is_refused_where_it_is_offered(wrong: str) -> None:
    @tool()
    async def untyped(word) -> str:  # type: ignore[no-untyped-def]
        return "x"

    @tool()
    async def star(*words: str) -> str:
        return "x"

    async def code(run: Run, _: Nothing) -> Nothing:
        offered = {"no type": [untyped], "star": [star], "twice": [note, note]}[wrong]
        await run.model("agent", ask("go"), section="s", tools=offered)
        return await ends(run, "")

    assert isinstance(await carried_with(code).carry(), ValueError)


async def test_an_answer_that_is_too_long_to_keep_is_a_failed_call() -> None:
    @tool()
    async def everything() -> str:
        """All of it."""
        return "x" * 300_000

    async def code(run: Run, _: Nothing) -> Nothing:
        return await ends(run, (await run.model("agent", ask("go"), section="s", tools=[everything])).text)

    carried = carried_with(code, Answering([call("everything", "{}")], ["Then less."]))
    assert await carried.carry() is None
    assert "ask for less" in carried.of("tool_result")[0].data["output"]["error"]


async def test_an_effect_that_ends_while_the_run_is_stopped_is_told() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    @tool(effect=True)
    async def post(n: int) -> str:
        begun.set()
        await go.wait()
        return "posted"

    async def code(run: Run, _: Nothing) -> Nothing:
        await run.model("agent", ask("go"), section="s", tools=[post])
        return await ends(run, "")

    carried = carried_with(code, Answering([call("post", '{"n":1}')], ["Done."]))
    task = asyncio.create_task(carried.carry())
    await begun.wait()
    assert carried.work is not None
    assert carried.own is not None
    carried.work.stop("cancel")
    carried.own.cancel()
    go.set()
    await asyncio.wait([carried.own])
    assert [fact.data["output"] for fact in carried.of("tool_result")] == ["posted"]
    assert not carried.work.effects
    await asyncio.gather(task, return_exceptions=True)


def test_secrets_come_from_the_configuration_and_are_not_told_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_TOOL_SECRETS", f'{{"archive": "{CANARY}"}}')
    settings = WorkerSettings()
    assert settings.tool_secrets["archive"].get_secret_value() == CANARY
    assert CANARY not in repr(settings)
    for wrong in (f'{{"archive": ["{CANARY}"]}}', f'{{"archive": "{CANARY}'):
        monkeypatch.setenv("RUNWIRE_TOOL_SECRETS", wrong)
        with pytest.raises(ValueError, match="tool_secrets") as caught:
            WorkerSettings()
        assert CANARY not in str(caught.value)


def test_a_tool_that_was_made_for_one_run_is_forgotten_with_it() -> None:
    def made_for(documents: list[str]) -> Tool:
        @tool()
        async def count(word: str) -> int:
            """How many documents hold a word."""
            return sum(word in document for document in documents)

        return count

    one = made_for(["a"])
    assert offered([one]) == offered([one])
    gone = ref(one.fn)
    del one
    gc.collect()
    assert gone() is None
