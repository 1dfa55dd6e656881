"""An agent that reasons and acts step by step, until its model says that it is done or its steps are used up.

A step is one typed call of the model with tools. Between two calls, and within one, a stop is seen: the model's
connection is closed, no further tool starts, and what was noted so far is the partial result.
"""

from typing import Final

from eventstore.domain.events import RunLimits
from worker.declare import Check, RunView, workflow
from worker.run import Run
from worker.workflows.agent import prompts
from worker.workflows.agent.library import tools_of
from worker.workflows.agent.models import Answer, Note, Task

SECTION: Final = "answer"


def best_partial(view: RunView) -> dict[str, object] | None:
    """What a stopped agent can hand over: its notes, and as much of the answer as was written."""
    if not view.findings and not view.text(SECTION):
        return None
    return {"notes": [dict(note) for note in view.findings], "text": view.text(SECTION)}


@workflow(
    "agent",
    version=1,
    title="Agent",
    summary="Finds things out from documents: reasons, searches and reads step by step, notes what it finds, answers.",
    input=Task,
    output=Answer,
    milestones=("Reading the task", "Working", "Writing the answer", "Checking"),
    partial=best_partial,
    limits=RunLimits(run_s=300.0, attempts_max=3),
    title_field="title",
)
async def agent(run: Run, task: Task) -> Answer:
    """From a list of topics to an answer that cites its sources."""
    await run.milestone("Reading the task", detail=f"{len(task.topics)} topics, {len(task.documents)} documents")
    tools = tools_of(task.documents)
    notes: list[Note] = []
    topics = [" ".join(topic.split()) for topic in task.topics]
    for number in range(1, task.iterations_max + 1):
        await run.milestone("Working", done=number - 1, of=task.iterations_max)
        note = await run.value("step", prompts.step(task, number, notes, topics), Note, tools=tools)
        await run.finding(note, item=str(number))
        notes.append(note)
        topics = [topic for topic in topics if topic != note.topic]
        if note.done or not topics:
            break

    await run.milestone("Writing the answer")
    said = await run.model("answer", prompts.answer(task, notes, topics), section=SECTION)

    await run.milestone("Checking")
    answer = Answer(title=task.title, notes=notes, iterations=len(notes), open=topics, text=said.text)
    return await run.validate(answer, checks(task))


def checks(task: Task) -> list[Check]:
    """What must be true of an answer before anybody may rely on it."""
    texts = {document.name: document.text for document in task.documents}

    def cited(answer: Answer) -> list[tuple[str, str]]:
        return [(note.document, note.quote) for note in answer.notes if note.document is not None]

    return [
        Check(
            "every quote stands in its document", lambda a: all(quote in texts.get(of, "") for of, quote in cited(a))
        ),
        Check("every note that cites a document quotes it", lambda a: all(quote for _, quote in cited(a))),
        Check("the answer names every document it rests on", lambda a: all(of in a.text for of, _ in cited(a))),
        Check("no topic was looked at twice", lambda a: len({note.topic for note in a.notes}) == len(a.notes)),
        Check("the answer is not empty", lambda a: bool(a.text.strip())),
    ]
