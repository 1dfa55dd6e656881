"""Alerts, runbooks and the list of metrics say what the code does: names, buckets, thresholds, settings."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client import CollectorRegistry

from api import figures
from api.figures import ApiFigures
from api.settings import ApiSettings
from eventstore import partitions, vitals
from eventstore.metrics import RecorderMetrics, SealerMetrics, new_registry
from eventstore.settings import SealSettings, StoreSettings
from worker import metrics as carrying
from worker.llm.settings import ModelSettings
from worker.metrics import WorkerMetrics
from worker.settings import WorkerSettings

ROOT = Path(__file__).parent.parent
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "ops/alerts/runwire.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RUNBOOK = (ROOT / "ops/runbooks/log.md").read_text(encoding="utf-8")
OPERATING = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}
# What each alert compares with, and whose constant that is.
THRESHOLDS: dict[str, float] = {
    "PartitionsRunOutSoon": partitions.RUNWAY_WARN_S,
    "PartitionsRunOut": partitions.RUNWAY_PAGE_S,
    "EventsUnsealed": vitals.UNSEALED_ALARM_S,
    "CheckpointNotWritten": vitals.UNSEALED_ALARM_S,
    "WalkBehind": vitals.UNWALKED_ALARM_S,
    "RunsWaitLong": vitals.QUEUED_ALARM_S,
    "VersionUncovered": vitals.UNCOVERED_ALARM_S,
    "StreamsDrop": figures.DROPPED_ALARM,
    "StreamsDropOffTarget": figures.DROPPED_TARGET,
    "ReadersLag": figures.CONFLATED_ALARM,
    "ReadersLagOffTarget": figures.CONFLATED_TARGET,
    "ModelLimitsFull": carrying.MODEL_GIVE_UP_ALARM,
}
BUCKETS = {
    "FirstEventSlow": carrying.FIRST_EVENT_ALARM_S,
    "FirstEventOffTarget": carrying.FIRST_EVENT_TARGET_S,
    "CancelSlow": carrying.CANCEL_ALARM_S,
    "CancelOffTarget": carrying.CANCEL_TARGET_S,
}


class Figure(NamedTuple):
    """One metric, as its table has it."""

    name: str
    kind: str
    labels: str
    says: str


def figures_of(registry: CollectorRegistry) -> list[Figure]:
    found = set()
    for collector in registry._collector_to_names:
        if (describe := getattr(collector, "describe", None)) is not None:
            for family in describe():
                labels = ", ".join(getattr(collector, "_labelnames", ()))
                name = family.name + ("_total" if family.type == "counter" else "")
                found.add(Figure(name, family.type, labels, family.documentation))
    return sorted(found)


def registries() -> dict[str, CollectorRegistry]:
    worker, sealer = new_registry(), new_registry()
    WorkerMetrics(worker, RecorderMetrics(worker).database)
    SealerMetrics(sealer)
    return {"API": ApiFigures().registry, "Worker": worker, "Sealer": sealer}


REGISTRIES = registries()
SERIES = {
    figure.name.removesuffix("_total") + suffix
    for registry in REGISTRIES.values()
    for figure in figures_of(registry)
    for suffix in SUFFIXES[figure.kind]
}


def documented(section: str) -> list[Figure]:
    text = OPERATING.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(runwire_\w+)` \| (\w+) \| (.*?) ?\| (.+) \|$", text, flags=re.MULTILINE)
    return [Figure(*row) for row in rows]


@pytest.mark.parametrize("section", REGISTRIES)
def test_the_list_of_metrics_is_the_registry_of_each_process(section: str) -> None:
    assert documented(section) == figures_of(REGISTRIES[section])


def settings() -> set[str]:
    """Every setting of every process, without its prefix."""
    plain = {
        name.upper()
        for each in (ApiSettings, StoreSettings, WorkerSettings, SealSettings)
        for name in each.model_fields
    }
    aliases = re.findall(
        r"RUNWIRE_(\w+)", repr([field.validation_alias for field in ModelSettings.model_fields.values()])
    )
    return plain | set(aliases)


def test_the_settings_that_the_page_names_exist_and_none_of_ours_is_missing() -> None:
    named = set(re.findall(r"`RUNWIRE_(\w+)`", OPERATING))
    ours = {name for name in settings() if "METRICS" in name or "READERS" in name or "MODEL_R" in name}
    assert ours <= named <= settings()


def test_the_runbook_names_settings_and_metrics_that_exist() -> None:
    assert set(re.findall(r"RUNWIRE_([A-Z_]+)", RUNBOOK)) <= settings()
    totals = {name.removesuffix("_count") for name in SERIES}
    assert set(re.findall(r"`(runwire_\w+)`", RUNBOOK)) <= SERIES | totals


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_exists_and_says_what_to_do(rule: dict[str, Any]) -> None:
    asked = set(re.findall(r"\brunwire_\w+", rule["expr"]))
    assert asked
    assert asked <= SERIES, f"no process has {asked - SERIES}"
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"]
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / path).is_file()
    headings = re.findall(r"^## (\w+)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rule["alert"] in headings
    assert anchor == rule["alert"].lower()


def test_every_section_of_the_runbook_has_its_alert() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, flags=re.MULTILINE) == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize("name", THRESHOLDS)
def test_a_threshold_is_the_codes(name: str) -> None:
    [rule] = [rule for rule in RULES if rule["alert"] == name]
    [number] = re.findall(r"[<>] ([\d.]+)$", rule["expr"].strip())
    assert float(number) == THRESHOLDS[name]


@pytest.mark.parametrize("name", BUCKETS)
def test_a_target_is_a_bucket_of_its_histogram(name: str) -> None:
    """A `le` that no bucket has selects nothing, and the alert would sleep for ever."""
    [rule] = [rule for rule in RULES if rule["alert"] == name]
    [(metric, bound)] = re.findall(r'(runwire_\w+)_bucket\{le="([\d.]+)"\}', rule["expr"])
    assert float(bound) == BUCKETS[name]
    samples = [sample for family in REGISTRIES["Worker"].collect() for sample in family.samples]
    assert bound in [sample.labels["le"] for sample in samples if sample.name == f"{metric}_bucket"]


def test_the_alarm_for_unsealed_events_lies_far_above_the_sealers_pace() -> None:
    tick_s = SealSettings.model_fields["seal_tick_s"].default
    lease_s = SealSettings.model_fields["seal_lease_s"].default
    assert 5 * (tick_s + lease_s) - 1 < vitals.UNSEALED_ALARM_S
