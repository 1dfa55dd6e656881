"""Which model answers, and how long it may take: read from the environment once, checked before the first call."""

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from worker.llm.continuing import ContinueBy, continue_by
from worker.llm.spending import Amounts

OPENAI_URL = "https://api.openai.com/v1"
SCRIPTED_MODEL = "scripted-1"
PROVIDER_MODEL = "gpt-4.1-mini"

_Seconds = Annotated[float, Field(gt=0, le=3600)]
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the model is, and the model asked for when a workflow names none."""

    base_url: str
    api_key: SecretStr
    model: str
    scripted: bool


class ModelSettings(BaseSettings):
    """A key or a base URL means a provider; without either the scripted server answers."""

    # An error about the key must not print the key.
    model_config = SettingsConfigDict(env_ignore_empty=True, extra="ignore", hide_input_in_errors=True, frozen=True)

    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    scripted_url: str | None = Field(default=None, validation_alias="RUNWIRE_SCRIPTED_URL")
    model: str | None = Field(default=None, validation_alias="RUNWIRE_MODEL", max_length=256)
    first_byte_s: _Seconds = Field(default=30.0, validation_alias=AliasChoices("RUNWIRE_FIRST_BYTE_S", "first_byte_s"))
    between_pieces_s: _Seconds = Field(
        default=30.0, validation_alias=AliasChoices("RUNWIRE_BETWEEN_PIECES_S", "between_pieces_s")
    )
    attempts_max: int = Field(
        default=3, ge=1, le=10, validation_alias=AliasChoices("RUNWIRE_ATTEMPTS_MAX", "attempts_max")
    )

    # Patterns of model names, such as `gpt-5*`: these are asked over the Responses API, all others over chat.
    responses_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), validation_alias=AliasChoices("RUNWIRE_RESPONSES_MODELS", "responses_models")
    )
    # For providers that break the rules: tool calls are taken although no finish reason came, if they are whole.
    accept_unfinished_calls: bool = Field(
        default=False, validation_alias=AliasChoices("RUNWIRE_ACCEPT_UNFINISHED_CALLS", "accept_unfinished_calls")
    )
    # For providers that know it (vLLM): usage in every chunk, so that also a broken answer tells what it cost.
    continuous_usage: bool = Field(
        default=False, validation_alias=AliasChoices("RUNWIRE_CONTINUOUS_USAGE", "continuous_usage")
    )

    # How a cut answer is gone on with; unset: by the provider's address. `final` is for vLLM.
    continue_by: ContinueBy | None = Field(
        default=None, validation_alias=AliasChoices("RUNWIRE_CONTINUE_BY", "continue_by")
    )

    # The provider's limits for each model and key, held by all workers together. Unset: none.
    requests_per_minute: int | None = Field(
        default=None, ge=1, validation_alias=AliasChoices("RUNWIRE_MODEL_REQUESTS_PER_MINUTE", "requests_per_minute")
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, validation_alias=AliasChoices("RUNWIRE_MODEL_TOKENS_PER_MINUTE", "tokens_per_minute")
    )
    # Over so long the limits are counted; over less than a minute, so much less may be spent in it.
    rate_window_s: int = Field(
        default=60, ge=1, le=60, validation_alias=AliasChoices("RUNWIRE_MODEL_RATE_WINDOW_S", "rate_window_s")
    )
    # How long a call may wait for its share of them, and the longest answer of one that does not say.
    rate_wait_s: _Seconds = Field(
        default=60.0, validation_alias=AliasChoices("RUNWIRE_MODEL_RATE_WAIT_S", "rate_wait_s")
    )
    rate_output_tokens: int = Field(
        default=1_024, ge=1, validation_alias=AliasChoices("RUNWIRE_MODEL_RATE_OUTPUT_TOKENS", "rate_output_tokens")
    )

    @field_validator("responses_models", mode="before")
    @classmethod
    def _names(cls, names: object) -> object:
        if not isinstance(names, str):
            return names
        return tuple(name.strip() for name in names.split(",") if name.strip())

    @field_validator("openai_api_key")
    @classmethod
    def _usable_key(cls, key: SecretStr | None) -> SecretStr | None:
        """A key that was pasted with a quote, a line end or as a placeholder fails here, not as a puzzling 401."""
        if key is None:
            return None
        value = key.get_secret_value().strip()
        if not value:
            return None
        if not _KEY.fullmatch(value) or value[0] in "\"'" or value[-1] in "\"'":
            raise ValueError("OPENAI_API_KEY holds quotes, spaces or characters that no key has")
        if value.endswith("...") or value.startswith("<"):
            raise ValueError("OPENAI_API_KEY is a placeholder, not a key")
        return SecretStr(value)

    @field_validator("openai_base_url", "scripted_url")
    @classmethod
    def _usable_url(cls, url: str | None) -> str | None:
        if url is None or not url.strip():
            return None
        parts = urlsplit(url.strip())
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be an address like http://127.0.0.1:8080/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("must not carry a user, a password or a query")
        return url.strip().rstrip("/")

    def continuing(self) -> ContinueBy:
        """How a cut answer is gone on with."""
        return self.continue_by or continue_by(self.endpoint().base_url)

    def amounts(self) -> Amounts:
        """What may be spent of one model within a window."""
        return Amounts(self._within(self.requests_per_minute), self._within(self.tokens_per_minute), self.rate_window_s)

    def _within(self, per_minute: int | None) -> int | None:
        return None if per_minute is None else max(1, per_minute * self.rate_window_s // 60)

    def rates_name(self, model: str) -> str:
        """What the limits of one of the endpoint's models are counted under: tells nothing of the key."""
        endpoint = self.endpoint()
        told = (endpoint.base_url, endpoint.api_key.get_secret_value(), model)
        return sha256("\0".join(told).encode()).hexdigest()[:32]

    def endpoint(self) -> Endpoint:
        """The model's place. Raises ValueError with a line for the operator when there is none."""
        if self.openai_api_key is None and self.openai_base_url is None:
            if self.scripted_url is None:
                raise ValueError(
                    "no model: set OPENAI_API_KEY, or start the scripted model server and set RUNWIRE_SCRIPTED_URL"
                )
            return Endpoint(self.scripted_url, SecretStr("scripted"), self.model or SCRIPTED_MODEL, scripted=True)
        # A server of one's own often wants no key; the client wants one in any case.
        key = self.openai_api_key or SecretStr("none")
        return Endpoint(self.openai_base_url or OPENAI_URL, key, self.model or PROVIDER_MODEL, scripted=False)
