"""The commands that talk to a server: start, watch, stop and list runs, answer them, show, replay and verify them."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.client import Client, Frame, Refused
from ops.display import display_for
from ops.door import data_dir, find_door
from ops.exits import COMPLETED, EPILOG, FAILED, USAGE, Complaint
from ops.following import Following, detached, follow_or_ask
from ops.lines import in_line
from ops.printable import as_json, one_line, outline, words

READERS: Final = ("user", "operator", "officer")
STOPPERS: Final = ("user", "operator")
DECIDERS: Final = ("user", "operator", "officer")
SUBMITTERS: Final = {"drill": ("operator", "user")}
INPUT_BYTES_MAX: Final = 1_000_000

Answer = TypeVar("Answer")

Data = Annotated[
    Path | None,
    typer.Option(
        "--data", metavar="DIR", envvar="RUNWIRE_DATA", help="The data folder.  [default: .runwire]", show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for programs.")]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="A file with the API key, instead of RUNWIRE_KEY.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
After = Annotated[int, typer.Option(min=0, help="Go on after this event; 0 begins at the beginning.")]


def add_to(app: typer.Typer) -> None:
    """Make these commands part of the command line."""
    for command in (run, watch, poll, cancel, decide, show, replay, verify, runs):
        app.command(epilog=EPILOG)(command)


def run(
    workflow: Annotated[str | None, typer.Argument(help="What to run, for example contract_review or drill.")] = None,
    input: Annotated[  # noqa: A002 - the option's name
        str | None, typer.Option("--input", metavar="FILE|-", help="The input as JSON; - reads standard input.")
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Use the workflow's first sample as input.")] = False,
    earlier: Annotated[
        str | None,
        typer.Option("--continue", metavar="RUN", help="Take up this run, which ended without a result."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="What people call this run.")] = None,
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """Start a run and follow it to its result. Ctrl-C offers to detach or to cancel it."""
    if earlier is not None:
        if workflow is not None or input is not None or sample:
            raise Complaint("--continue takes workflow and input from the earlier run: leave them out", USAGE)
        client, accepted = _asked(STOPPERS, key_file, data, lambda client: client.go_on(earlier, title))
        with client:
            _follow(client, accepted, json=json)
    if workflow is None:
        raise Complaint("say what to run, or which run to go on with: WORKFLOW or --continue RUN", USAGE)
    if (input is None) == (not sample):
        raise Complaint("say what to run it on: --input FILE, --input - or --sample", USAGE)
    with _client(SUBMITTERS.get(workflow, STOPPERS), key_file, data) as client:
        given = first_sample(client, workflow) if input is None else _input(input)
        _follow(client, client.submit(workflow, given, title), json=json)


def _follow(client: Client, accepted: dict[str, Any], *, json: bool) -> NoReturn:
    print(f"runwire: run {accepted['id']}", file=sys.stderr, flush=True)
    following = Following(client, str(accepted["id"]))
    again = f"runwire watch {accepted['id']}"
    raise typer.Exit(follow_or_ask(following, lambda: display_for(as_json_lines=json), again, from_start=not json))


def watch(run_id: RunId, after: After = 0, json: AsJson = False, key_file: KeyFile = None, data: Data = None) -> None:
    """Follow a run live, from the beginning or from an event on. Ctrl-C stops watching, not the run."""
    client, state = _client_that_sees(run_id, key_file, data)
    with client:
        following = Following(client, run_id, after, state.get("queue"))
        try:
            raise typer.Exit(following.to_the_end(display_for(as_json_lines=json, whole=after == 0)))
        except KeyboardInterrupt:
            again = f"runwire watch {run_id} --after {following.cursor}"
            raise typer.Exit(detached(again)) from None


def poll(
    run_id: RunId,
    after: After = 0,
    wait: Annotated[int, typer.Option(min=0, max=25, help="Seconds that one request may wait for news.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Events in one answer.")] = 200,
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """Follow a run by short requests, for networks that let no stream through."""
    client, state = _client_that_sees(run_id, key_file, data)

    def frames(cursor: int) -> Iterator[Frame]:
        return client.polled(run_id, cursor, wait, limit)

    with client:
        following = Following(client, run_id, after, state.get("queue"))
        try:
            raise typer.Exit(following.to_the_end(display_for(as_json_lines=json, whole=after == 0), frames))
        except KeyboardInterrupt:
            again = f"runwire poll {run_id} --after {following.cursor}"
            raise typer.Exit(detached(again)) from None


def cancel(
    run_id: RunId,
    reason: Annotated[str, typer.Option(help="Why; it is kept in the log.")],
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """Stop a run for good; what it has found so far is kept. After its end this changes nothing."""
    _, state = _asked(STOPPERS, key_file, data, lambda client: client.cancel(run_id, reason))
    if json:
        print(as_json(state))
    elif state["done"]:
        print(f"The run had ended before: {words(state['status'])}.")
    else:
        print("The run is stopping.")


def decide(
    run_id: RunId,
    choice: Annotated[str | None, typer.Argument(help="One of the question's choices.")] = None,
    value: Annotated[
        str | None, typer.Option("--answer", metavar="JSON", help="The answer to a question without choices.")
    ] = None,
    event: Annotated[
        int | None, typer.Option(min=1, help="The question's event, when the run asks more than one.")
    ] = None,
    note: Annotated[str | None, typer.Option(help="Why; it is kept in the log.")] = None,
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """Answer what a run asks. The first answer counts; the same one again changes nothing."""
    if (choice is None) == (value is None):
        raise Complaint("say what you decide: one of the choices, or --answer JSON", USAGE)
    given = {"choice": choice} if value is None else {"answer": _json(value, "--answer")}
    more = {} if note is None else {"note": note}

    def answered(client: Client) -> dict[str, Any]:
        state = client.state(run_id)
        return client.decide(run_id, question(state, event), state["seen"], **given, **more)

    _, told = _asked(DECIDERS, key_file, data, answered)
    print(as_json(told) if json else f"Recorded as event {told['decision']['seq']}. The run is {told['status']}.")


def question(state: dict[str, Any], event: int | None) -> int:
    """The seq of the question that is meant: the one that was named, or the only one that is open."""
    if event is not None:
        return event
    still = [one for one in state["questions"] if "decision" not in one]
    if len(still) == 1:
        return int(still[0]["seq"])
    if not still:
        raise Complaint("this run asks nothing at the moment", FAILED)
    told = "; ".join(f"--event {one['seq']} {one_line(str(one.get('question', '')), 60)}" for one in still)
    raise Complaint("this run asks more than one thing", USAGE, f"say which: {told}")


def show(
    run_id: RunId,
    at: Annotated[str | None, typer.Option(metavar="SEQ", help="As it was after this event, or at this time.")] = None,
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """Show how a run stands, or stood: milestones, findings, draft or result."""
    _, state = _asked(READERS, key_file, data, lambda client: client.state(run_id, at))
    print(as_json(state) if json else "\n".join(_told(state)))


def replay(
    run_id: RunId,
    speed: Annotated[str, typer.Option(help="How many times as fast; max does not wait.")] = "1",
    first: Annotated[int | None, typer.Option("--from", metavar="SEQ", min=1, help="Begin with this event.")] = None,
    last: Annotated[int | None, typer.Option("--to", metavar="SEQ", min=1, help="End with this event.")] = None,
    role: Annotated[str | None, typer.Option("--as", metavar="ROLE", help="See it as this role does.")] = None,
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """Show a recorded run again at any pace. For officers."""
    asked = {"speed": speed, "from": first, "to": last, "as": role}
    with _client(("officer",), key_file, data) as client, display_for(as_json_lines=json, whole=not first) as display:
        client.notice = display.notice
        for frame in client.replay(run_id, {name: str(value) for name, value in asked.items() if value is not None}):
            display.show(frame)


def verify(run_id: RunId, json: AsJson = False, key_file: KeyFile = None, data: Data = None) -> None:
    """Check a run's chain of evidence from its first event to its last. For officers."""
    _, found = _asked(("officer",), key_file, data, lambda client: client.verify(run_id))
    if json:
        print(as_json(found))
    else:
        print(verdict(found))
    raise typer.Exit(COMPLETED if found["ok"] else FAILED)


