"""`runwire up`: leaves nobody behind, loses nothing, and says in one line what keeps it from starting."""

import json
import signal
import socket
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from eventstore.database import sync_engine
from ops.services import Endpoints
from tests.e2e.stage import Stage, runwire
from tests.machine import soon

DRILL = {"pieces": 3, "rate_per_s": 0}


def test_it_stops_without_orphans_and_goes_on_after_a_kill_with_all_its_history(folder: Path) -> None:
    stage = Stage(folder / "data").start()
    first = stage.submit("drill", DRILL)
    stage.until_ended(first)
    keys = (stage.data / "keys.json").read_text()
    assert stage.stop(signal.SIGINT) == 0
    assert "Stopped." in stage.said
    assert not (stage.data / "up.json").exists()

    stage.start()
    assert (stage.data / "keys.json").read_text() == keys
    second = stage.submit("drill", DRILL | {"pieces": 100, "rate_per_s": 50})
    stage.until(second, lambda event: event["type"] == "token")
    assert stage.stop(signal.SIGKILL) == -signal.SIGKILL

    stage.start()
    listed = [json.loads(line)["id"] for line in stage.runwire("runs", "--json").stdout.splitlines()]
    assert listed == [second, first]
    log = stage.until_ended(second)  # the run that was cut off goes on from its last step
    assert log[-1]["type"] == "result"
    assert stage.runwire("verify", second).returncode == 0
    assert stage.stop(signal.SIGTERM) == 0


def test_a_port_in_use_is_one_line_and_nothing_was_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = runwire("up", "--port", str(port), "--data", str(folder / "data"))
    assert done.returncode == 1
    assert done.stderr == f"runwire: port {port} on 127.0.0.1 is in use (choose another with --port)\n"
    assert not (folder / "data").exists()


@pytest.mark.parametrize(
    ("words", "setting", "code", "line"),
    [
        ([], {"RUNWIRE_DATABASE_URL": "postgresql://me:secret@127.0.0.1:9/none"}, 1, "the database: "),
        ([], {"RUNWIRE_REDIS_URL": "redis://:secret@127.0.0.1:9/0"}, 1, "Redis: "),
        ([], {"OPENAI_API_KEY": "sk-..."}, 2, "the settings do not fit: OPENAI_API_KEY "),
        ([], {"RUNWIRE_LEASE_S": "1"}, 2, "the settings do not fit: "),
        ([], {"RUNWIRE_RUNS_MAX": "many"}, 2, "the settings do not fit: RUNWIRE_RUNS_MAX "),
        (["--host", "no such host"], {}, 2, "--host no such host"),
        (["--data", "/dev/null/data"], {}, 1, "/dev/null is not a folder"),
    ],
)
def test_what_keeps_it_from_starting_is_one_line(
    folder: Path, words: list[str], setting: dict[str, str], code: int, line: str
) -> None:
    done = runwire("up", "--port", "0", *words, RUNWIRE_DATA=str(folder / "data"), **setting)
    assert done.stderr.startswith(f"runwire: {line}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert "secret" not in done.stderr
    assert done.returncode == code


def test_the_servers_that_the_environment_names_are_used(folder: Path, services: Endpoints) -> None:
    admin = sync_engine(services.database_url, application="tests").execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE IF EXISTS runwire_external WITH (FORCE)"))
        connection.execute(text("CREATE DATABASE runwire_external"))
    admin.dispose()
    url = make_url(services.database_url).set(database="runwire_external").render_as_string(hide_password=False)
    stage = Stage(folder / "data", RUNWIRE_DATABASE_URL=url, RUNWIRE_REDIS_URL=services.redis_url).start()
    try:
        assert sorted(stage.running.processes) == ["api", "model", "sealer", "worker-1"]
        assert stage.until_ended(stage.submit("drill", DRILL))[-1]["type"] == "result"
        checked = sync_engine(url, application="tests")
        with checked.connect().execution_options(
            isolation_level="AUTOCOMMIT"
        ) as connection:  # what was sealed is walked again, by the process that seals
            walked = text("SELECT block_no FROM runwire.followed WHERE block_no > 0")
            soon(lambda: connection.execute(walked).scalar_one_or_none() is not None)
        checked.dispose()
    finally:
        stage.stop()
