"""A note says what the transcript says, without identifiers, and a clinician confirms what may do harm."""

import pytest

from runwire_testing.author import Author
from worker.workflows.clinical_note.models import Ruling, Turn
from worker.workflows.clinical_note.statements import cut, statement

pytest_plugins = ("runwire_testing.plugin",)

TURNS = [
    Turn(speaker="clinician", text="What brings you here?"),
    Turn(speaker="patient", text="I have had a dry cough for two weeks, and I take 5 mg of ramipril."),
]


@pytest.mark.parametrize(
    ("text", "supported", "high_risk"),
    [
        ("The patient has had a dry cough [T2].", True, False),
        ("The patient takes 5 mg of ramipril [T2].", True, True),
        ("Patient says: I take 5 mg of ramipril [T2].", True, True),
        ("Patient says: I take 50 mg of ramipril [T2].", False, True),
        ("The patient has had a dry cough.", False, False),
        ("The patient has had a dry cough [T9].", False, False),
        ("The patient sleeps well [T2].", False, False),
    ],
)
def test_a_statement_is_held_against_the_turns_that_it_names(text: str, supported: bool, high_risk: bool) -> None:
    made = statement("Complaint", 1, text, TURNS)
    assert (made.supported, made.high_risk) == (supported, high_risk)


def test_sentences_are_cut_where_they_end_and_the_rest_is_kept() -> None:
    assert cut("It began [T1]. It went on [T2].\nIt did no") == (["It began [T1].", "It went on [T2]."], "It did no")
    assert cut("It took 2.5 days") == ([], "It took 2.5 days")


async def test_a_clinician_confirms_and_the_note_has_no_identifier(author: Author) -> None:
    run = await author.start("clinical_note", sample="cough")
    asked = await run.until("escalation", name="high-risk")
    assert "History 2: The patient reports: I take nothing" in asked.data["question"]
    await run.answer("high-risk", Ruling(keep=["History 2"]), by="dr-lind")
    ended = await run.end()
    assert ended.status == "completed"
    assert all(ended.checks.values())
    assert ended.result["confirmed_by"] == "dr-lind"
    assert ended.asked == {"high-risk": {"keep": ["History 2"]}}
    assert list(ended.sections) == ["Complaint", "History", "Assessment", "Plan"]
    stored = "".join(str(fact.data) for fact in ended.facts)
    assert "Keller" not in stored
    assert "[withheld]" in ended.sections["Complaint"]


async def test_what_nobody_said_is_flagged_and_no_part_of_the_note(author: Author) -> None:
    run = await author.start("clinical_note", sample="cough")
    await run.answer("high-risk", Ruling(keep=["History 2"]))
    ended = await run.end()
    [flagged] = ended.result["flagged"]
    assert flagged["text"] == "The patient sleeps well and eats with a good appetite."
    assert not any("appetite" in each["text"] for each in ended.result["statements"])
    assert [found["supported"] for found in ended.findings].count(False) == 1


async def test_what_the_clinician_does_not_name_is_left_out(author: Author) -> None:
    run = await author.start("clinical_note", sample="cough")
    await run.answer("high-risk", Ruling(keep=[]))
    ended = await run.end()
    assert ended.status == "completed"
    assert [each["id"] for each in ended.result["left_out"]] == ["History 2"]
    assert "History 2" not in [each["id"] for each in ended.result["statements"]]


async def test_silence_is_no_consent(author: Author) -> None:
    run = await author.start("clinical_note", sample="cough")
    await run.until("escalation")
    await author.clock.forward(hours=5)
    ended = await run.end()
    assert (ended.status, ended.error) == ("failed", "not_answered")
    assert ended.partial["confirmed_by"] is None
    assert ended.partial["statements"]


async def test_a_ruling_on_what_was_not_asked_is_refused(author: Author) -> None:
    run = await author.start("clinical_note", sample="cough")
    await run.answer("high-risk", Ruling(keep=["Plan 7"]))
    assert (await run.end()).error == "answer_refused"


async def test_each_identifier_is_hidden_however_it_is_written(author: Author) -> None:
    author.model.say("^Part: Plan$", "Please come back in ten days, MARIA  keller, record 47110815 [T5].")
    run = await author.start("clinical_note", sample="cough")
    await run.answer("high-risk", Ruling(keep=[]))
    ended = await run.end()
    assert ended.sections["Plan"] == "Please come back in ten days, [withheld], record [withheld] [T5]."
    assert ended.checks["no identifier of the patient is left"]


@pytest.mark.parametrize(
    ("when", "said", "failed"),
    [
        ("^Part: Plan$", "The patient will rest.", {"every part says something"}),
        (
            "^Part: Assessment$",
            "The chest sounds clear [T5]. All is well. It will pass. There is no fever. No need to worry.",
            {"most of what was written stands in the transcript"},
        ),
        (
            "^Part: Plan$",
            "Please come back when it is not better [T5]. The record is 4711:0815 [T5].",
            {"no identifier of the patient is left"},
        ),
    ],
)
async def test_a_note_with_a_fault_is_not_final(author: Author, when: str, said: str, failed: set[str]) -> None:
    author.model.say(when, said)
    run = await author.start("clinical_note", sample="cough")
    await run.answer("high-risk", Ruling(keep=["History 2"]))
    ended = await run.end()
    assert (ended.status, ended.error) == ("failed", "validation_failed")
    assert {name for name, passed in ended.checks.items() if not passed} == failed


async def test_a_connection_that_breaks_costs_one_part_and_shows_nothing_twice(author: Author) -> None:
    author.model.cut("^Part: History$", after_pieces=30)
    run = await author.start("clinical_note", sample="chest_pain")
    asked = await run.until("escalation")
    risky = [line.partition(":")[0] for line in asked.data["question"].splitlines()[1:]]
    await run.answer("high-risk", Ruling(keep=risky))
    ended = await run.end()
    assert ended.status == "completed", ended
    [retry] = [fact for fact in ended.facts if fact.type == "retry"]
    assert retry.data["key"].startswith("History/")
    assert sum(fact.type == "model_call" for fact in ended.facts) == 4
    texts = [found["text"] for found in ended.findings]
    assert len(texts) == len(set(texts))
