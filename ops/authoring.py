"""The commands for whoever writes workflows: a new one, a look at one, and a run of one to keep."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import UUID

import typer
from sqlalchemy.exc import SQLAlchemyError

from eventstore.database import async_engine
from eventstore.workflow_folders import CODE, SETTING, FolderError, workflow_folders
from ops import golden
from ops.exits import EPILOG, FAILED, USAGE, Complaint
from ops.printable import as_json
from ops.reading import AsJson, Data, RunId
from ops.scaffold import new_workflow
from ops.up import database_complaint
from worker.lint.check import Report, check_file, check_folder
from worker.lint.finding import Finding
from worker.loading import NotTaken, load_workflow
from worker.registry import WORKFLOWS

INSTEAD: Final = "mend it; a worker refuses to start with it"

Name = Annotated[str, typer.Argument(help="Lower case letters, digits and _.")]
In = Annotated[Path, typer.Option("--in", help="The folder to make it in.", show_default="this one")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder of golden runs.")]
FileName = Annotated[str | None, typer.Option("--name", help="The file's name.", show_default="the run's id")]
RulesOnly = Annotated[bool, typer.Option("--rules-only", help="Read the source only; import nothing of it.")]


def add_to(app: typer.Typer, this_command: Callable[[], str], database_url: Callable[[Path | None], str]) -> None:
    """Add the commands."""

    @app.command("new-workflow", epilog=EPILOG)
    def new(
        name: Annotated[str, typer.Argument(help="Lower case letters, digits and _.")], parent: In = Path()
    ) -> None:
        """Write the folder of a new workflow, which works and has a test, to go on from."""
        print(_what_next(new_workflow(name, parent), this_command()))

    @app.command("check-workflow", epilog=EPILOG)
    def check(
        what: Annotated[str, typer.Argument(metavar="PATH|NAME", help="A workflow's folder, a file, or its name.")],
        rules_only: RulesOnly = False,
        json: AsJson = False,
    ) -> None:
        """Look for what a run that is resumed could not repeat, and for what keeps a worker from taking a workflow."""
        report = looked_at(what, rules_only=rules_only)
        print(as_json(_plain(report)) if json else _told(report))
        raise typer.Exit(0 if report.ok else FAILED)

    @app.command("export-golden", epilog=EPILOG)
    def export(run_id: RunId, out: Out = Path("golden"), name: FileName = None, data: Data = None) -> None:
        """Write a run that has ended to a file, to be replayed against the workflow's code of every later day."""
        print(exported(database_url(data), run_id, out, name))


def exported(database_url: str, run_id: str, out: Path, name: str | None) -> Path:
    """The file that was written."""
    try:
        known = UUID(run_id)
    except ValueError as fault:
        raise Complaint(f"{run_id} is no run's id", USAGE) from fault

    async def export() -> Path:
        engine = async_engine(database_url, application="runwire-golden", role="runwire_worker", pool_size=1)
        try:
            async with engine.connect() as connection:
                return await golden.export(connection, known, out, name)
        finally:
            await engine.dispose()

    try:
        return asyncio.run(export())
    except SQLAlchemyError as fault:
        raise database_complaint(fault) from fault


def looked_at(what: str, *, rules_only: bool) -> Report:
    """What there is to say of a path or a name."""
    path = Path(what)
    if path.is_file():
        report = check_file(path)
    else:
        folder = path if path.is_dir() else _named(what)
        report = check_folder(folder)
        ours = any(workflow.folder == folder.resolve() for workflow in WORKFLOWS.values())
        if report.ok and (folder / CODE).is_file() and not rules_only and not ours:
            report = Report(report.findings + _registration(folder), report.workflows)
    if not report.workflows and report.ok:
        raise Complaint(f"there is no workflow in {what}", USAGE, "@workflow(...) over an async function makes one")
    return report


def _named(name: str) -> Path:
    if name in WORKFLOWS:
        return WORKFLOWS[name].folder
    try:
        folders = {folder.name: folder for folder in workflow_folders(os.environ.get(SETTING, ""))}
    except FolderError as fault:
        raise Complaint(str(fault), USAGE) from fault
    if name not in folders:
        known = ", ".join(sorted({*WORKFLOWS, *folders}))
        raise Complaint(f"there is no file, folder or workflow {name}", USAGE, f"workflows are {known}")
    return folders[name]


def _registration(folder: Path) -> tuple[Finding, ...]:
    try:
        load_workflow(folder.resolve())
    except NotTaken as fault:
        return (Finding(str(folder / CODE), 1, 1, "registration", "error", str(fault), INSTEAD),)
    return ()


def _told(report: Report) -> str:
    errors = sum(finding.level == "error" for finding in report.findings)
    warnings = len(report.findings) - errors
    counts = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((errors, "error"), (warnings, "warning")) if n]
    names = ", ".join(report.workflows) or "no workflow"
    return "\n".join([*map(str, report.findings), f"{names}: {' and '.join(counts) or 'nothing to complain of'}"])


def _plain(report: Report) -> dict[str, Any]:
    findings = [finding.plain() for finding in report.findings]
    return {"ok": report.ok, "workflows": list(report.workflows), "findings": findings}


def _what_next(folder: Path, command: str) -> str:
    return "\n".join(
        [
            f"Made {folder}/. It works as it is; now make it yours. Next:",
            f"  {command} check-workflow {folder}",
            f"  {_python()} -m pytest {folder}",
            f"  {SETTING}={folder} {command} up",
            f"  {command} run {folder.name} --sample     (in a second terminal)",
        ]
    )


def _python() -> str:
    here = Path(sys.executable)
    return str(here.relative_to(Path.cwd())) if here.is_relative_to(Path.cwd()) else str(here)
