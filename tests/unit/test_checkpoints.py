"""What is kept outside is written once: the same again changes nothing, anything else is refused."""

from pathlib import Path

import pytest

from eventstore.checkpoints import Directory, Forked, OutsideAway, OutsideRefuses, Several


def note(size: int, root: str = "root") -> str:
    return f"log\n{size}\n{root}\n\n— key sig\n"


def test_an_empty_place_has_no_checkpoint(tmp_path: Path) -> None:
    store = Directory(tmp_path / "none")
    assert (store.latest(), store.checkpoint(1), store.block(1), list(store.sizes())) == (None, None, None, [])


def test_notes_and_blocks_are_kept_and_the_largest_is_the_latest(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    sizes = [1, 2, 999, 1000, 1_000_000]
    for size in sizes:
        store.keep_blocks({size: bytes([size % 251])})
        store.publish(size, note(size))
        assert store.latest() == note(size)
    assert list(Directory(tmp_path).sizes()) == sizes
    assert [store.block(size) for size in sizes] == [bytes([size % 251]) for size in sizes]
    assert (tmp_path / "checkpoints" / "000000000001" / "000000000001000").read_text() == note(1000)
    assert not list(tmp_path.rglob(".half-*"))


def test_the_same_again_changes_nothing_and_anything_else_is_refused(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    for _ in range(2):
        store.keep_blocks({1: b"a", 2: b"b"})
        store.publish(2, note(2))
    with pytest.raises(Forked, match="something else"):
        store.publish(2, note(2, "another"))
    with pytest.raises(Forked):
        store.keep_blocks({3: b"c", 2: b"x"})
    assert (store.latest(), store.block(2)) == (note(2), b"b")


def test_a_smaller_checkpoint_never_becomes_the_latest(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    store.publish(5, note(5))
    store.publish(4, note(4))
    assert store.latest() == (tmp_path / "latest").read_text() == note(5)


def test_a_checkpoint_that_was_written_before_the_pointer_was_moved_counts(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    store.publish(5, note(5))
    pointer = (tmp_path / "latest").read_bytes()
    store.publish(6, note(6))
    (tmp_path / "latest").write_bytes(pointer)
    assert store.latest() == note(6)
    (tmp_path / "latest").write_bytes(b"half")
    assert store.latest() == note(6)
    (tmp_path / "latest").unlink()
    assert store.latest() == note(6)
    store.publish(6, note(6))
    assert (tmp_path / "latest").read_text() == note(6)


def test_a_checkpoint_that_was_taken_away_still_counts_while_the_pointer_names_it(tmp_path: Path) -> None:
    store = Directory(tmp_path)
    for size in (5, 6):
        store.publish(size, note(size))
    (tmp_path / "checkpoints" / "000000000000" / "000000000000006").unlink()
    assert store.latest() == note(6)


def test_a_place_that_is_away_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="directory"):
        Directory(tmp_path / "file").publish(1, note(1))


class Faulty(Directory):
    """A folder that answers with a fault."""

    fault: OSError | None = None

    def latest(self) -> str | None:
        self._maybe()
        return super().latest()

    def check(self) -> None:
        self._maybe()

    def block(self, block_no: int) -> bytes | None:
        self._maybe()
        return super().block(block_no)

    def publish(self, size: int, note: str) -> None:
        self._maybe()
        super().publish(size, note)

    def _maybe(self) -> None:
        if self.fault is not None:
            raise self.fault


def test_of_several_places_the_furthest_note_counts_and_all_are_written(tmp_path: Path) -> None:
    a, b = Faulty(tmp_path / "a"), Faulty(tmp_path / "b")
    both = Several({"a": a, "b": b})
    assert (both.latest(), both.whole_to(), both.away) == (None, 0, ())
    both.keep_blocks({1: b"x"})
    both.publish(1, note(1))
    assert a.latest() == b.latest() == both.latest() == note(1)
    b.publish(7, note(7))
    b.keep_blocks({7: b"y"})
    assert (both.latest(), both.whole_to(), list(both.sizes())) == (note(7), 1, [1, 7])
    assert (both.block(7), both.block(8)) == (b"y", None)
    a.publish(7, note(7, "another"))
    assert list(both.notes()) == [note(1), note(7, "another"), note(7)]
    with pytest.raises(Forked):
        both.publish(7, note(7))


def test_what_is_no_note_is_not_passed_over_for_a_note_that_is_further(tmp_path: Path) -> None:
    a, b = Directory(tmp_path / "a"), Directory(tmp_path / "b")
    a.publish(3, "scribble")
    b.publish(9, note(9))
    assert Several({"a": a, "b": b}).latest() == Several({"b": b, "a": a}).latest() == "scribble"


def test_a_place_that_is_away_is_named_and_the_others_are_still_written(tmp_path: Path) -> None:
    a, b = Faulty(tmp_path / "a"), Faulty(tmp_path / "b")
    both = Several({"a": a, "b": b})
    both.publish(1, note(1))
    both.keep_blocks({1: b"x"})
    a.fault = OutsideAway("a is away")
    assert (both.latest(), both.away) == (note(1), ("a",))
    assert both.block(1) == b"x"
    with pytest.raises(OutsideAway, match="a is away"):
        both.publish(2, note(2))
    assert b.latest() == note(2)
    b.fault = OutsideRefuses("b says no")
    with pytest.raises(OutsideRefuses, match="b says no"):  # what somebody must put right is told first
        both.check()
    with pytest.raises(OSError, match="a is away"):
        both.latest()
    a.fault = None
    assert (both.latest(), both.away) == (note(1), ("b",))
