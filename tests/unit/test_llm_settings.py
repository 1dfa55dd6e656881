"""Which model answers, by the environment."""

import pytest
from pydantic import ValidationError

from worker.llm.chat import create_chat_model
from worker.llm.settings import OPENAI_URL, ModelSettings

NAMES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "RUNWIRE_SCRIPTED_URL", "RUNWIRE_MODEL", "RUNWIRE_FIRST_BYTE_S")
SCRIPTED = "http://127.0.0.1:4000/v1"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def test_without_a_key_the_scripted_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_SCRIPTED_URL", SCRIPTED + "/")
    monkeypatch.setenv("OPENAI_API_KEY", "  ")
    endpoint = ModelSettings().endpoint()
    assert (endpoint.base_url, endpoint.model, endpoint.scripted) == (SCRIPTED, "scripted-1", True)


def test_with_a_key_the_provider_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_SCRIPTED_URL", SCRIPTED)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-1\n")
    endpoint = ModelSettings().endpoint()
    assert (endpoint.base_url, endpoint.model, endpoint.scripted) == (OPENAI_URL, "gpt-4.1-mini", False)
    assert endpoint.api_key.get_secret_value() == "sk-test-1"


def test_a_server_of_ones_own_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://models.internal:8000/v1")
    monkeypatch.setenv("RUNWIRE_MODEL", "small")
    endpoint = ModelSettings().endpoint()
    assert (endpoint.base_url, endpoint.model, endpoint.scripted) == ("http://models.internal:8000/v1", "small", False)


def test_no_model_at_all_is_said_in_a_line() -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY"):
        ModelSettings().endpoint()


@pytest.mark.parametrize("key", ['"sk-abc"', "'sk-abc'", "sk-ab cd", "sk-ab\ncd", "sk-...", "<your key>", "sk-é"])
def test_a_key_that_cannot_be_one_is_refused_without_printing_it(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValidationError) as caught:
        ModelSettings()
    assert key not in str(caught.value)
    assert "OPENAI_API_KEY" in str(caught.value)


@pytest.mark.parametrize(
    "url", ["models", "ftp://a/b", "http://", "http://user:hunter2@host/v1", "http://host/v1?key=1"]
)
def test_an_address_that_cannot_be_used_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValidationError) as caught:
        ModelSettings()
    assert "hunter2" not in str(caught.value)


def test_time_limits_come_from_the_environment_and_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_FIRST_BYTE_S", "2.5")
    settings = ModelSettings()
    assert (settings.first_byte_s, settings.between_pieces_s, settings.attempts_max) == (2.5, 30.0, 3)
    monkeypatch.setenv("RUNWIRE_FIRST_BYTE_S", "0")
    with pytest.raises(ValidationError):
        ModelSettings()


async def test_the_key_shows_up_in_no_words_about_the_settings_or_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-77")
    settings = ModelSettings()
    model = create_chat_model(settings)
    await model.aclose()
    assert "canary" not in f"{settings!r} {settings} {settings.endpoint()!r} {model!r} {settings.model_dump()}"


def test_models_to_be_asked_over_responses_are_named_by_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNWIRE_RESPONSES_MODELS", " gpt-5*, o4-mini ,")
    assert ModelSettings().responses_models == ("gpt-5*", "o4-mini")
    monkeypatch.setenv("RUNWIRE_RESPONSES_MODELS", "")
    assert ModelSettings().responses_models == ()


def test_how_a_cut_answer_is_gone_on_with_is_told_by_the_address_or_by_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.mistral.ai/v1")
    assert ModelSettings().continuing() == "prefix"
    monkeypatch.setenv("RUNWIRE_CONTINUE_BY", "final")
    assert ModelSettings().continuing() == "final"
    monkeypatch.setenv("RUNWIRE_CONTINUE_BY", "again")
    with pytest.raises(ValidationError):
        ModelSettings()
