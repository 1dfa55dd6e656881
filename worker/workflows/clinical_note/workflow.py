"""A note of a visit, written while it can be read, and confirmed by a clinician where a mistake would do harm.

Worth a look: the sentences are read while the model still writes; each part is a branch, so that a connection that
breaks costs one part and not the note. `hold="sentence"` with `redact` keeps identifiers out of the log itself. A
question to a person holds no worker, and silence is no consent: it has no default.
"""

from typing import Any, Final

from worker.author import Check, Run, RunLimits, RunView, WorkflowFailed, workflow
from worker.workflows.clinical_note import prompts
from worker.workflows.clinical_note.models import PARTS, Note, Part, Ruling, Statement, Visit
from worker.workflows.clinical_note.statements import cut, is_supported, redactions, squeezed, statement

ANSWER_S: Final = 4 * 3_600.0
FLAGGED_SHARE_MAX: Final = 0.34


def best_partial(view: RunView) -> dict[str, Any] | None:
    """What was stated and stands in the transcript; nothing of it is confirmed."""
    stated = [dict(each) for each in view.findings if each["supported"]]
    return {"statements": stated, "confirmed_by": None} if stated else None


@workflow(
    "clinical_note",
    version=1,
    title="Clinical note",
    summary="Writes a note of a visit sentence by sentence, without identifiers; a clinician confirms what may harm.",
    input=Visit,
    output=Note,
    milestones=("Reading the transcript", "Writing the note", "Clinician's decision", "Checking the note", "Ready"),
    partial=best_partial,
    limits=RunLimits(run_s=300.0, attempts_max=3),
    title_field=None,  # titles stand in lists, and why somebody came is theirs
)
async def clinical_note(run: Run, visit: Visit) -> Note:
    """Four parts, one after the other; then a clinician, then the checks."""
    await run.milestone("Reading the transcript", detail=f"{len(visit.turns)} turns")
    hidden = redactions(visit.identifiers)

    async def write(run: Run, part: Part) -> list[Statement]:
        made: list[Statement] = []
        rest = ""
        speech = run.model("write", prompts.write(part, visit), section=part, hold="sentence", redact=hidden)
        async for piece in speech.text():
            whole, rest = cut(rest + piece)
            for sentence in whole:
                made.append(await told(run, part, len(made) + 1, sentence, visit))
        if rest.strip():
            made.append(await told(run, part, len(made) + 1, rest, visit))
        return made

    await run.milestone("Writing the note", done=0, of=len(PARTS))
    parts = await run.each(PARTS, write, key=str, parallel=1, milestone="Writing the note")
    stated = [each for part in parts for each in part]
    risky = [each for each in stated if each.supported and each.high_risk]
    kept, by = await confirmed(run, risky)

    await run.milestone("Checking the note")
    left_out = [each for each in risky if each.id not in kept]
    note = Note(
        reason=visit.reason,
        statements=[each for each in stated if each.supported and each not in left_out],
        flagged=[each for each in stated if not each.supported],
        left_out=left_out,
        confirmed_by=by,
    )
    await run.validate(note, checks(visit))
    await run.milestone("Ready")
    return note


async def told(run: Run, part: Part, number: int, sentence: str, visit: Visit) -> Statement:
    """One sentence, judged and shown."""
    made = statement(part, number, sentence, visit.turns)
    await run.finding(made, item=made.id)
    return made


async def confirmed(run: Run, risky: list[Statement]) -> tuple[list[str], str | None]:
    """Which of the statements that may do harm stand, and who said so."""
    if not risky:
        return [], None
    await run.milestone("Clinician's decision", detail=f"{len(risky)} statements")
    quoted = "\n".join(f"{each.id}: {each.text}" for each in risky)
    question = f"Which of these statements stand? Those that you do not name are left out.\n{quoted}"
    answer = await run.ask("high-risk", question, to="clinician", answer=Ruling, wait_s=ANSWER_S)
    ruling: Ruling = answer.value
    if unknown := sorted({*ruling.keep} - {each.id for each in risky}):
        raise WorkflowFailed("answer_refused", f"No such statement was asked about: {', '.join(unknown)}.")
    return ruling.keep, answer.by


def checks(visit: Visit) -> list[Check]:
    """What must be true of a note before it goes into a record."""

    def texts(note: Note) -> str:
        return squeezed(" ".join(each.text for each in [*note.statements, *note.flagged, *note.left_out]))

    def few_flagged(note: Note) -> bool:
        return len(note.flagged) <= FLAGGED_SHARE_MAX * (len(note.statements) + len(note.flagged))

    return [
        Check(
            "every statement stands in the transcript",
            lambda n: all(is_supported(each.text, each.turns, visit.turns) for each in n.statements),
        ),
        Check("every part says something", lambda n: {each.part for each in n.statements} == {*PARTS}),
        Check("most of what was written stands in the transcript", few_flagged),
        Check(
            "a clinician confirmed what may do harm",
            lambda n: n.confirmed_by is not None or not any(each.high_risk for each in n.statements),
        ),
        Check(
            "no identifier of the patient is left",
            lambda n: not any(squeezed(each) in texts(n) for each in visit.identifiers),
        ),
    ]
