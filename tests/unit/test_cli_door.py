"""Which server and key a command takes, and that a stored key goes nowhere else."""

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from ops import ports
from ops.door import DEFAULT_URL, find_door
from ops.exits import UNREACHABLE, USAGE, Complaint
from ops.running import Running, write_json

KEYS = {"user": "rw_user", "operator": "rw_operator", "officer": "rw_officer"}
HERE = "http://127.0.0.1:8123"


def running(pid: int) -> Running:
    return Running(HERE, pid, {"api": 1}, "postgresql:///x", "redis://", "scripted", None, "/logs")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    running(os.getpid()).write(tmp_path)
    write_json(tmp_path / "keys.json", {"tenant": "demo", "keys": KEYS})
    return tmp_path


def test_a_running_up_is_found_with_its_keys_in_the_order_asked(data: Path) -> None:
    door = find_door(data, {}, ("officer", "user"))
    assert (door.url, door.keys) == (HERE, ("rw_officer", "rw_user"))


def test_what_is_kept_is_for_its_owner_only(data: Path) -> None:
    for name in ("up.json", "keys.json"):
        assert stat.S_IMODE((data / name).stat().st_mode) == 0o600


def test_a_stored_key_is_never_sent_to_another_server(data: Path) -> None:
    with pytest.raises(Complaint, match="no key for http://elsewhere:8080") as complaint:
        find_door(data, {"RUNWIRE_URL": "http://elsewhere:8080"}, ("user",))
    assert complaint.value.code == UNREACHABLE


def test_what_was_said_goes_before_what_was_found(data: Path) -> None:
    environ = {"RUNWIRE_URL": "http://elsewhere:8080/", "RUNWIRE_KEY": "rw_said "}
    assert find_door(data, environ, ("user",)).keys == ("rw_said",)
    (data / "key").write_text("rw_file\n")
    door = find_door(data, environ, ("user",), data / "key")
    assert (door.url, door.keys) == ("http://elsewhere:8080", ("rw_file",))


def test_one_that_was_killed_is_not_found(tmp_path: Path) -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    running(gone).write(tmp_path)
    assert Running.found(tmp_path) is None
    with pytest.raises(Complaint, match=f"no key for {DEFAULT_URL}"):
        find_door(tmp_path, {}, ("user",))


def test_another_process_of_the_same_number_is_not_taken_for_it(tmp_path: Path) -> None:
    replace(running(os.getpid()), born="another boot 12345").write(tmp_path)
    assert Running.found(tmp_path) is None


def test_a_broken_note_is_no_note(tmp_path: Path) -> None:
    for content in ("", "[]", '{"address": 1}', "\0"):
        (tmp_path / "up.json").write_text(content)
        assert Running.found(tmp_path) is None


@pytest.mark.parametrize("content", ["", "two keys", "ümlaut"])
def test_a_key_file_holds_one_key(data: Path, content: str) -> None:
    (data / "key").write_text(content)
    with pytest.raises(Complaint) as complaint:
        find_door(data, {}, ("user",), data / "key")
    assert complaint.value.code == USAGE


def test_a_port_in_use_is_told_and_a_free_one_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Complaint, match=f"port {port} on 127.0.0.1 is in use"):
            ports.check_port("127.0.0.1", port)
    ports.check_port("127.0.0.1", ports.free_port())


def test_an_address_of_no_machine_is_wrong_usage() -> None:
    with pytest.raises(Complaint) as complaint:
        ports.check_port("no such host", 8080)
    assert complaint.value.code == USAGE


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "http://127.0.0.1:80"), ("::", "http://[::1]:80"), ("::1", "http://[::1]:80")]
)
def test_an_address_is_one_that_can_be_opened(host: str, shown: str) -> None:
    assert ports.address(host, 80) == shown
