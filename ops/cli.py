"""The command `runwire`: what it takes, and the one place where a fault becomes a line and an exit code."""

import os
import shutil
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer
from sqlalchemy.exc import SQLAlchemyError

from api.keys import create_key
from eventstore.database import sync_engine
from eventstore.domain.disclosure import Role
from migrations.waiting import WAIT_S
from ops import authoring, demo, ports, reading, seals
from ops.client import Stopped
from ops.door import data_dir
from ops.exits import EPILOG, FAILED, INTERRUPTED, USAGE, Complaint, complain
from ops.places import ServiceError
from ops.printable import as_json
from ops.reading import AsJson, Data
from ops.running import Running
from ops.up import Options, Up, database_complaint, everything, migrate, python

DEFAULT_PORT: Final = 8080

app = typer.Typer(
    name="runwire",
    help="Runs long AI workflows, keeps every event in one log, and shows that log live, by polling and by replay.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys_app = typer.Typer(help="API keys.", no_args_is_help=True)
app.add_typer(keys_app, name="keys", epilog=EPILOG)
seal_app = typer.Typer(help="The seal over the whole log.", no_args_is_help=True)
app.add_typer(seal_app, name="seal", epilog=EPILOG)
reading.add_to(app)

Host = Annotated[str, typer.Option(help="The address to listen on.", envvar="RUNWIRE_HOST")]
Port = Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.", envvar="RUNWIRE_PORT")]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")]


def main() -> NoReturn:
    """The console script."""
    try:
        app(prog_name="runwire")
    except (Complaint, ServiceError) as fault:
        complain(fault)
        sys.exit(fault.code if isinstance(fault, Complaint) else FAILED)
    except (KeyboardInterrupt, Stopped):
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"runwire {version('runwire')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say which.")
    ] = False,
) -> None:
    """Options of the command itself."""


@app.command(epilog=EPILOG)
def up(host: Host = "127.0.0.1", port: Port = DEFAULT_PORT, data: Data = None, workers: Workers = 1) -> None:
    """Start everything on this machine and keep it going: servers, schema, keys, worker, API. Ctrl-C stops it."""
    with everything(Options(host, port, data_dir(data), workers), _say) as running:
        if running.ready:
            _say(_welcome(running))
            running.supervisor.run()
        _say("Stopping …")
    _say("Stopped. Everything is kept; the next start goes on from here.")


@app.command("demo", epilog=EPILOG)
def run_demo(data: Data = None) -> None:
    """Start everything, run one sample contract review in the terminal, verify it, stop."""
    raise typer.Exit(demo.show(data_dir(data), DEFAULT_PORT, this_command(), _say))


@app.command(epilog=EPILOG)
def api(host: Host = "127.0.0.1", port: Port = DEFAULT_PORT, data: Data = None) -> None:
    """Run the API alone, on the servers that RUNWIRE_DATABASE_URL and RUNWIRE_REDIS_URL name."""
    _become("api", {**_servers(data), "RUNWIRE_HOST": host, "RUNWIRE_PORT": str(port)})


@app.command(epilog=EPILOG)
def worker(data: Data = None) -> None:
    """Run one worker alone, on the servers that RUNWIRE_DATABASE_URL and RUNWIRE_REDIS_URL name."""
    _become("worker", _servers(data))


@app.command("migrate", epilog=EPILOG)
def migrate_database(
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to go on trying while others hold what must be locked.")
    ] = WAIT_S,
    data: Data = None,
) -> None:
    """Bring the database to the version that this release needs. Appends go on meanwhile."""
    before, after = migrate(_servers(data)["RUNWIRE_DATABASE_URL"], wait)
    print(f"The database is at version {after}" + (", as it was." if before == after else f" (before: {before})."))


@keys_app.command("create", epilog=EPILOG)
def create(
    role: Annotated[str, typer.Option(help="user, operator or officer.")],
    tenant: Annotated[str, typer.Option(help="The tenant; made when there is none of this name.")],
    subject: Annotated[str, typer.Option(help="Whom the key stands for.")],
    data: Data = None,
    json: AsJson = False,
) -> None:
    """Make an API key. It is shown this once; the database keeps its digest only."""
    engine = sync_engine(_servers(data)["RUNWIRE_DATABASE_URL"], application="runwire-keys")
    try:
        key = create_key(engine, tenant, subject, _role(role))
    except ValueError as error:
        raise Complaint(str(error), USAGE) from error
    except SQLAlchemyError as error:
        raise database_complaint(error) from error
    finally:
        engine.dispose()
    print(as_json({"key": key, "role": role, "tenant": tenant, "subject": subject}) if json else key)


