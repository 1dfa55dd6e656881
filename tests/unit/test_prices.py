"""What tokens cost: by a table, in whole millionths of a dollar, and never 0 because nobody knows."""

from decimal import Decimal
from pathlib import Path

import pytest

from eventstore.domain.events import Usage
from worker.llm.prices import Price, Prices, own_prices, read_prices

TABLE = Prices("v7", {"m": Price(input=Decimal("0.40"), cached=Decimal("0.10"), output=Decimal("1.60"))})


def spent(**tokens: int) -> Usage:
    return Usage.model_validate({**tokens, "source": "provider"})


def test_what_was_cached_costs_less_and_thinking_is_part_of_the_output() -> None:
    told = TABLE.priced(spent(input_tokens=1_000, cached_tokens=400, output_tokens=100, reasoning_tokens=80), "m")
    assert (told.cost_micro_usd, told.prices, told.unpriced_tokens) == (240 + 40 + 160, "v7", None)


def test_a_part_of_a_millionth_is_one() -> None:
    assert TABLE.priced(spent(input_tokens=1), "m").cost_micro_usd == 1


def test_a_dated_name_has_the_price_of_its_model_and_any_other_name_has_none() -> None:
    for name in ("m", "m-2025-04-14", "m-20250414"):
        assert TABLE.priced(spent(output_tokens=10), name).cost_micro_usd == 16
    for name in ("m2", "m-mini", "M", "m-2025", ""):
        told = TABLE.priced(spent(input_tokens=3, output_tokens=10), name)
        assert (told.cost_micro_usd, told.unpriced_tokens, told.prices) == (None, 13, None)


def test_the_model_that_answered_counts_before_the_one_that_was_asked() -> None:
    dear, cheap = (Price(input=Decimal(each), output=Decimal(each)) for each in (5, 1))
    table = Prices("v", {"a": cheap, "b": dear})
    assert table.priced(spent(input_tokens=1), "b", "a").cost_micro_usd == 5
    assert table.priced(spent(input_tokens=1), "never-heard-of", "a").cost_micro_usd == 1
    assert table.priced(spent(input_tokens=1), None, "a").cost_micro_usd == 1


def test_nothing_spent_costs_nothing_and_has_no_unknown_part() -> None:
    assert TABLE.priced(Usage(), "unknown") == Usage()


def test_a_sum_keeps_what_is_known_and_says_what_is_not() -> None:
    total = TABLE.priced(spent(input_tokens=10), "m") + TABLE.priced(spent(input_tokens=7), "?") + Usage()
    assert (total.cost_micro_usd, total.unpriced_tokens, total.prices) == (4, 7, "v7")


def test_the_prices_that_come_along_are_read_and_the_scripted_model_is_free() -> None:
    table = own_prices()
    assert table.version
    assert table.priced(spent(output_tokens=5), "scripted-1").cost_micro_usd == 0
    assert table.priced(spent(input_tokens=1_000_000), "gpt-4.1-mini-2025-04-14").cost_micro_usd == 400_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("version = 'v'", "models: Field required"),
        ("version = 'v'\n[models]\nm = {input = '1'}", "models.m.output: Field required"),
        ("version = 'v'\n[models]\nm = {input = '-1', output = '1'}", "models.m.input"),
        ("version =", "Invalid value"),
    ],
)
def test_a_broken_price_file_is_refused_with_its_name(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "prices.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=str(file)) as caught:
        read_prices(file)
    assert why in str(caught.value)
    with pytest.raises(ValueError, match="absent"):
        read_prices(tmp_path / "absent.toml")
