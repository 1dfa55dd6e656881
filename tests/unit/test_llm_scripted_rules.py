"""What the scripted model says."""

import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.llm.scripted_faults import Fault, Faults, Journal
from worker.llm.scripted_rules import (
    NO_RULE,
    NO_RULE_SAYS,
    Answer,
    Rule,
    ScriptError,
    answer,
    load_rules,
    parse_rules,
    prompt_text,
    words,
)


def rule(**fields: object) -> Rule:
    return Rule.model_validate({"name": "r", **fields})


def say(prompt: str, *rules: Rule, last_role: str = "user") -> Answer:
    return answer(rules, prompt, last_role)


def test_the_first_rule_whose_patterns_are_all_found_speaks() -> None:
    rules = [
        rule(name="both", when=["alpha", "beta"], say="both"),
        rule(name="one", when=["alpha"], say="one"),
        rule(name="later", when=["alpha"], say="later"),
    ]
    assert say("alpha beta", *rules).text == "both"
    assert say("alpha", *rules).rule == "one"


def test_without_a_rule_it_says_that_no_script_matched() -> None:
    told = say("gamma", rule(when=["alpha"], say="x"))
    assert (told.rule, told.text, told.finish) == (NO_RULE, NO_RULE_SAYS, "stop")


def test_named_groups_fill_the_texts_and_other_braces_stay() -> None:
    told = say(
        "Title: Lease\nRisk: high",
        rule(
            when=["^Title: (?P<title>.+)$", "^Risk: (?P<risk>\\w+)", "(?P<none>zzz)?"],
            reasoning="{title}?",
            say='{"title": "{title}", "risk": "{risk}", "x": "{unknown}{none}"}',
            tool_calls=[{"name": "t", "arguments": {"a": "{title}", "b": [{"c": "{risk}"}], "d": 3}}],
        ),
    )
    assert told.reasoning == "Lease?"
    assert told.text == '{"title": "Lease", "risk": "high", "x": "{unknown}"}'
    assert told.tool_calls == (("t", {"a": "Lease", "b": [{"c": "high"}], "d": 3}),)
    assert told.finish == "tool_calls"


def test_one_part_is_said_for_each_match() -> None:
    clauses = rule(
        when=["for (?P<who>\\w+)"],
        for_each="^(?P<number>[\\d.]+) \\[high\\] (?P<title>.+)$",
        say="{count} for {who}: {each}.",
        say_each="{n}) {number} {title}",
        between="; ",
        say_if_none="none for {who}",
    )
    prompt = "for Ada\n1.1 [high] Cap {who}\n1.2 [low] Term\n2 [high] Law"
    assert say(prompt, clauses).text == "2 for Ada: 1) 1.1 Cap {who}; 2) 2 Law."
    assert say("for Ada", clauses).text == "0 for Ada: none for Ada."
    assert say(prompt, rule(for_each="high", say="a ", say_each="h")).text == "a hh"


def test_a_rule_may_ask_who_spoke_last() -> None:
    rules = [rule(name="after the tool", last_role="tool", say="b"), rule(name="before", say="a")]
    assert say("x", *rules).text == "a"
    assert say("x", *rules, last_role="tool").text == "b"


def test_the_same_prompt_gives_the_same_answer() -> None:
    some = rule(when=["(?P<a>.+)"], for_each="\\w", say_each="{n}{a}")
    assert say("one two", some) == say("one two", some)


@settings(deadline=None)
@given(st.text())
def test_the_words_of_a_text_joined_are_the_text(text: str) -> None:
    pieces = words(text)
    assert "".join(pieces) == text
    assert all(0 < len(re.sub(r"^\s+", "", piece)) <= 24 or piece.isspace() for piece in pieces)


def test_the_text_of_a_prompt_is_that_of_all_its_messages() -> None:
    messages: list[dict[str, object]] = [
        {"role": "system", "content": "a"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "b"}, {"type": "image_url"}, {"type": "text", "text": "c"}],
        },
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "d"},
    ]
    assert prompt_text(messages) == "a\n\nbc\n\nd"


def test_scripts_are_loaded_from_folders_in_the_order_of_their_paths_and_once(tmp_path: Path) -> None:
    for folder, names in {"b": ["3"], "a": ["1", "2"]}.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.script.json").write_bytes(orjson.dumps([{"name": name} for name in names]))
        (tmp_path / folder / "other.json").write_text("not read")
    assert [item.name for item in load_rules([tmp_path, tmp_path / "a"])] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("[", "Invalid JSON"),
        ('{"name": "x"}', "array"),
        ('[{"name": "x", "sya": "y"}]', "sya"),
        ('[{"name": "x", "when": ["("]}]', "regular expression"),
        ('[{"name": "x", "pieces_per_s": -1}]', "pieces_per_s"),
        ("[{}]", "name"),
    ],
)
def test_a_script_that_cannot_be_used_is_named_with_the_place(script: str, says: str) -> None:
    with pytest.raises(ScriptError, match=re.escape(says)) as caught:
        parse_rules(script.encode(), source="a.script.json")
    assert str(caught.value).startswith("a.script.json: ")
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="no folder"):
        load_rules([tmp_path / "away"])


def test_faults_are_used_up_in_order_by_the_requests_they_fit() -> None:
    faults = Faults()
    faults.add(Fault(kind="429", times=2, when="^draft"))
    faults.add(Fault(kind="cut"))
    assert [_kind(faults, prompt) for prompt in ("other", "draft", "draft", "draft")] == ["cut", "429", "429", None]


def test_a_garble_waits_for_a_text_that_it_can_change() -> None:
    faults = Faults()
    faults.add(Fault.model_validate({"kind": "garble", "replace": {"from": "high", "to": "low"}}))
    assert faults.take("p", "all is well") is None
    assert faults.take("p", "a high risk") is not None
    assert faults.waiting() == []


@pytest.mark.parametrize(
    "order",
    [
        {"kind": "boom"},
        {"kind": "200"},
        {"kind": "garble"},
        {"kind": "cut", "replace": {"from": "a", "to": "b"}},
        {"kind": "cut", "when": "("},
        {"kind": "cut", "times": 0},
        {"kind": "cut", "after_pieces": -1},
        {"kind": "cut", "unknown": 1},
    ],
)
def test_an_order_that_makes_no_sense_is_refused(order: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Fault.model_validate(order)


def test_the_journal_is_bounded_and_the_first_word_about_an_end_counts() -> None:
    journal = Journal()
    entries = [journal.open(client="a", model="m", rule="r", prompt_digest="d", fault=None) for _ in range(2_500)]
    entries[-1].close("client_closed")
    entries[-1].close("finished")
    seen = journal.entries()
    assert (len(seen), seen[-1]["id"], seen[-1]["ended"]) == (2_000, "req_2500", "client_closed")


def _kind(faults: Faults, prompt: str) -> str | None:
    fault = faults.take(prompt, "text")
    return fault.kind if fault is not None else None
