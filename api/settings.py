"""What the API must be told: where it listens, and every limit with its unit."""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from api.fronts.drafts import CHARS_MAX
from eventstore.log import PAGE_EVENTS_MAX
from eventstore.settings import StoreSettings
from eventstore.tail import RING_EVENTS_MAX

ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
STREAM_PAGE_BYTES = 262_144  # of the log, read at once for one stream: so much a reader who takes nothing may hold
ROOT = Path(__file__).resolve().parent.parent


class ApiSettings(StoreSettings):
    """Read from RUNWIRE_* variables, with the log's own settings; limits are checked against each other here."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535, description="0 takes any free port")
    metrics: Literal["loopback", "token", "open", "off"] = Field(
        default="loopback", description="who may read /metrics without the token: this machine, nobody, everybody"
    )
    metrics_token: SecretStr | None = Field(default=None, min_length=16, description="whoever shows it reads /metrics")
    policies: Path = Field(default=ROOT / "policies", description="the folder with one TOML file per workflow")
    workflows: str = Field(default="", description="folders with workflows of one's own, split by `:`")
    database_connections: int = Field(default=10, gt=0)
    request_bytes_max: int = Field(default=327_680, gt=0, description="a request body, chunked or not")
    keepalive_s: float = Field(default=15.0, gt=0, description="a stream says `:` after this much silence")
    retry_ms: int = Field(default=1_000, gt=0, description="a stream asks its reader to wait this long to reconnect")
    send_timeout_s: float = Field(default=10.0, gt=0, description="a reader that takes nothing this long is dropped")
    send_bytes: int = Field(default=65_536, gt=0, description="frames that wait are sent in groups of about this size")
    poll_wait_s_max: float = Field(default=25.0, gt=0, description="a request that waits is answered after this long")
    page_events_max: int = Field(default=PAGE_EVENTS_MAX, gt=0, le=PAGE_EVENTS_MAX)
    page_events_default: int = Field(default=200, gt=0)
    list_runs_max: int = Field(default=100, gt=0)
    list_runs_default: int = Field(default=20, gt=0)
    tenant_queued_max: int = Field(default=10_000, gt=0, description="runs of one tenant that wait to begin")
    caller_queued_max: int = Field(default=2_000, gt=0, description="runs of one caller that wait to begin")
    replay_gap_s_max: float = Field(default=10.0, gt=0, description="a paced replay never pauses longer than this")
    states_max: int = Field(default=512, gt=0, description="folded states kept in memory")
    state_bytes_max: int = Field(default=134_217_728, gt=0, description="about the bytes of all folded states together")
    readers_s: float = Field(default=1.0, gt=0, description="how often the readers of this process are told of")
    errands_max: int = Field(default=1_000, gt=0, description="wake-ups and hand-overs under way at once")
    poll_draft_chars: int = Field(
        default=16_384, gt=0, le=CHARS_MAX, description="a poll's answer holds the last so many of a long draft"
    )
    poll_gzip_bytes_min: int = Field(
        default=4_096, ge=0, description="an answer to a poll of at least this size is compressed if asked; 0: none is"
    )
    poll_retry_s_max: int = Field(
        default=10, ge=2, le=60, description="whoever polls a run that is silent is asked to wait no longer than this"
    )
    drain_s: int = Field(default=5, gt=0, description="open requests get this long when the process stops")
    stream_age_s_max: float = Field(default=3_600.0, gt=0, description="a stream ends at this age; its reader returns")
    stream_age_jitter: float = Field(default=0.2, ge=0, lt=1, description="up to this share earlier, drawn by stream")
    checkpoint_events: int = Field(default=500, gt=0, description="a reader with `types` is told its place this often")
    lag_events: int = Field(default=200, gt=0, le=RING_EVENTS_MAX, description="a reader so far behind may lag")
    lag_bytes: int = Field(default=131_072, gt=0, le=STREAM_PAGE_BYTES, description="or with so many bytes before it")
    lag_held_s: float = Field(default=2.0, gt=0, description="and lags when its socket took nothing for so long")
    send_buffer_bytes: int = Field(default=131_072, gt=0, description="what the system holds for a reader, about")
    key_outage_s: float = Field(
        default=900.0, ge=0, description="the holder of a key used so lately may wait for a database that is away"
    )
    caller_requests_per_s: float = Field(default=200.0, gt=0, description="requests of one caller, on average")
    caller_requests_window_s: float = Field(
        default=10.0, ge=1, le=3_600, description="what a caller did not ask for in this time may be asked for at once"
    )
    caller_streams_max: int = Field(
        default=2_000, gt=0, description="streams and requests that wait, of one caller, open at once"
    )
    callers_tell_s: float = Field(
        default=1.0, gt=0, le=60, description="how often processes tell each other of callers who use much"
    )
    connections_max: int = Field(default=10_000, gt=0, description="open connections of one process")
    head_bytes_max: int = Field(default=32_768, ge=1_024, description="a request's line and headers")
    head_fields_max: int = Field(default=100, ge=10, description="headers of one request")
    head_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="a first byte, a request's head and a WebSocket's key come within this time",
    )
    body_timeout_s: float = Field(default=30.0, gt=0, description="a request's whole body comes within this time")
    idle_timeout_s: int = Field(
        default=75, gt=0, description="a kept connection without a request is closed; longer than proxies keep theirs"
    )
    unheard_timeout_s: float = Field(
        default=60.0, gt=0, description="a reader who acknowledges no byte, or no ping, for so long is gone"
    )
    websocket_origins: str = Field(
        default="", description="origins besides our own whose pages may open a WebSocket, split by blanks"
    )

    @model_validator(mode="after")
    def _limits_fit(self) -> Self:
        if self.request_bytes_max <= self.input_bytes_max:
            raise ValueError("request_bytes_max must be above input_bytes_max, or the largest input does not fit")
        if self.page_events_default > self.page_events_max or self.list_runs_default > self.list_runs_max:
            raise ValueError("the default size of a page must not be above its largest")
        if self.metrics == "token" and self.metrics_token is None:
            raise ValueError("metrics is `token`, so metrics_token must be set")
        if self.readers_s * 3 > self.readers_gone_s:
            raise ValueError("readers_s must be under a third of readers_gone_s, or one slow answer loses the readers")
        if self.poll_wait_s_max >= 60 or self.keepalive_s >= 60:
            raise ValueError("proxies close what is silent for 60 s: poll_wait_s_max and keepalive_s must be below")
        if self.caller_requests_per_s * self.caller_requests_window_s < 1:
            raise ValueError("caller_requests_per_s times caller_requests_window_s must be 1 or more")
        if self.caller_streams_max > self.connections_max:
            raise ValueError("caller_streams_max must not be above connections_max, or one caller may take them all")
        if self.unheard_timeout_s <= self.send_timeout_s:
            raise ValueError("unheard_timeout_s must be above send_timeout_s: who takes nothing is cut by that one")
        for origin in self.websocket_origins.split():
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    "websocket_origins holds origins as browsers send them: https://host or https://host:port"
                )
        return self
