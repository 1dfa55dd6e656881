"""Held text: what is released depends on the text alone, and nothing of it is released that must not be seen."""

import re
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from worker.holding import Guard, Hold, Holder, Redaction, guard_of
from worker.stops import WorkflowFailed

NUMBER = Redaction(r"\b\d{3}-\d{4}\b", "[number]")
MAIL = Redaction(r"[\w.]+@[\w.]+\w", "[mail]")
OPEN = Redaction(r"\d{3}-\d", "[open]")
PHONE = Redaction(r"\b\d{3}[-. \n]{1,3}\d{4}\b", "[phone]")  # may hold a checkpoint
AFTER = Redaction(r"(?<=call )\d{3}", "[after]")  # looks back over one
FAR = Redaction(r"\d[^!]*!", "[far]")  # may show itself only far behind what it begins with
SECRET = "call 555-1234 or write to ann.lee@example.org. Then\nwait for 555-9876! (Not 5555-12345.)\n\nOver. "
RULES: list[Hold] = ["word", "sentence", "section"]


def by_lines(text: str, ended: bool) -> int:
    """A rule of one's own: whole lines only, and the rest at the end."""
    return len(text) if ended else text.rfind("\n") + 1


def release(guard: Guard, pieces: Iterable[str]) -> str:
    holder = guard.holder()
    out = [text for piece in pieces for text in holder.feed(piece)]
    return "".join([*out, *holder.close()])


def cut(text: str, places: list[int]) -> list[str]:
    return [text[a:b] for a, b in pairwise([0, *sorted(place % (len(text) + 1) for place in places), len(text)])]


PARTS = ["call ", "555-1234", "555", "1234", "5", "-", "a@b.c", ". ", "\n\n", " \n", "ann.lee@example.org", "!"]
TEXTS = st.text(st.sampled_from("ab .!?\n\t,05-@\"'。"), max_size=120) | st.lists(
    st.sampled_from(PARTS), max_size=40
).map("".join)
PLACES = st.lists(st.integers(0, 500), max_size=12)


@pytest.mark.parametrize("hold", [*RULES, by_lines])
@given(text=TEXTS, places=PLACES)
@example(text=SECRET, places=[8, 9, 10])
@example(text="5 a. b. c. d. e. f. g. h. i. j. k!", places=[34])
def test_any_cut_into_pieces_releases_the_same_text(hold: Hold, text: str, places: list[int]) -> None:
    guard = Guard(hold, (NUMBER, MAIL, OPEN, PHONE, AFTER, FAR), hold_chars_max=4_000, span_max=24)
    whole = release(guard, [text])
    assert release(guard, cut(text, places)) == whole
    assert release(guard, text) == whole


@pytest.mark.parametrize("hold", [*RULES, by_lines])
@pytest.mark.parametrize("redaction", [NUMBER, PHONE, AFTER], ids=lambda redaction: redaction.replacement)
@given(text=TEXTS, places=PLACES)
@example(text=SECRET, places=list(range(100)))
@example(text="call 555. 1234 and call 555 \n1234.", places=list(range(100)))
def test_a_pattern_over_pieces_and_checkpoints_is_redacted_as_in_the_whole_text(
    hold: Hold, redaction: Redaction, text: str, places: list[int]
) -> None:
    """One redaction: then the whole text, redacted by the library, is the measure."""
    guard = Guard(hold, (redaction,), span_max=24)
    assert release(guard, cut(text, places)) == re.sub(redaction.pattern, redaction.replacement, text)


@pytest.mark.parametrize("hold", [*RULES, by_lines])
@given(text=TEXTS, places=PLACES)
def test_without_redactions_the_text_is_released_as_it_is(hold: Hold, text: str, places: list[int]) -> None:
    assert release(Guard(hold), cut(text, places)) == text


