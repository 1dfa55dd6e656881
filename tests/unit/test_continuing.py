"""Answers that are gone on with after a cut or at their length limit: the text once, whoever speaks the rest of it."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from eventstore.domain.transcript import section_text
from tests.carrying import Carried, Nothing, Scripted, declared, told
from worker.holding import Redaction
from worker.llm.continuing import GO_ON, ContinueBy, Joint, continue_by, continued, with_room
from worker.llm.model import ModelEnd, ModelFault, ModelRequest, Piece, TextPiece, Usage
from worker.run import Run
from worker.stops import WorkflowFailed

WORDS = ["One ", "two ", "three ", "four ", "five ", "six."]
WHOLE = "".join(WORDS)


def ask(question: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": question}]


class Continuing(Scripted):
    """A model that goes on after what it is shown of its answer, and may say the end of that again."""

    def __init__(self, whole: str = WHOLE, *, again: int = 0, room: int | None = None) -> None:
        super().__init__({})
        self.whole = whole
        self.again = again
        self.room = room
        self.breaks: list[int | None] = []
        self.rooms: list[Any] = []
        self.hang_at: int | None = None

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Piece | ModelEnd, None]:
        self.requests.append(request)
        self.rooms.append(request.parameters.get("max_completion_tokens"))
        last = request.messages[-1]
        answers = [each for each in request.messages if each["role"] == "assistant"]
        said = answers[-1]["content"] if answers else ""
        if last["content"] == GO_ON:
            said = said[: max(0, len(said) - self.again)]
        rest = self.whole[len(said) :]
        pieces = [rest[at : at + 4] for at in range(0, len(rest), 4)]
        room = self.rooms[-1] or self.room
        broken = self.breaks.pop(0) if self.breaks else None
        for number, piece in enumerate(pieces[:room]):
            if number == broken:
                raise ModelFault("connection", "It broke.", retryable=True)
            if number == self.hang_at:
                await asyncio.Event().wait()
            yield TextPiece(piece)
        if broken is not None and broken >= len(pieces):
            raise ModelFault("connection", "It broke.", retryable=True)
        finish = "length" if room is not None and room < len(pieces) else "stop"
        yield ModelEnd(finish, finish, Usage(1, 2), None, None, None, None, 0.0, len(pieces[:room]))


def story(**options: Any) -> Any:
    async def code(run: Run, _: Nothing) -> Nothing:
        said = await run.model("tell", ask("tell"), section="s", **options)
        await run.step("after", str, 1)
        return await run.validate(Nothing(text=said.text), [])

    return code


async def reading(run: Run, _: Nothing) -> Nothing:
    """A finding for each piece, made while the model speaks."""
    text = ""
    async for piece in run.model("tell", ask("tell"), section="s", resume="continue").text():
        text += piece
        await run.finding(Nothing(text=text), item=str(len(text)))
    return await run.validate(Nothing(text=text), [])


def output(carried: Carried) -> str:
    return str(carried.of("result")[0].data["output"]["text"])


@pytest.mark.parametrize("again", [0, 5, 200])
@pytest.mark.parametrize("cuts", [[3], [1, 2], [0], [0, 0], [7]])
async def test_a_cut_answer_is_gone_on_with_and_nothing_of_it_is_dead(cuts: list[int], again: int) -> None:
    model = Continuing(again=again)
    model.breaks = [*cuts]
    carried = Carried(declared(story(resume="continue")), model)
    assert await carried.carry() is None
    assert (output(carried), section_text(carried.state, "s")) == (WHOLE, WHOLE)
    retries = [(fact.data["superseded"], fact.data["next_attempt"]) for fact in carried.of("retry")]
    assert retries == [([], number) for number in range(2, len(cuts) + 2)]
    [call] = carried.of("model_call")
    assert call.data["attempt"] == len(cuts) + 1


async def test_without_it_a_cut_answer_starts_again() -> None:
    model = Continuing()
    model.breaks = [3]
    carried = Carried(declared(story()), model)
    assert await carried.carry() is None
    assert carried.of("retry")[0].data["superseded"]
    assert (output(carried), section_text(carried.state, "s")) == (WHOLE, WHOLE)
    assert len(model.requests[1].messages) == 1


@pytest.mark.parametrize("cuts", [[], [3], [1, 2]])
async def test_another_worker_goes_on_after_what_the_log_has(cuts: list[int]) -> None:
    def carried_with() -> Carried:
        model = Continuing(again=6)
        model.breaks = [*cuts]
        return Carried(declared(story(resume="continue")), model)

    whole = carried_with()
    assert await whole.carry() is None
    for die_at in range(2, len(whole.facts)):
        carried = carried_with()
        await carried.carry(die_at=die_at)
        before = section_text(carried.state, "s")
        assert await carried.carry() is None, f"died at {die_at}"
        assert section_text(carried.state, "s") == output(carried) == WHOLE, f"died at {die_at}"
        assert told(carried.state) == told(whole.state)
        assert section_text(carried.state, "s").startswith(before)
        assert all(not fact.data["superseded"] for fact in carried.of("retry"))
        if before and len(carried.of("model_call")) == 1 and before != WHOLE:
            assert carried.model.requests[-1].messages[1]["content"].startswith(before)


@pytest.mark.parametrize("cuts", [[], [3], [1, 2]])
async def test_a_stream_that_is_read_and_gone_on_with_is_not_rewound(cuts: list[int]) -> None:
    def carried_with() -> Carried:
        model = Continuing(again=6)
        model.breaks = [*cuts]
        return Carried(declared(reading), model)

    whole = carried_with()
    assert await whole.carry() is None
    assert (output(whole), section_text(whole.state, "s")) == (WHOLE, WHOLE)
    assert all(not fact.data["superseded"] for fact in whole.of("retry"))
    for die_at in range(2, len(whole.facts)):
        carried = carried_with()
        await carried.carry(die_at=die_at)
        made = [fact.data["item"] for fact in carried.of("finding")]
        assert await carried.carry() is None, f"died at {die_at}"
        assert section_text(carried.state, "s") == output(carried) == WHOLE, f"died at {die_at}"
        items = [fact.data["item"] for fact in carried.of("finding")]
        assert items[: len(made)] == made, "what was made of the first half stands"
        assert len(items) == len(set(items))


async def test_an_answer_that_breaks_too_often_leaves_nothing_and_fails() -> None:
    model = Continuing()
    model.breaks = [3, 0, 1, 1, 1]
    carried = Carried(declared(story(resume="continue")), model)
    assert isinstance(await carried.carry(), WorkflowFailed)
    assert [fact.data.get("next_attempt") for fact in carried.of("retry")] == [2, 3, None]
    assert not carried.state.sections
    assert carried.of("error")[0].data["code"] == "connection"


async def test_what_was_kept_is_dead_when_the_code_does_not_go_on_any_more() -> None:
    carried = Carried(declared(story(resume="continue")), Continuing())
    await carried.carry(die_at=3)
    assert section_text(carried.state, "s")
    assert not carried.of("model_call")
    assert await carried.carry(workflow=declared(story(), code="c2c2")) is None
    assert section_text(carried.state, "s") == output(carried) == WHOLE
    assert len(carried.model.requests) == 2
    assert len(carried.model.requests[-1].messages) == 1
    assert carried.of("retry")[-1].data["superseded"] == [[3, 3]]


async def test_what_is_held_back_and_redacted_stays_so_over_a_cut() -> None:
    def carried_with(cuts: list[int]) -> Carried:
        model = Continuing("Ask ada@example.org or bob@example.org today. They know it all. Bye.", again=10)
        model.breaks = [*cuts]
        mail = [Redaction(r"[a-z]+@[a-z.]+[a-z]")]
        return Carried(declared(story(resume="continue", hold="sentence", redact=mail)), model)

    whole = carried_with([])
    assert await whole.carry() is None
    assert output(whole) == "Ask [redacted] or [redacted] today. They know it all. Bye."
    for cut in range(18):
        carried = carried_with([cut])
        assert await carried.carry() is None
        assert "@" not in repr([fact.data for fact in carried.of("token")]), f"cut at {cut}"
        assert section_text(carried.state, "s") == output(carried)


async def test_at_its_length_limit_an_answer_goes_on_in_the_same_call() -> None:
    carried = Carried(declared(story(on_length="continue")), Continuing(again=5, room=3))
    assert await carried.carry() is None
    assert section_text(carried.state, "s") == output(carried) == WHOLE
    [call] = carried.of("model_call")
    assert (call.data["finish"], call.data["usage"]["output_tokens"]) == ("stop", 2 * len(carried.model.requests))
    assert not carried.of("retry")


async def test_a_model_that_says_nothing_more_at_its_length_limit_ends_the_call() -> None:
    model = Continuing(room=3)
    model.room = 0
    carried = Carried(declared(story(on_length="continue")), model)
    assert isinstance(await carried.carry(), WorkflowFailed)
    assert carried.of("error")[0].data["code"] == "model_length"
    assert len(model.requests) == 2


async def test_at_its_length_limit_an_answer_is_kept_as_it_is_or_offered() -> None:
    kept = Carried(declared(story(on_length="keep")), Continuing(room=3))
    assert await kept.carry() is None
    assert output(kept) == "One two thre"
    offered = Carried(declared(story()), Continuing(room=3))
    fault = await offered.carry()
    assert isinstance(fault, WorkflowFailed)
    assert (fault.code, fault.retryable) == ("model_length", True)
    assert section_text(offered.state, "s") == "One two thre", "the text stays, for the partial result"


async def valued(run: Run, _: Nothing) -> Nothing:
    return await run.validate(await run.value("tell", ask("tell"), Nothing), [])


@pytest.mark.parametrize("kind", ["value", "items"])
async def test_half_a_value_is_none_and_is_asked_for_once_more_with_more_room(kind: str) -> None:
    async def read(run: Run, _: Nothing) -> Nothing:
        all_fields = [fields async for fields in run.partials("tell", ask("tell"), Nothing)]
        return await run.validate(Nothing(**all_fields[-1]), [])

    code = valued if kind == "value" else read
    carried = Carried(declared(code), Continuing('{"text":"abcdefgh"}', room=3))
    assert isinstance(await carried.carry(), WorkflowFailed), "twice two tokens are not enough"
    assert carried.of("error")[0].data["code"] == "model_length"
    assert carried.model.rooms == [None, 4]  # type: ignore[attr-defined]
    carried = Carried(declared(code), Continuing('{"text":"abc"}', room=3))
    assert await carried.carry() is None
    [retry] = carried.of("retry")
    assert (retry.data["reason"], retry.data["usage"]["output_tokens"]) == ("model_length", 2)
    assert output(carried) == "abc"


async def test_a_value_is_gone_on_with_only_where_the_provider_promises_not_to_begin_anew() -> None:
    async def code(run: Run, _: Nothing) -> Nothing:
        return await run.validate(await run.value("tell", ask("tell"), Nothing, resume="continue"), [])

    ways: list[tuple[ContinueBy, bool]] = [("ask", True), ("prefix", False), ("final", False)]
    for by, dead in ways:
        model = Continuing('{"text":"abcdefgh"}')
        model.breaks = [2]
        carried = Carried(declared(code), model, continue_by=by)
        assert await carried.carry() is None
        assert output(carried) == "abcdefgh"
        assert bool(carried.of("retry")[0].data["superseded"]) == dead


def test_how_a_provider_is_asked_for_the_rest() -> None:
    request = ModelRequest("m", ({"role": "user", "content": "q"},), {"temperature": 0})
    asked = continued(request, "so far", "ask")
    assert [message["role"] for message in asked.messages] == ["user", "assistant", "user"]
    assert continued(request, "so far", "prefix").messages[1:] == (
        {"role": "assistant", "content": "so far", "prefix": True},
    )
    final = continued(request, "so far", "final")
    assert final.messages[1:] == ({"role": "assistant", "content": "so far"},)
    assert final.parameters == {"temperature": 0, "continue_final_message": True, "add_generation_prompt": False}
    assert with_room(request, 7).parameters["max_completion_tokens"] == 14
    assert with_room(ModelRequest("m", (), {"max_tokens": 10}), 7).parameters == {"max_tokens": 20}


@pytest.mark.parametrize(
    ("address", "by"),
    [
        ("https://api.deepseek.com/beta", "prefix"),
        ("https://api.deepseek.com/v1", "ask"),
        ("https://api.mistral.ai/v1", "prefix"),
        ("https://api.openai.com/v1", "ask"),
        ("http://127.0.0.1:8000/v1", "ask"),
    ],
)
def test_which_providers_take_a_prefix(address: str, by: str) -> None:
    assert continue_by(address) == by


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("It is three", " o'clock.", " o'clock."),
        ("It is three", "It is three o'clock.", " o'clock."),
        ("It is three", "is three o'clock.", " o'clock."),
        ("no end", "dear me", "dear me"),
        ("abcd", "abcd", ""),
        ("x" * 300, "x" * 300, "x" * 100),
    ],
)
def test_what_a_continuation_says_again_is_left_out_however_it_comes(before: str, after: str, kept: str) -> None:
    for size in (1, 3, 1_000):
        joint = Joint(before, "ask")
        pieces = [joint.feed(after[at : at + size]) for at in range(0, len(after), size)]
        assert "".join([*pieces, joint.close()]) == kept
    joint = Joint(before, "prefix")
    assert joint.feed(after) + joint.close() == after
