"""A policy is drafted section by section, without contact data, and is final only when all of it is there."""

from typing import Any

import pytest

from runwire_testing.author import Author
from worker.workflows.policy_document.workflow import WITHHELD

pytest_plugins = ("runwire_testing.plugin",)

SECTIONS = ["Purpose and scope", "Devices", "Confidential papers"]


@pytest.mark.parametrize("sample", ["remote_work", "use_of_language_models"])
async def test_a_brief_becomes_a_document_whose_sections_meet_every_requirement(author: Author, sample: str) -> None:
    ended = await (await author.start("policy_document", sample=sample)).end()
    assert ended.status == "completed"
    assert all(ended.checks.values())
    assert ended.milestones[0] == "Reading the brief"
    assert ended.milestones[-1] == "Ready"
    assert [found["text"] for found in ended.findings] == list(ended.sections.values())


async def test_the_draft_has_a_section_for_each_heading(author: Author) -> None:
    ended = await (await author.start("policy_document", sample="remote_work")).end()
    assert list(ended.sections) == [f"{number}. {heading}" for number, heading in enumerate(SECTIONS, start=1)]
    assert [section["cites"] for section in ended.result["sections"]] == [[], ["R1"], ["R2"]]


async def test_contact_data_is_gone_before_anything_is_stored(author: Author) -> None:
    run = await author.start("policy_document", sample="remote_work")
    ended = await run.end()
    stored = "".join(str(fact.data) for fact in ended.facts)
    assert "anna.berg@example.org" not in stored
    assert stored.count(WITHHELD) > len(SECTIONS)


async def test_a_paragraph_is_seen_only_when_it_is_whole(author: Author) -> None:
    ended = await (await author.start("policy_document", sample="remote_work")).end()
    pieces = [fact.data["text"] for fact in ended.facts if fact.type == "token" and fact.data["shape"] == "text"]
    assert pieces
    assert all(piece.endswith(("\n\n", ".")) for piece in pieces)


@pytest.mark.parametrize(
    ("when", "said", "failed"),
    [
        ("^Section: Devices$", "Work is done on devices of the agency, and on no others.", "every requirement is met"),
        ("^Section: Devices$", "Work is done on devices that the agency has bought (R1) (R9).", "no requirement was"),
        ("^Section: Devices$", "Devices (R1).", "every section says something"),
        ("^Section: Devices$", "Work is done on devices (R1). The list of them is: TODO.", "nothing is left to be"),
        (
            "^Section: Devices$",
            "Work is done on devices (R1). Write to anna@home, or call +49 30 12.",
            "no contact data",
        ),
    ],
)
async def test_a_document_with_a_fault_is_not_final(author: Author, when: str, said: str, failed: str) -> None:
    author.model.say(when, said)
    ended = await (await author.start("policy_document", sample="remote_work")).end()
    assert (ended.status, ended.error, ended.result) == ("failed", "validation_failed", None)
    assert failed_checks(ended.checks) == [next(name for name in ended.checks if name.startswith(failed))]
    assert [section["heading"] for section in ended.partial["sections"]] == SECTIONS


async def test_a_heading_that_comes_twice_is_not_final(author: Author) -> None:
    author.model.say(
        "Task: outline", '{"sections": [{"heading": "All", "covers": ["R1"]}, {"heading": "All", "covers": ["R2"]}]}'
    )
    ended = await (await author.start("policy_document", sample="remote_work")).end()
    assert failed_checks(ended.checks) == ["no heading comes twice"]


def failed_checks(checks: dict[str, Any]) -> list[str]:
    return [name for name, passed in checks.items() if not passed]
