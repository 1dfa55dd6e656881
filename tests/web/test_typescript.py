"""The TypeScript client's own tests, which need Node and nothing else, and its types beside the server's catalogue."""

import re
from pathlib import Path

import pytest

from eventstore.domain.lifecycle import STATUSES
from tests import event_types, node

TESTS = sorted((node.WEB / "tests").glob("*.test.ts"))
TEST_TIMEOUT_S = 120


def source(name: str) -> str:
    return (node.WEB / "client" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.name)
def test_the_client_keeps_its_promises_in_node(test: Path) -> None:
    said = node.run(test.name, ["--test", "--test-reporter=spec", str(test)], node.WEB, TEST_TIMEOUT_S)
    assert int(re.search(r"^ℹ pass (\d+)$", said, re.MULTILINE)[1]) > 0  # type: ignore[index]


def test_there_is_something_to_test() -> None:
    assert len(TESTS) > 3


def test_the_clients_types_are_those_of_the_servers_catalogue() -> None:
    assert event_types.FILE.read_text(encoding="utf-8") == event_types.typescript(), "run python -m tests.event_types"


def test_the_client_knows_the_servers_statuses() -> None:
    told = re.search(r"type Status = (.*);", source("runs.ts"))
    assert told is not None
    assert re.findall(r'"(\w+)"', told[1]) == list(STATUSES)


def test_the_client_needs_no_package_at_run_time() -> None:
    imported = {
        name
        for file in (node.WEB / "client").glob("*.ts")
        for name in re.findall(r'from "([^"]+)"', file.read_text(encoding="utf-8"))
    }
    assert imported
    assert all(name.startswith("./") for name in imported)
