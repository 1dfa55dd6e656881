"""How the benchmark of the log tells what it measured."""

import json
from pathlib import Path

import pytest

from tests.bench.figures import Claim
from tests.bench.log.beside import Side, ratio_to, tell
from tests.bench.log.ground import UNCHAINED, UNHASHED, AppendChanged, changed
from tests.bench.log.peers.plain import packed
from tests.bench.log.report import Report, Tally

LOOP = """
    LOOP -- one sha256( for each
        c_chain := sha256('a'::bytea || p_listings[i]);
        v_link[i] := c_chain;
    END LOOP;
"""


def test_the_table_and_the_json_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report({"processors": 2})
    report.begin("append", 4321.0)
    report.add("ours", 123456.7, "events/s", p99_ms=1.5)
    report.add("peer", 1234.0, "events/s", 100.05)
    report.end(4000.0)
    report.claim(Claim("enough", 123456.7, at_least=100_000))
    report.claim(Claim("cheap", 20.0, at_most=15))
    report.write(tmp_path / "figures.json")
    head, rule, ours, peer, after = capsys.readouterr().out.splitlines()[1:]
    assert head.split() == ["append", "measured", "unit", "ours", "is", "fsync/s"]
    assert set(rule) == {"-"}
    assert ours.split() == ["ours", "123,457", "events/s", "4,321"]
    assert peer.split() == ["peer", "1,234", "events/s", "100", "x", "4,321"]
    assert "4,000" in after
    told = json.loads((tmp_path / "figures.json").read_text())
    assert [(figure["name"], figure["value"], figure["times"]) for figure in told["figures"]] == [
        ("ours", 123456.7, None),
        ("peer", 1234.0, 100.05),
    ]
    assert told["figures"][0]["more"] == {"p99_ms": 1.5}
    assert {figure["fsync_per_s"] for figure in told["figures"]} == {4321.0}
    assert [claim["holds"] for claim in told["claims"]] == [True, False]
    assert "MISSED  cheap: 20.0, wanted at most 15.0" in report.told_claims()


def test_a_ratio_is_the_middle_one_of_the_rounds() -> None:
    report = Report({})
    report.begin("peers", 1.0)
    ours = Side("ours", [], rounds=[Tally(100, 1.0), Tally(100, 1.0), Tally(10, 1.0)])
    peer = Side("peer 1.0", [], of="ours", peer="peer", rounds=[Tally(10, 1.0), Tally(20, 1.0), Tally(10, 1.0)])
    tell(report, [ours, peer])
    assert ratio_to(report, "peer") == 5.0
    assert report.value("ours") == 70.0


def test_tallies_add_up_and_tell_what_a_call_took() -> None:
    both = Tally(10, 1.0, (0.1, 0.2)) + Tally(20, 2.0, (0.3,))
    assert (both.rate, both.calls) == (10.0, (0.1, 0.2, 0.3))
    assert both.spread() == pytest.approx({"p50_ms": 200.0, "p99_ms": 300.0, "max_ms": 300.0})


def test_only_the_statements_of_the_chain_are_taken_out() -> None:
    unhashed, unchained = changed(LOOP, UNHASHED), changed(LOOP, UNCHAINED)
    assert "c_chain := h.chain;" in unhashed
    assert "v_link[i] := c_chain;" in unhashed
    assert unchained.split() == [
        "LOOP",
        "--",
        "one",
        "sha256(",
        "for",
        "each",
        "c_chain",
        ":=",
        "h.chain;",
        "END",
        "LOOP;",
    ]


@pytest.mark.parametrize(
    "source",
    [LOOP.replace("c_chain :=", "chain :="), LOOP + LOOP, LOOP.replace("v_link", "sha256(x); v_link")],
    ids=["gone", "twice", "another"],
)
def test_an_append_that_hashes_in_another_way_is_no_comparison(source: str) -> None:
    with pytest.raises(AppendChanged):
        changed(source, UNHASHED)


def test_a_row_for_copy_has_as_many_values_as_columns() -> None:
    row, values, place = packed(bytes(16), 7), 0, 2
    while place < len(row):
        length = int.from_bytes(row[place : place + 4], "big", signed=True)
        place += 4 + max(length, 0)
        values += 1
    assert (values, place) == (int.from_bytes(row[:2], "big"), len(row))
