"""What went wrong at the provider, in our codes and our words.

The provider's own text goes no further than this module: it is looked up in closed lists, never copied.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import openai

from worker.llm.model import ModelFault

_NOT_ACCEPTED = "the request was not accepted"
_RETRYABLE_STATUS = frozenset({408, 409, 425, 429})
_FILTERED = frozenset(
    {
        "content_filter",
        "content_policy_violation",
        "responsible_ai_policy_violation",
        "bio_policy",
        "misalignment_policy_violation",
        "image_content_policy_violation",
    }
)

# Codes that a provider sends with a status that alone would invite another try, or in a frame without any status.
_REFUSALS = {
    "insufficient_quota": "the account has no quota left",
    "billing_hard_limit_reached": "the account has reached its billing limit",
    "invalid_api_key": "the key was not accepted",
    "model_not_found": "it does not serve this model",
    "context_length_exceeded": "the input is longer than the model can read",
    "invalid_request_error": _NOT_ACCEPTED,
    "invalid_prompt": _NOT_ACCEPTED,
    "data_residency_mismatch": "it may not process this request where it runs",
}
_STATUS_REASONS = {
    400: _NOT_ACCEPTED,
    401: "the key was not accepted",
    403: "the key may not do this",
    404: "it does not serve this model",
    413: "the input is longer than the model can read",
    422: _NOT_ACCEPTED,
}
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """The provider's name for the request, if it looks like one."""
    value = headers.get("x-request-id")
    return value if value is not None and _REQUEST_ID.fullmatch(value) else None


def retry_after_of(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait, from `Retry-After-Ms` or `Retry-After` (seconds or a date)."""
    millis = _number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None or value is None:
        return seconds
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _number(value: str | None) -> float | None:
    """A plain non-negative decimal number; `float` alone would take `nan` and `inf`."""
    if value is None or not re.fullmatch(r"\s*\d{1,9}(\.\d{0,9})?\s*", value, re.ASCII):
        return None
    return float(value)


def fault_of_api_error(error: openai.APIError) -> ModelFault:
    """The fault behind an exception of the SDK before the stream was open."""
    if isinstance(error, openai.APIStatusError):
        return _fault_of_status(error)
    if isinstance(error, openai.APIConnectionError):
        return fault_of_transport(error.__cause__)
    return ModelFault("malformed", "The model provider sent an answer that could not be read.", retryable=True)


def fault_of_silence(*, begun: bool) -> ModelFault:
    """The fault of an answer that did not come in our time."""
    if begun:
        message = "The model's answer stood still for longer than it may."
        return ModelFault("limit_between_pieces_s", message, retryable=True)
    return ModelFault("limit_first_byte_s", "The model did not begin to answer in time.", retryable=True)


def fault_of_transport(error: BaseException | None) -> ModelFault:
    """The fault behind a broken or silent connection."""
    if isinstance(error, (httpx2.ConnectTimeout, httpx2.PoolTimeout)):
        return ModelFault("connection", "The model provider could not be reached in time.", retryable=True)
    if isinstance(error, (httpx2.TimeoutException, TimeoutError)):
        return ModelFault("timeout", "The model provider did not answer in time.", retryable=True)
    return ModelFault("connection", "The connection to the model provider failed.", retryable=True)


def _fault_of_status(error: openai.APIStatusError) -> ModelFault:
    status = error.status_code
    request_id = request_id_of(error.response.headers)
    # The type is read for the quota only: beside a status, its other words are too coarse to overrule it.
    kind = error.type if error.type == "insufficient_quota" else None
    named = _named_fault(error.code, kind, status=status, request_id=request_id)
    if named is not None:
        return named
    if status in _RETRYABLE_STATUS or status >= 500:
        return ModelFault(
            "provider_busy",
            f"The model provider is busy or failing (status {status}).",
            retryable=True,
            retry_after_s=retry_after_of(error.response.headers),
            status=status,
            request_id=request_id,
        )
    return _refused(_STATUS_REASONS.get(status, _NOT_ACCEPTED), status=status, request_id=request_id)


def fault_of_error_frame(error: object, request_id: str | None) -> ModelFault:
    """The fault that a provider reports inside its stream."""
    if isinstance(error, Mapping):
        code = error.get("code")
        named = _named_fault(code, error.get("type"), status=None, request_id=request_id)
        if named is not None:
            return named
        if isinstance(code, int) and 400 <= code < 500 and code not in _RETRYABLE_STATUS:
            return _refused(_STATUS_REASONS.get(code, _NOT_ACCEPTED), status=code, request_id=request_id)
    return ModelFault(
        "provider_busy", "The model provider reported a failure while answering.", retryable=True, request_id=request_id
    )


def _named_fault(code: Any, kind: Any, *, status: int | None, request_id: str | None) -> ModelFault | None:
    """The fault that the provider's own code or type stands for; None when neither is one we know."""
    for word in (code, kind):
        if not isinstance(word, str):
            continue
        if word in _FILTERED:
            message = "The model provider declined to answer because of its content rules."
            return ModelFault("content_filter", message, retryable=False, status=status, request_id=request_id)
        if word in _REFUSALS:
            return _refused(_REFUSALS[word], status=status, request_id=request_id)
    return None


def _refused(reason: str, *, status: int | None, request_id: str | None) -> ModelFault:
    number = f" (status {status})" if status is not None else ""
    message = f"The model provider refused the request: {reason}{number}."
    return ModelFault("provider_refused", message, retryable=False, status=status, request_id=request_id)
