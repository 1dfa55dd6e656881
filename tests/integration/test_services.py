"""The embedded servers over their lives: started twice, killed, left over, crowded, named by the user."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import redis

from ops import binaries, servers
from ops.places import service_user, socket_dir
from ops.services import Endpoints, ServiceError, Services, external_or_embedded
from ops.tether import tethered
from tests.machine import answer, connect, ends, open_folder, remember, remembered, soon

OWNER = """
import json, sys
from pathlib import Path
from ops.services import Services
services = Services(Path(sys.argv[1]))
endpoints = services.start()
print(json.dumps([endpoints.database_url, endpoints.redis_url, services.processes]), flush=True)
sys.stdin.read()
services.stop()
"""

# What the promises stand on: nothing that was committed is lost, no door but the socket.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "data_checksums": "on",
    "server_encoding": "UTF8",
    "listen_addresses": "",
}

# Queries of other connections that are running now.
OTHERS_AT_WORK = b"""
    SELECT count(*) FROM pg_stat_activity
    WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user of the machine may enter; pytest's own are closed."""
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A data folder that has been used before, shared by the tests of this file and not in use between them."""
    with open_folder() as folder:
        with Services(folder / "data"):
            pass
        yield folder / "data"


@contextmanager
def owner(data: Path) -> Iterator[tuple[subprocess.Popen[str], Endpoints, dict[str, int]]]:
    """Another process that keeps services running."""
    command = [sys.executable, "-W", "error", "-c", OWNER, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            database_url, redis_url, pids = json.loads(process.stdout.readline())
            yield process, Endpoints(database_url, redis_url), pids
        finally:
            process.kill()


def spare_process(user: tuple[int, int] | None, *command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(tethered(command, signal.SIGKILL, user), stderr=subprocess.DEVNULL)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_a_first_start_makes_a_durable_database_and_a_second_one_finds_it_again(place: Path) -> None:
    with Services(place / "data") as services:
        endpoints, pids = services.endpoints, services.processes
        with connect(endpoints) as connection:
            found = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in SETTINGS}
        assert found == {name: (value,) for name, value in SETTINGS.items()}
        with redis.Redis.from_url(endpoints.redis_url) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("port") == {"port": "0"}
        assert sorted(pids) == ["postgres", "valkey"]
        assert all(os.getsid(pid) == pid for pid in pids.values()), "Ctrl-C in a terminal would reach a server"
        remember(endpoints, "first")
    assert all(ends(pid, 0) for pid in pids.values())
    assert "database system is shut down" in (place / "data/postgres.log").read_text()

    with Services(place / "data") as again:
        assert remembered(again.endpoints, "first") == (True, True)
        assert again.endpoints == endpoints


def test_a_killed_owner_leaves_no_server_and_the_next_start_recovers(data: Path) -> None:
    with owner(data) as (process, endpoints, pids):
        remember(endpoints, "killed")
        process.kill()
        assert all(ends(pid) for pid in pids.values())
    with Services(data) as services:
        assert remembered(services.endpoints, "killed") == (True, True)


def test_a_killed_owner_need_not_have_gone_for_long(data: Path) -> None:
    with owner(data) as (process, _, _):
        process.kill()
        process.wait()
        with Services(data) as services:
            assert answer(services.endpoints, b"SELECT 1") == 1


def test_servers_that_die_alone_are_started_again_by_tending(data: Path) -> None:
    with Services(data) as services:
        assert services.tend() == []
        remember(services.endpoints, "tended")
        for pid in services.processes.values():
            os.kill(pid, signal.SIGKILL)
            assert ends(pid)
        assert services.tend() == ["postgres", "valkey"]
        assert remembered(services.endpoints, "tended") == (True, True)


def test_a_query_that_outlives_its_killed_server_only_delays_the_next_start(data: Path) -> None:
    with Services(data) as services:
        endpoints, first = services.endpoints, services.processes["postgres"]

        def be_busy() -> None:
            with suppress(psycopg.OperationalError), connect(endpoints) as connection:
                connection.execute("SELECT count(*) FROM generate_series(1, 8000000)")

        busy = threading.Thread(target=be_busy)
        busy.start()
        soon(lambda: answer(endpoints, OTHERS_AT_WORK) == 1)
        os.kill(first, signal.SIGKILL)
        assert ends(first)
        assert services.tend() == ["postgres"]
        busy.join()
        assert answer(endpoints, b"SELECT 1") == 1
    assert "pre-existing shared memory block" in (data / "postgres.log").read_text()


def test_a_server_that_outlived_its_owner_is_ended(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_LEFT_OVER_WAIT_S", 0.5)
    user = service_user()
    command = [str(binaries.postgres_programs(data, user) / "postgres"), "-D", str(data / "pg"), "-c"]
    # As if a crash of another kind had left it: it is no child of these services.
    sockets = socket_dir(data, user)
    with spare_process(user.ids, *command, f"unix_socket_directories={sockets}") as left_over:
        soon(lambda: "ready" in read(data / "pg/postmaster.pid"))
        with Services(data) as services:
            assert left_over.poll() is not None
            assert answer(services.endpoints, b"SELECT 1") == 1


def test_a_pid_file_whose_number_another_program_got_does_not_keep_the_database_shut(data: Path) -> None:
    with spare_process(service_user().ids, "sleep", "60") as other:
        lines = [str(other.pid), str(data / "pg"), "1700000000", "5432", "", "", "0 0", "ready"]
        pid_file = data / "pg/postmaster.pid"
        pid_file.write_text("\n".join(lines) + "\n")
        os.chown(pid_file, service_user().uid, service_user().gid)
        with Services(data) as services:
            assert answer(services.endpoints, b"SELECT 1") == 1
        assert other.poll() is None
        other.kill()


@pytest.mark.parametrize("words", ["", "12", "12\n/somewhere\nnoon\n"])
def test_a_pid_file_written_by_half_is_no_obstacle(data: Path, words: str) -> None:
    (data / "pg/postmaster.pid").write_text(words)
    with Services(data) as services:
        assert answer(services.endpoints, b"SELECT 1") == 1


def test_a_second_owner_of_the_same_data_is_refused(data: Path) -> None:
    with owner(data) as (process, endpoints, _):
        with pytest.raises(ServiceError, match=f"another runwire .process {process.pid}. already uses") as refusal:
            Services(data).start()
        assert "--data" in refusal.value.hint
        assert answer(endpoints, b"SELECT 1") == 1


def test_data_of_another_postgresql_version_is_left_alone(data: Path) -> None:
    version = data / "pg/PG_VERSION"
    ours = version.read_text()
    version.write_text("15\n")
    try:
        with pytest.raises(ServiceError, match=r"was written by PostgreSQL 15, and this is postgres .PostgreSQL. 18"):
            Services(data).start()
    finally:
        version.write_text(ours)


def test_a_first_start_that_was_killed_half_way_is_begun_anew(place: Path) -> None:
    (place / "data/pg.new").mkdir(parents=True)
    (place / "data/pg.new/PG_VERSION").write_text("18\n")
    with Services(place / "data") as services:
        assert answer(services.endpoints, b"SELECT 1") == 1
    assert not (place / "data/pg.new").exists()


def test_a_server_that_does_not_start_is_reported_with_its_own_words(data: Path) -> None:
    kept = (data / "pg/global/pg_control").read_bytes()
    (data / "pg/global/pg_control").write_bytes(b"")
    try:
        with pytest.raises(ServiceError, match=r"postgres did not start: .*(PANIC|FATAL): .*pg_control") as refusal:
            Services(data).start()
    finally:
        (data / "pg/global/pg_control").write_bytes(kept)
    assert str(data / "postgres.log") in refusal.value.hint


def test_the_users_own_servers_are_used_when_named(place: Path, data: Path) -> None:
    named = {"RUNWIRE_DATABASE_URL": "postgres://me@db/runwire", "RUNWIRE_REDIS_URL": "redis://cache/1"}
    with external_or_embedded(place / "data", named) as endpoints:
        assert endpoints == Endpoints("postgresql+psycopg://me@db/runwire", "redis://cache/1")
    assert not (place / "data").exists()

    with Services.configured(data, {"RUNWIRE_DATABASE_URL": named["RUNWIRE_DATABASE_URL"]}) as services:
        assert list(services.processes) == ["valkey"]
        assert services.endpoints.database_url == "postgresql+psycopg://me@db/runwire"
    with Services.configured(data, {"RUNWIRE_REDIS_URL": named["RUNWIRE_REDIS_URL"]}) as services:
        assert list(services.processes) == ["postgres"]
        assert services.endpoints.redis_url == "redis://cache/1"


def test_a_disk_limit_that_is_no_number_is_refused(place: Path) -> None:
    with pytest.raises(ServiceError, match="RUNWIRE_DISK_FREE_MIN_BYTES is a number of bytes, not '1G'"):
        Services.configured(place, {"RUNWIRE_DISK_FREE_MIN_BYTES": "1G"})


def test_a_passing_thread_may_not_start_servers_that_would_end_with_it(data: Path) -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            Services(data).start()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "only the main thread" in str(caught[0])
