"""Journals give back what was noted, by run, and a record that a kill tore is no record."""

from pathlib import Path
from uuid import uuid4

from tests.faults.journal import DIGEST_BYTES, SUFFIX, Journal, Kind, Ledger, Stretch, digest, stretches

ONE, OTHER = uuid4(), uuid4()
A, B, C = (digest(body) for body in (b"a", b"b", b"c"))


def written(folder: Path, name: str = "writer-0-1") -> Path:
    """A journal about two runs, whose last record is one digest of the first."""
    journal = Journal(folder, name)
    journal.note(Kind.SUBMITTED, ONE, 1, 0, [A, B])
    journal.note(Kind.SUBMITTED, OTHER, 7, 0, [C])
    journal.note(Kind.ACKED, ONE, 1, 2, [A])
    journal.note(Kind.ACKED, ONE, 1, 3, [B])
    journal.close()
    return folder / (name + SUFFIX)


def test_each_run_finds_its_own_notes_in_all_files(tmp_path: Path) -> None:
    written(tmp_path)
    reader = Journal(tmp_path, "reader-0-2")
    reader.note(Kind.SEEN, ONE, 0, 2, [A, B])
    ledger = Ledger(tmp_path)
    assert set(ledger.runs) == {ONE, OTHER}
    told = ledger.of(ONE)
    assert told.submitted == {(1, A), (1, B)}
    assert told.acked == [Stretch(1, 2, A), Stretch(1, 3, B)]
    assert told.seen == {"reader-0-2": [Stretch(0, 2, A + B)]}
    assert list(told.seen["reader-0-2"][0].each()) == [(2, A), (3, B)]
    assert ledger.of(OTHER).submitted == {(7, C)}
    assert not ledger.of(uuid4()).acked
    ledger.close()
    reader.close()


def test_a_record_torn_at_any_byte_is_no_record_and_spoils_no_other(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    record = 29 + DIGEST_BYTES
    for cut in range(1, record + 1):
        path.write_bytes(whole[:-cut])
        ledger = Ledger(tmp_path)
        assert ledger.of(ONE).acked == [Stretch(1, 2, A)]
        ledger.close()


def test_an_empty_journal_is_of_no_run(tmp_path: Path) -> None:
    Journal(tmp_path, "writer-0-1").close()
    assert not Ledger(tmp_path).runs


def test_events_are_noted_in_parts_without_a_gap() -> None:
    assert list(stretches([(3, A), (4, B), (6, C), (6, C)])) == [(3, [A, B]), (6, [C]), (6, [C])]
    assert list(stretches([])) == []
