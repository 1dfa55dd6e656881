"""What stops the start: a broken policy, limits that do not fit; each names what to mend."""

import re
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from api.app import create_app
from api.errors import NotAllowed
from api.policies import load
from api.server import address_of, listen
from api.settings import ROOT, ApiSettings
from eventstore.database import SCHEMA_VERSION, version_fault, version_number
from eventstore.domain.errors import PolicyError
from migrations import schema

LIFE = "".join(f'{name} = "all"\n' for name in ("accepted", "started", "cancel_requested", "result", "cancelled"))
GOOD = f'workflow = "w"\nversion = 1\nsubmit = ["user"]\n[roles.user]\n{LIFE}error = "all"\n'


def settings(**more: object) -> ApiSettings:
    return ApiSettings.model_validate({"database_url": "postgresql:///x", "redis_url": "redis://x", **more})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("workflow = ", "a.toml"),
        ("\xff", "a.toml"),
        (GOOD.replace('error = "all"', 'errors = "all"'), "roles.user.errors"),
        (GOOD.replace('error = "all"', ""), "error"),
        (GOOD.replace('"user"]', '"guest"]'), "submit"),
        (GOOD + 'surprise = "all"\n', "surprise"),
        (GOOD.replace('started = "all"', 'started = ["attempts"]'), "roles.user.started"),
        (GOOD.replace("version = 1", "version = 1\nverison = 2"), "verison"),
    ],
)
def test_a_broken_policy_stops_the_start_and_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "a.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(PolicyError, match=named) as stopped:
        create_app(settings(policies=tmp_path))
    assert "a.toml" in str(stopped.value)


def test_a_folder_without_policies_and_two_of_one_workflow_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="no policy"):
        load(tmp_path)
    (tmp_path / "a.toml").write_text(GOOD)
    assert load(tmp_path).of("w") is not None
    (tmp_path / "b.toml").write_text(GOOD)
    with pytest.raises(PolicyError, match=r"b\.toml.*a\.toml"):
        load(tmp_path)


def test_a_role_that_a_policy_does_not_name_has_no_view() -> None:
    policies = load(ROOT / "policies")
    with pytest.raises(NotAllowed):
        policies.view("drill", "user")
    with pytest.raises(NotAllowed):
        policies.view("unheard_of", "officer")


@pytest.mark.parametrize(
    "limits",
    [
        {"request_bytes_max": 1_000},
        {"page_events_default": 400, "page_events_max": 300},
        {"list_runs_default": 400},
        {"poll_wait_s_max": 60},
        {"keepalive_s": 90},
        {"keepalive_s": 0},
        {"port": 70_000},
    ],
)
def test_limits_that_do_not_fit_stop_the_start(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        settings(**limits)


def test_the_version_that_the_statements_need_is_the_newest_migration() -> None:
    assert schema.newest() == SCHEMA_VERSION


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (SCHEMA_VERSION, None),
        ("coming_99", None),  # migrated on while a process of this release still runs
        ("log_1", "is older than this release .*: runwire migrate"),
        (None, "is older than this release"),
        ("0002", "is at version 0002, which no release has made"),
        ("9999", "is at version 9999, which no release has made"),
        (f"block_{version_number(SCHEMA_VERSION)}", "which no release has made"),
    ],
)
def test_a_database_of_another_version_stops_the_start_unless_it_is_a_later_one(
    version: str | None, said: str | None
) -> None:
    fault = version_fault(version)
    assert fault is None if said is None else re.match(f".*{said}", fault or "")


def test_the_listener_is_named_as_tcp_so_that_small_writes_are_not_held_back() -> None:
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert address_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    with listen("127.0.0.1", 0) as listener, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", listener.getsockname()[1])
