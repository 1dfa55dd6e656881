"""What tokens cost: a table with a version, whole millionths of a dollar, and no price where none is known."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eventstore.domain.events import Usage

OWN: Final = Path(__file__).with_name("prices.toml")
DATED: Final = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")


class Price(BaseModel):
    """US dollars for a million tokens, or millionths of one for each. What was cached is part of the input."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cached: Decimal | None = Field(default=None, ge=0)


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    version: str = Field(min_length=1, max_length=40)
    models: dict[str, Price]


@dataclass(frozen=True, slots=True)
class Prices:
    """A table of prices."""

    version: str
    models: Mapping[str, Price]

    def of(self, model: str) -> Price | None:
        """The price of a model, by its name or by its name without the date."""
        return self.models.get(model) or self.models.get(DATED.sub("", model))

    def priced(self, usage: Usage, *names: str | None) -> Usage:
        """The same usage with what it cost, by the first of these names that has a price."""
        if not (usage.input_tokens or usage.output_tokens):
            return usage
        price = next((found for name in names if name and (found := self.of(name)) is not None), None)
        if price is None:
            return usage.model_copy(update={"unpriced_tokens": usage.input_tokens + usage.output_tokens})
        cached = min(usage.cached_tokens or 0, usage.input_tokens)
        cost = (
            price.input * (usage.input_tokens - cached)
            + (price.input if price.cached is None else price.cached) * cached
            + price.output * usage.output_tokens
        )
        told = {"cost_micro_usd": int(cost.to_integral_value(ROUND_UP)), "prices": self.version}
        return usage.model_copy(update=told)


def read_prices(file: Path) -> Prices:
    """A price file. Raises ValueError with a line for the operator."""
    try:
        table = _Table.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from fault
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise ValueError(f"{file}: {fault}") from fault
    return Prices(table.version, table.models)


@cache
def own_prices() -> Prices:
    """The prices that come along."""
    return read_prices(OWN)
