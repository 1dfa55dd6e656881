"""The review of a change, file by file.

Worth a look: `run.each` reads several files at once and gives each a branch of its own; `run.items` gives a remark as
soon as it is complete, while the model is still speaking; with `on_error="collect"` a file that cannot be reviewed
costs that file and not the review, as long as the summary says so.
"""

from typing import Any, Final

from worker.author import Check, Run, RunLimits, RunView, WorkflowFailed, workflow
from worker.workflows.code_review import prompts
from worker.workflows.code_review.diff import Change, changes
from worker.workflows.code_review.models import FileReview, Found, PatchSet, Remark, Remarks, Review

SECTION: Final = "summary"


def best_partial(view: RunView) -> dict[str, Any] | None:
    """The remarks made so far."""
    if not view.findings:
        return None
    return {"remarks": [dict(found) for found in view.findings], "summary": view.text(SECTION)}


@workflow(
    "code_review",
    version=1,
    title="Code review",
    summary="Reviews a unified diff file by file; each remark points to a line of the change.",
    input=PatchSet,
    output=Review,
    milestones=("Reading the change", "Reviewing files", "Summing up", "Validating"),
    partial=best_partial,
    limits=RunLimits(run_s=300.0, attempts_max=3),
    title_field="title",
    parallel=4,
)
async def code_review(run: Run, given: PatchSet) -> Review:
    """Cut, review, sum up, check."""
    await run.milestone("Reading the change")
    cut: list[Change] = await run.step("cut", changes, given.diff, returns=list[Change])

    async def review(run: Run, change: Change) -> FileReview:
        found: list[Remark] = []
        said = run.items("review", prompts.review(change.path, change.lines(given.diff)), Remarks, "remarks")
        async for remark in said:
            found.append(remark)
            await run.finding(Found(path=change.path, **remark.model_dump()), item=f"{change.path} {len(found)}")
        return FileReview(path=change.path, remarks=found)

    await run.milestone("Reviewing files", done=0, of=len(cut))
    reviews = await run.each(
        cut, review, key=lambda change: change.path, milestone="Reviewing files", on_error="collect"
    )
    files, unread = told_apart(cut, reviews)

    await run.milestone("Summing up")
    said = await run.model("summary", prompts.summary(given.title, files, unread), section=SECTION)

    await run.milestone("Validating")
    result = Review(title=given.title, verdict=verdict(files), files=files, unread=unread, summary=said.text)
    return await run.validate(result, checks(given, cut))


def told_apart(cut: list[Change], reviews: list[FileReview | Exception]) -> tuple[list[FileReview], list[str]]:
    """The files that were read, and those that the model could not read. A fault of our own is no such file."""
    files: list[FileReview] = []
    unread: list[str] = []
    for change, review in zip(cut, reviews, strict=True):
        if isinstance(review, FileReview):
            files.append(review)
        elif isinstance(review, WorkflowFailed):
            unread.append(change.path)
        else:
            raise review
    return files, unread


def verdict(files: list[FileReview]) -> Any:
    """What the remarks come to."""
    severities = {remark.severity for file in files for remark in file.remarks}
    if "blocking" in severities:
        return "request changes"
    return "comment" if severities else "approve"


def checks(given: PatchSet, cut: list[Change]) -> list[Check]:
    """What must be true of a review before it is sent to anybody."""
    lines = {change.path: change.lines(given.diff) for change in cut}

    def remarks(review: Review) -> list[tuple[str, Remark]]:
        return [(file.path, remark) for file in review.files for remark in file.remarks]

    def added(path: str, remark: Remark) -> str:
        line = lines[path].get(remark.line, "")
        return line[1:] if line.startswith("+") else ""

    def blocked(review: Review) -> list[str]:
        return [path for path, remark in remarks(review) if remark.severity == "blocking"]

    return [
        Check(
            "every file was read or is named as unread",
            lambda r: sorted([*(file.path for file in r.files), *r.unread]) == sorted(lines),
        ),
        Check("every remark points to a line that was added", lambda r: all(added(*each) for each in remarks(r))),
        Check("every quote stands on its line", lambda r: all(each.quote in added(p, each) for p, each in remarks(r))),
        Check("the summary names every file with a blocking remark", lambda r: all(p in r.summary for p in blocked(r))),
        Check("the summary names every unread file", lambda r: all(path in r.summary for path in r.unread)),
    ]
