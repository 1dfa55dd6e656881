"""Lets the model say so many numbered words, and returns how many there were."""

from pydantic import BaseModel, ConfigDict, Field

from worker.author import Check, Run, RunLimits, RunView, workflow

SECTION = "talk"


class Asked(BaseModel):
    """The input."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    words: int = Field(ge=1, description="how many words the model shall say; the script knows some numbers only")
    name: str = Field(description="tells one run's prompt from another's")


class Said(BaseModel):
    """The result."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    words: int


def best_partial(view: RunView) -> Said:
    """How much was said so far."""
    return Said(words=len(view.text(SECTION).split()))


@workflow(
    "talk",
    version=1,
    title="Talk",
    summary="Lets the model say so many numbered words.",
    input=Asked,
    output=Said,
    milestones=("Talking", "Counting"),
    partial=best_partial,
    limits=RunLimits(run_s=900.0, attempts_max=3),
)
async def talk(run: Run, asked: Asked) -> Said:
    """One call of the model."""
    await run.milestone("Talking")
    prompt = f"Talk {asked.name}\nSay {asked.words} words"
    said = await run.model("talk", [{"role": "user", "content": prompt}], section=SECTION)
    await run.milestone("Counting")
    counted = Said(words=len(said.text.split()))
    return await run.validate(counted, [Check("all of it was said", lambda made: made.words == asked.words)])
