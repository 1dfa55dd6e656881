"""An analysis says where each of its figures stands; one that stands nowhere is never final."""

import pytest

from runwire_testing.author import Author
from worker.workflows.market_analysis.figures import borne, figures, sentences

pytest_plugins = ("runwire_testing.plugin",)

TEXTS = {"S1": "Revenue rose by 11.5 percent to 84 million euros.", "S2": "Deliveries begin in 2027."}
HOSTING = "Northlight Hosting grew [S1]."


def test_figures_are_read_without_the_names_of_sources() -> None:
    assert figures("It rose by 11.5 percent, to 1,200 euros in 2026 [S12].") == {"11.5", "1200", "2026"}
    assert sentences("It rose by 2.5 percent [S1]. It fell.\n\nIt rose.") == [
        "It rose by 2.5 percent [S1].",
        "It fell.",
        "It rose.",
    ]


@pytest.mark.parametrize(
    ("sentence", "is_borne"),
    [
        ("Revenue rose by 11.5 percent [S1].", True),
        ("Revenue rose by 11.5 percent.", False),
        ("Revenue rose by 11.5 percent [S2].", False),
        ("Revenue rose by 12 percent [S1].", False),
        ("Revenue of 84 million comes before 2027 [S1] [S2].", True),
        ("It goes well.", True),
    ],
)
def test_a_figure_must_stand_in_a_source_that_its_own_sentence_names(sentence: str, is_borne: bool) -> None:
    assert borne(sentence, TEXTS) is is_borne


async def test_what_is_searched_for_is_shown_and_what_is_found_is_told_as_it_comes(author: Author) -> None:
    ended = await (await author.start("market_analysis", sample="three_companies")).end()
    assert ended.status == "completed"
    assert all(ended.checks.values())
    shown = [fact.data["shown"] for fact in ended.facts if fact.type == "tool_call"]
    assert {"query": "Alder Analytics report"} in shown
    assert {"company": "Quay Logistics"} in shown
    assert [found["source"] for found in ended.result["claims"]] == [source["id"] for source in ended.result["sources"]]
    assert all(found["source"] for found in ended.findings)


async def test_a_tool_that_fails_is_a_gap_that_the_text_names(author: Author) -> None:
    ended = await (await author.start("market_analysis", sample="three_companies")).end()
    failed = [fact for fact in ended.facts if fact.type == "tool_result" and fact.data["status"] == "failed"]
    assert [fact.data["tool"] for fact in failed] == ["share_price"]
    assert ended.result["gaps"] == ["no share price of Quay Logistics"]
    assert "no share price of Quay Logistics" in ended.result["text"]


async def test_a_question_to_which_nothing_is_found_ends_with_that(author: Author) -> None:
    ended = await (await author.start("market_analysis", {"question": "How is it?", "companies": ["Nobody"]})).end()
    assert (ended.status, ended.error) == ("failed", "nothing_found")


@pytest.mark.parametrize(
    ("said", "failed"),
    [
        (f"{HOSTING} Revenue was 85 million euros [S1].", "every figure stands in a source that its sentence names"),
        (f"{HOSTING} Prices rise by 4 percent [S1].", "every figure stands in a source that its sentence names"),
        (f"{HOSTING} So says the press [S9].", "every source that is named was retrieved"),
        ("The company grew [S1].", "every company is spoken of"),
        (f"{HOSTING} One should buy it [S1].", "it gives no advice"),
    ],
)
async def test_an_analysis_with_a_fault_is_not_final(author: Author, said: str, failed: str) -> None:
    author.model.say("Task: draft an analysis", said)
    ended = await (await author.start("market_analysis", sample="hosting")).end()
    assert (ended.status, ended.error) == ("failed", "validation_failed")
    assert [name for name, passed in ended.checks.items() if not passed] == [failed]
    assert ended.partial["claims"]


async def test_what_was_not_found_must_be_said(author: Author) -> None:
    author.model.say("Task: draft an analysis", "Northlight Hosting, Alder Analytics and Quay Logistics go on.")
    ended = await (await author.start("market_analysis", sample="three_companies")).end()
    assert [name for name, passed in ended.checks.items() if not passed] == ["what was not found is said"]
