"""Nothing that a model or a document says can steer the terminal that shows it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.printable import as_json, one_line, outline, printable


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_no_control_character_but_the_newline_comes_through(text: str) -> None:
    shown = printable(text)
    assert not [one for one in shown if (ord(one) < 32 and one != "\n") or 0x7F <= ord(one) <= 0x9F]
    shown.encode("utf-8")  # no half of a surrogate pair either


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x9b31m", "\\x9b31m"),
        ("ring\x07", "ring\\x07"),
        ("over\rwritten", "over\\x0dwritten"),
        ("two\r\nlines", "two\nlines"),
        ("a\tb", "a    b"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
        ("Übergröße – 契約 👩‍⚖️", "Übergröße – 契約 👩‍⚖️"),
    ],
)
def test_what_could_steer_a_terminal_is_written_out(said: str, shown: str) -> None:
    assert printable(said) == shown


@given(st.text())
def test_json_is_one_line_of_plain_ascii_that_reads_back(text: str) -> None:
    line = as_json({"text": text})
    assert json.loads(line) == {"text": text}
    assert line.isascii()
    assert line.isprintable()


def test_one_line_has_no_line_end_and_says_that_it_was_cut() -> None:
    assert one_line("first\nsecond\n") == "first second"
    assert one_line("abcdef", 4) == "abc…"


def test_any_value_becomes_lines_for_people() -> None:
    value = {"title": "NDA", "high": ["2", "5"], "findings": [{"risk_level": "high", "why": "a\nb"}], "none": []}
    assert outline(value) == [
        "title: NDA",
        "high: 2, 5",
        "findings:",
        "  - risk level: high",
        "    why:",
        "      a",
        "      b",
        "none: –",
    ]
