"""Every promise to the authors of workflows has its tests, and those exist."""

import ast
import re
from typing import Final

import pytest

from tests.house import ROOT

ROWS: Final = re.findall(r"^\| (\d+) \| (.+?) \| (.+) \|$", (ROOT / "docs/checks.md").read_text(), re.MULTILINE)
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_forty_promises_are_numbered_in_order() -> None:
    assert [int(number) for number, _, _ in ROWS] == [*range(1, 41)]
    assert all(TEST.search(tests) for _, _, tests in ROWS)


@pytest.mark.parametrize(("number", "tests"), [pytest.param(number, tests, id=number) for number, _, tests in ROWS])
def test_the_tests_of_a_promise_are_there_and_are_not_left_out(number: str, tests: str) -> None:
    named = tests.split("<br>")
    for one in named:
        found = TEST.fullmatch(one)
        assert found is not None, f"{number}: {one} is no test's name"
        module = ast.parse((ROOT / found[1]).read_text(encoding="utf-8"))
        functions = [each for each in module.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
        test = next((each for each in functions if each.name == found[2]), None)
        assert test is not None, f"{number}: there is no {one}"
        marks = {ast.unparse(mark).partition("(")[0] for mark in test.decorator_list}
        assert not marks & {"pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail"}, f"{number}: {one}"
