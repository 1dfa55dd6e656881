"""Drafts in polls: what is added joins to the whole, what was taken back is gone, and the default is bounded."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.fronts import drafts
from api.policies import load
from api.settings import ROOT
from eventstore.domain.events import Finding
from eventstore.domain.lifecycle import TERMINAL_STATUSES
from eventstore.domain.record import Recorded
from eventstore.domain.run import fold
from eventstore.domain.transcript import public_partial
from eventstore.tail import Entry
from tests.histories import facts, histories, mark, recorded, superseded
from tests.writing import accepted, started, token

POLICIES = load(ROOT / "policies")


class Joiner:
    """A reader who keeps nothing but what was added, and replaces all of it when told to."""

    def __init__(self) -> None:
        self.sections: dict[str, str] = {}
        self.findings: dict[str, Any] = {}
        self.replaced = 0

    def take(self, partial: dict[str, Any], after: int) -> None:
        assert partial["final"] is False
        if partial["since"] is None:
            self.sections, self.findings = {}, {}
            self.replaced += 1
        else:
            assert partial["since"] == after
        for name, text in partial["sections"].items():
            self.sections[name] = self.sections.get(name, "") + text
        for finding in partial["findings"]:
            self.findings[finding["item"]] = finding["value"]


@given(
    histories(events_max=40),
    st.lists(st.integers(1, 5), min_size=50, max_size=50),
    st.sampled_from(["user", "officer"]),
)
def test_who_joins_what_was_added_has_the_whole_draft_and_nothing_that_was_taken_back(
    history: list[Recorded], steps: list[int], role: Any
) -> None:
    view = POLICIES.view("contract_review", role)
    shown = [fact for event in history if (fact := view.fact(Entry(event))) is not None]
    reader, after = Joiner(), 0
    for step in steps:
        upto = min(len(history), after + step)
        state = fold(fact for fact in shown if fact.seq <= upto)
        if state.status in TERMINAL_STATUSES:
            break
        page = [fact for fact in shown if after < fact.seq <= upto]
        all_of_it = drafts.whole(state)
        assert all_of_it is not None
        reader.take(drafts.added(page, after) or all_of_it, after)
        after = upto
        assert reader.sections == all_of_it["sections"]
        assert [*reader.findings.items()] == [(one["item"], one["value"]) for one in all_of_it["findings"]]
        gone = superseded(facts(history)[:upto])
        assert not any(mark(seq) in text for seq in gone for text in reader.sections.values())


@given(histories(events_max=40), st.integers(1, 200))
def test_by_default_a_draft_is_its_end_and_says_so_when_it_is_not_all(history: list[Recorded], chars: int) -> None:
    state = fold(facts(history))
    told, all_of_it = drafts.recent(state, chars), public_partial(state)
    if told is None or all_of_it is None or "cut" not in told:
        assert told == all_of_it
        return
    assert told.pop("cut") is True
    assert told.keys() == all_of_it.keys()
    assert told["findings"] == all_of_it["findings"]
    assert sum(map(len, told["sections"].values())) == chars
    assert all_of_it["sections"].keys() == told["sections"].keys()
    for name, text in told["sections"].items():
        assert all_of_it["sections"][name].endswith(text)


def test_the_default_costs_the_same_however_long_the_draft_is() -> None:
    bodies = [accepted(), started(), *(token("word ") for _ in range(5_000))]
    history = facts(recorded(bodies))
    state = fold(history)
    first = drafts.recent(state, 100)
    assert first is not None
    assert (first["sections"]["comments"], first["cut"]) == ("word " * 20, True)
    pieces = state.sections["comments"]._buffer
    assert sum(len(made[1][1]) for made in pieces.made.values()) <= drafts.CHARS_MAX
    many = [finding(number) for number in range(drafts.FINDINGS_MAX + 1)]
    told = drafts.recent(fold(facts(recorded([accepted(), started(), *many]))), 100)
    assert told is not None
    assert [one["clause"] for one in told["findings"]] == [str(n) for n in range(1, drafts.FINDINGS_MAX + 1)]
    assert told["cut"] is True


def finding(number: int) -> Finding:
    about: dict[str, Any] = {"key": f"k{number}", "place": number, "args": "00"}
    return Finding(item=f"i{number}", value={"clause": str(number)}, **about)