@given(text=TEXTS, places=PLACES, most=st.integers(9, 40), span=st.integers(1, 8))
def test_too_much_held_fails_closed_at_the_same_place_whatever_the_cut(
    text: str, places: list[int], most: int, span: int
) -> None:
    def told(pieces: Iterable[str]) -> tuple[str, bool | None]:
        holder, out = guard.holder(), ""
        try:
            for piece in pieces:
                for released in holder.feed(piece):
                    out += released
            for released in holder.close():
                out += released
        except WorkflowFailed:
            return out, holder.holds == 0  # what was held is gone
        return out, None

    guard = Guard("sentence", (OPEN,), hold_chars_max=most, span_max=span)
    assert told([text]) == told(cut(text, places)) == told(text)
    assert told([text])[1] is not False


@pytest.mark.parametrize(
    ("hold", "first"),
    [
        ("word", "One "),
        ("sentence", "One two. "),
        ("section", "One two. Three\n\n"),
        (by_lines, "One two. Three\n"),
    ],
)
def test_text_leaves_at_its_checkpoint_and_not_before(hold: Hold, first: str) -> None:
    holder = Guard(hold).holder()
    for place, char in enumerate("One two. Three\n\nFour five.", start=1):
        released = "".join(holder.feed(char))
        if released:
            assert (released, place) == (first, len(first))
            return
    raise AssertionError("nothing was released")


def test_redacted_text_appears_as_soon_as_no_pattern_can_reach_into_it() -> None:
    holder = Guard("word", (NUMBER,), span_max=10).holder()
    seen = [("".join(holder.feed(char)), holder.holds) for char in "a b c d e f g h i j k l m n"]
    assert max(held for _, held in seen) <= 12
    assert "".join(text for text, _ in seen) != ""


def test_nothing_is_held_beyond_the_bound_however_long_the_answer() -> None:
    holder = Guard("sentence", (NUMBER,), hold_chars_max=400, span_max=50).holder()
    most = 0
    for _ in range(500):
        for _text in holder.feed("It is so. "):
            pass
        most = max(most, len(holder._text))
    assert most <= 400


@pytest.mark.parametrize("hold", [*RULES, by_lines])
def test_text_without_a_checkpoint_fails_as_soon_as_there_is_too_much_of_it(hold: Hold) -> None:
    holder = Guard(hold, hold_chars_max=400).holder()
    assert "".join(text for _ in range(400) for text in holder.feed("x")) == ""
    with pytest.raises(WorkflowFailed):
        list(holder.feed("x"))


def test_a_match_that_goes_on_and_on_is_held_until_it_ends_or_fails_closed() -> None:
    key = Redaction(r"KEY[0-9a-z]+", "[key]")
    guard = Guard("sentence", (key,), hold_chars_max=400, span_max=20)
    assert release(guard, "a KEY" + "9" * 200 + ". Over. ") == "a [key]. Over. "
    with pytest.raises(WorkflowFailed):
        release(guard, "a KEY" + "9" * 800 + ". Over. ")


def test_overlapping_matches_leave_no_rest() -> None:
    guard = Guard("sentence", (Redaction(r"ab+", "[1]"), Redaction(r"bc+", "[2]")))
    assert release(guard, ["xabcc. "]) == "x[1]. "


def test_what_a_rule_of_ones_own_does_not_let_go_at_the_end_is_dropped() -> None:
    assert release(Guard(lambda text, ended: 0 if ended else text.rfind("\n") + 1), ["kept\nnot "]) == "kept\n"


@pytest.mark.parametrize("count", [-5, 10_000])
def test_a_rule_that_asks_for_more_or_less_than_there_is_gets_what_there_is(count: int) -> None:
    out = release(Guard(lambda text, ended: count), ["a b "])
    assert out == ("" if count < 0 else "a b ")


@pytest.mark.parametrize("pattern", ["", "a*", "(?=x)|"])
def test_a_pattern_that_matches_nothing_at_all_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="matches nothing"):
        Redaction(pattern)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="hold must be"):
        Guard("paragraph")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="span_max"):
        Guard("word", hold_chars_max=10, span_max=10)
    assert guard_of(None, ()) is None
    assert guard_of(None, [NUMBER]) == Guard("word", (NUMBER,))
    assert isinstance(Guard("section").holder(), Holder)
