"""What a worker process may take, each limit with its unit."""

from pathlib import Path

from pydantic import Field, PositiveFloat, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eventstore.scrape import Address
from worker.limits import LIMITS


class WorkerSettings(BaseSettings):
    """Read from RUNWIRE_* variables."""

    model_config = SettingsConfigDict(env_prefix="RUNWIRE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    runs_max: int = Field(default=200, gt=0, description="runs that one worker process carries at the same time")
    grace_s: float = Field(default=1.0, gt=0, description="a stopped workflow may clean up this long")
    effect_grace_s: float = Field(
        default=5.0, gt=0, description="a stopped run waits this long to learn what an effect outside has come to"
    )
    assemble_s: float = Field(default=0.5, gt=0, description="a workflow's own partial result may take this long")
    drain_s: float = Field(default=5.0, gt=0, description="a stopping worker hands its runs back within this time")
    worker_metrics: Address | None = Field(default=None, description="address of a worker's metrics; unset: none")
    workflows: str = Field(default="", description="folders with workflows of one's own, split by `:`")
    ceilings: dict[str, PositiveFloat] = Field(
        default={}, description="limits that no run may exceed, whatever its workflow says, as JSON by their names"
    )
    policies: Path = Field(
        default=Path(__file__).parents[1] / "policies",
        description="the folder with one TOML file per workflow: who may start a run that another run asks for",
    )
    prices: Path | None = Field(default=None, description="file of what models cost; unset: the one that comes along")
    tool_secrets: dict[str, SecretStr] = Field(
        default_factory=dict, description='what tools may ask for by name, as JSON: {"archive": "…"}'
    )
    start_s: float = Field(default=30.0, gt=0, description="a starting worker waits this long for the database")

    @field_validator("ceilings")
    @classmethod
    def _known_limits(cls, ceilings: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(ceilings.keys() - LIMITS):
            raise ValueError(f"there is no limit {', '.join(unknown)}; there are {', '.join(LIMITS)}")
        return ceilings