def runs(
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    status: Annotated[str | None, typer.Option(help="Only those that stand like this, for example running.")] = None,
    workflow: Annotated[str | None, typer.Option(help="Only those of this workflow.")] = None,
    json: AsJson = False,
    key_file: KeyFile = None,
    data: Data = None,
) -> None:
    """List the newest runs that your key may see."""
    roles = ("operator", "user")  # of a newcomer's own keys, the one that sees most
    _, found = _asked(roles, key_file, data, lambda client: list(client.runs(limit, status, workflow)))
    if json:
        for one in found:
            print(as_json(one))
        return
    table = Table("run", "workflow", "status", "created", "title", box=None, pad_edge=False)
    for one in found:
        created = str(one["created_at"])[:19].replace("T", " ")
        table.add_row(
            one["id"],
            one["workflow"],
            in_line(one.get("queue")) or one["status"],
            created,
            Text(one_line(one["title"], 60)),
        )
    Console(highlight=False, width=None if sys.stdout.isatty() else 200).print(table if found else "No runs yet.")


def verdict(found: dict[str, Any]) -> str:
    """What a verification found, on one line."""
    if found["ok"]:
        return f"Verified: {found['events']} events, no fault. Last chain hash {found['chain']}"
    return (
        f"FAULT at event {found['fault_seq']}: {one_line(str(found['fault']))} ({found['events']} events fit before it)"
    )