@seal_app.command("verify", epilog=EPILOG)
def verify_seal(
    keys: Annotated[Path | None, typer.Option(help="Public keys of your own; else those beside the key.")] = None,
    data: Data = None,
) -> None:
    """Hold the whole database against every checkpoint that is kept outside it."""
    report = seals.verify(_servers(data)["RUNWIRE_DATABASE_URL"], data_dir(data), keys)
    print(seals.told(report))
    raise typer.Exit(0 if report.ok else FAILED)


@seal_app.command("acknowledge", epilog=EPILOG)
def acknowledge_loss(
    why: Annotated[str, typer.Option(help="What happened; kept in the log for good.")], data: Data = None
) -> None:
    """Say that a database which is behind its checkpoints goes on all the same; what was lost is recorded."""
    standing = seals.acknowledge(_servers(data)["RUNWIRE_DATABASE_URL"], data_dir(data), why)
    print(f"Recorded. The log goes on: {standing}")


@seal_app.command("rotate", epilog=EPILOG)
def rotate_key(data: Data = None) -> None:
    """A new key signs from the next checkpoint on; prints its public half."""
    print(seals.rotate(data_dir(data)).encode())


def this_command() -> str:
    """How a person who started this command starts it again."""
    own = Path(sys.argv[0])
    if (found := shutil.which("runwire")) is not None and Path(found).resolve() == own.resolve():
        return "runwire"
    try:
        return str(own.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(own)


def _say(text: str) -> None:
    with suppress(OSError):  # a terminal that was closed must not keep the rest from being stopped in order
        print(text, flush=True)


def _welcome(running: Up) -> str:
    scripted = "scripted answers, the same each time (set OPENAI_API_KEY for a real model)"
    return "\n".join(
        [
            "",
            "Runwire is running.",
            "",
            f"  Console   {running.address}/",
            *(
                f"  {'Keys' if place == 0 else '':<9} {role:<9} {key}"
                for place, (role, key) in enumerate(running.keys.items())
            ),
            f"  Model     {scripted if running.model == 'scripted' else running.model}",
            f"  Data      {running.options.data}",
            f"  Logs      {running.logs}",
            *(
                []
                if ports.is_local(running.options.host)
                else ["", "Other machines can reach it, and keys go unencrypted."]
            ),
            "",
            f"Try it in a second terminal:  {this_command()} run contract_review --sample",
            "Stop it with Ctrl-C.",
            "",
        ]
    )


def _role(name: str) -> Role:
    match name:
        case "user" | "operator" | "officer":
            return name
    raise Complaint(f"there is no role {name}; roles are user, operator and officer", USAGE)


def _servers(data: Path | None) -> dict[str, str]:
    """Where the two servers are: as the environment says, else those of the `up` that runs in this folder."""
    names = ("RUNWIRE_DATABASE_URL", "RUNWIRE_REDIS_URL")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    if len(given) == len(names):
        return given
    running = Running.found(data_dir(data))
    if running is not None:
        return dict(zip(names, (running.database_url, running.redis_url), strict=True)) | given
    if "RUNWIRE_DATABASE_URL" in given:
        return given
    raise Complaint("no database", USAGE, "set RUNWIRE_DATABASE_URL, or start `runwire up` in this folder first")


def _become(module: str, environ: dict[str, str]) -> NoReturn:
    """Go on as one of our other programs, so that signals reach it and its exit code is ours."""
    if "RUNWIRE_REDIS_URL" not in environ:
        raise Complaint("no queue", USAGE, "set RUNWIRE_REDIS_URL, or start `runwire up` in this folder first")
    argv = python(module)
    sys.stdout.flush()
    os.execve(argv[0], argv, {**os.environ, **environ})  # noqa: S606


authoring.add_to(app, this_command, lambda data: _servers(data)["RUNWIRE_DATABASE_URL"])
