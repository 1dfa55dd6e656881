"""The agent reasons and acts, sees a stop between and within steps, and ends the same wherever it was broken off."""

from collections import Counter

from runwire_testing.author import Author

pytest_plugins = ("runwire_testing.plugin",)

SHORT = {
    "title": "Two things",
    "topics": ["the cap", "the moon"],
    "documents": [{"name": "terms.txt", "text": "1. Fees are due monthly.\n2. The cap is two million."}],
}


async def test_it_searches_reads_notes_and_answers(author: Author) -> None:
    run = await author.start("agent", sample="late_orders")
    ended = await run.end()
    assert (ended.status, ended.error) == ("completed", None)
    assert [(note["topic"], note["document"]) for note in ended.result["notes"]] == [
        ("late orders", "minutes-may.md"),
        ("new carrier", "minutes-april.md"),
        ("who decided", "minutes-may.md"),
        ("refunds", None),
    ]
    assert ended.result["open"] == []
    assert Counter(ended.tools) == {"search": 4, "read": 3}
    assert "she signed for the change on 29 April" in ended.result["text"]
    assert all(ended.checks.values())
    turns = [fact.data["key"] for fact in ended.facts if fact.type == "model_call"]
    assert turns[:3] == ["step#1", "step#1.2", "step#1.3"]


async def test_it_answers_with_what_it_has_when_its_steps_are_used_up(author: Author) -> None:
    ended = await (await author.start("agent", {**SHORT, "iterations_max": 1})).end()
    assert (ended.result["iterations"], ended.result["open"]) == (1, ["the moon"])


async def test_a_stop_within_a_step_closes_the_connection_and_keeps_the_notes(author: Author) -> None:
    author.model.hang("^Step: 2$", after_pieces=1)
    run = await author.start("agent", SHORT)
    await run.until("reasoning", step="step#2")
    await run.cancel()
    ended = await run.end()
    assert ended.status == "cancelled"
    assert [note["topic"] for note in ended.partial["notes"]] == ["the cap"]


async def test_a_stop_in_a_later_turn_of_a_step_starts_no_further_tool(author: Author) -> None:
    author.model.hang("Text of terms.txt", after_pieces=2)
    run = await author.start("agent", SHORT)
    await run.until("tool_result", tool="read")
    await run.cancel()
    ended = await run.end()
    assert (ended.status, ended.findings) == ("cancelled", [])
    assert Counter(ended.tools) == {"search": 1, "read": 1}


async def test_a_stop_between_steps_is_seen_by_the_next(author: Author) -> None:
    run = await author.start("agent", SHORT)
    await run.until("finding", item="1")
    await run.cancel()
    ended = await run.end()
    assert ended.status in ("cancelled", "completed"), "the log decides who came first"
    if ended.status == "cancelled":
        assert ended.partial["notes"]


async def test_a_model_that_asks_for_what_is_not_there_is_told_and_goes_on(author: Author) -> None:
    author.model.say("Open: the cap(?s:.*)There is no nowhere", '{"topic": "the cap", "why": "Lost.", "done": true}')
    author.model.say(r"Open: the cap(?s:.*)\n\n\[", "", calls=[("read", {"document": "nowhere"})])
    author.model.say("There is no nowhere", '{"topic": "the cap", "why": "Nothing.", "done": true}')
    ended = await (await author.start("agent", SHORT)).end()
    assert ended.status == "completed"
    assert [fact.data["status"] for fact in ended.facts if fact.type == "tool_result"] == ["ok", "failed"]


async def test_a_quote_that_does_not_stand_in_its_document_is_not_final(author: Author) -> None:
    wrong = '{"topic": "the cap", "document": "terms.txt", "quote": "No cap.", "why": "So.", "done": true}'
    author.model.say("Text of terms.txt", wrong)
    ended = await (await author.start("agent", SHORT)).end()
    assert (ended.status, ended.error) == ("failed", "validation_failed")
    assert ended.checks["every quote stands in its document"] is False