def _told(state: dict[str, Any]) -> list[str]:
    status = in_line(state.get("queue")) or state["status"]
    heading = f"{one_line(str(state.get('title') or ''))} – {status}, at event {state['seq']}"
    marks = {"done": "✔", "current": "▸", "to_come": " "}
    lines = [heading, *(f"{marks[step['place']]} {one_line(step['label'])}" for step in state["milestones"])]
    if state["findings"]:
        told = {found["item"]: found["value"] for found in state["findings"]}
        lines += ["", "Findings", *outline(told, "  ")]
    for asked in state["questions"]:
        answer = asked.get("decision") or {}
        said = answer.get("choice") or as_json(answer["answer"]) if answer.get("choice") or answer.get("answer") else ""
        status = f"answered {one_line(str(said))}".strip() if answer else f"waiting for {asked.get('to') or 'somebody'}"
        lines += [
            "",
            f"Asked (event {asked['seq']}): {one_line(str(asked.get('question') or ''))} – {one_line(status)}",
        ]
    if state["result"] is not None:
        return [*lines, "", "Result – validated, final", *outline(state["result"].get("output", state["result"]), "  ")]
    if state["error"]:
        lines += ["", f"Failed: {one_line(str(state['error'].get('message')))}"]
    if state["cancel"]:
        lines += ["", f"Stop was asked for: {one_line(str(state['cancel'].get('reason')))}"]
    partial = {name: value for name, value in (state["partial"] or {}).items() if name not in {"final", "findings"}}
    return [*lines, "", "Draft – not final", *outline(partial, "  ")] if any(partial.values()) else lines


def _client(roles: Sequence[str], key_file: Path | None, data: Path | None) -> Client:
    """A client with the key that fits best."""
    door = find_door(data_dir(data), os.environ, roles, key_file)
    return Client(door.url, door.keys[0], notice=_notice)


def _asked(
    roles: Sequence[str], key_file: Path | None, data: Path | None, ask: Callable[[Client], Answer]
) -> tuple[Client, Answer]:
    """What the server says to the first key that may know: a newcomer holds one of each role and need not choose."""
    door = find_door(data_dir(data), os.environ, roles, key_file)
    for key in door.keys[:-1]:
        client = Client(door.url, key, notice=_notice)
        try:
            return client, ask(client)
        except Refused as refused:
            client.close()
            if refused.status not in {403, 404}:
                raise
    last = Client(door.url, door.keys[-1], notice=_notice)
    return last, ask(last)


def _client_that_sees(run_id: str, key_file: Path | None, data: Path | None) -> tuple[Client, dict[str, Any]]:
    return _asked(READERS, key_file, data, lambda client: client.state(run_id))


def _notice(text: str) -> None:
    print(f"runwire: {one_line(text)}", file=sys.stderr, flush=True)


def first_sample(client: Client, workflow: str) -> Any:
    """The first of the inputs that a workflow offers to try it with."""
    for offered in client.workflows():
        if offered["name"] == workflow:
            if offered["samples"]:
                return offered["samples"][0]["input"]
            raise Complaint(f"{workflow} has no sample", USAGE, "give it one with --input")
    raise Complaint(f"there is no workflow {one_line(workflow)} that you may start", FAILED)


def _input(source: str) -> Any:
    try:
        raw = sys.stdin.buffer.read(INPUT_BYTES_MAX + 1) if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise Complaint(f"cannot read {source}: {error.strerror}", USAGE) from error
    if len(raw) > INPUT_BYTES_MAX:
        raise Complaint(f"the input is larger than {INPUT_BYTES_MAX} bytes", USAGE)
    return _json(raw, "standard input" if source == "-" else source)


def _json(raw: bytes | str, source: str) -> Any:
    try:
        return json.loads(raw)
    except ValueError as error:
        raise Complaint(f"{source} is no JSON: {error}", USAGE) from error
