"""Who sees what: (policy, role, fact) -> the fact as that role may see it, or None.

Every front, replay and export goes through `disclose`, so they cannot disagree. The default is no: a role, a type or a
field that the policy does not name is not shown. A policy that names an unknown type or field, or that would leave a
role without the events that tell it how the run stands, is broken and nothing starts with it.

A rule is either "all", or a list of fields, or a table `{ fields = ..., when = { field = value } }` whose event is
shown only when the stored fields have these values.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from eventstore.domain.errors import PolicyError
from eventstore.domain.events import BODIES
from eventstore.domain.record import Fact
from eventstore.domain.run import TAKEN_BACK

Role = Literal["user", "operator", "officer"]
ROLES: Final[tuple[Role, ...]] = ("user", "operator", "officer")

# Without these a reader could not tell how the run stands or that it has ended.
LIFE: Final = ("accepted", "started", "cancel_requested", "result", "cancelled", "error")

# Nor that it waits for somebody. A policy that is silent about them shows that they happened and nothing of what was
# said, so that policies from before there were questions stay good.
ASKING: Final = ("escalation", "decision")
QUESTION: Final = frozenset({"question", "choices", "answer_schema"})  # what somebody must see to answer it

# Whoever sees any of these must also learn which of them a later attempt supersedes.
DRAFTS: Final = TAKEN_BACK | {"token", "reasoning"}


class Rule(BaseModel):
    """How one event type is shown to one role."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fields: Literal["all"] | tuple[str, ...]
    when: Mapping[str, str | int | bool] = {}


class Policy(BaseModel):
    """One workflow's policy: who may submit it, which roles may answer a question to whom, and role × type -> rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workflow: str
    version: int
    submit: tuple[Role, ...]
    decide: Mapping[str, tuple[Role, ...]] = {}
    roles: Mapping[Role, Mapping[str, Rule]]

    @field_validator("roles", mode="before")
    @classmethod
    def _short_forms(cls, roles: Any) -> Any:
        if not isinstance(roles, Mapping):
            return roles
        return {
            role: {
                type_: rule if isinstance(rule, Mapping) else {"fields": rule}
                for type_, rule in ({**dict.fromkeys(ASKING, ()), **rules}).items()
            }
            if isinstance(rules, Mapping)
            else rules
            for role, rules in roles.items()
        }

    def digest(self) -> str:
        """Names this exact policy for ever."""
        return sha256(self.model_dump_json().encode()).hexdigest()


def policy_from(data: Mapping[str, Any], name: str) -> Policy:
    """Read a policy strictly. `name` is where it came from, for the one who has to mend it."""
    try:
        policy = Policy.model_validate(data)
    except ValidationError as fault:
        first = fault.errors(include_url=False, include_input=False)[0]
        raise PolicyError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from fault
    for role, rules in policy.roles.items():
        for type_, rule in rules.items():
            _check_rule(f"{name}: roles.{role}.{type_}", type_, rule)
        if missing := [type_ for type_ in LIFE if type_ not in rules]:
            raise PolicyError(f"{name}: roles.{role} must show {', '.join(missing)}, at least as an empty list")
        _check_retry(f"{name}: roles.{role}", rules)
    for to, deciders in policy.decide.items():
        for role in deciders:
            _check_decider(f"{name}: decide.{to}", role, policy.roles.get(role, {}).get("escalation"))
    return policy


def may_decide(policy: Policy, role: Role, to: str) -> bool:
    """Whether this role may answer what was asked of `to`. Nobody may, unless the policy says so."""
    return role in policy.decide.get(to, ())


def _check_rule(place: str, type_: str, rule: Rule) -> None:
    if type_ not in BODIES:
        raise PolicyError(f"{place}: there is no event type of this name")
    named = (() if rule.fields == "all" else rule.fields) + tuple(rule.when)
    if unknown := [name for name in named if name not in BODIES[type_].model_fields]:
        raise PolicyError(f"{place}: {type_} has no field {', '.join(unknown)}")
    if type_ in (*LIFE, *ASKING) and rule.when:
        raise PolicyError(f"{place}: a reader must always learn of {type_}, so it takes no `when`")


def _check_retry(place: str, rules: Mapping[str, Rule]) -> None:
    drafts = sorted(type_ for type_, rule in rules.items() if type_ in DRAFTS and rule.fields)
    retry = rules.get("retry")
    told = retry is not None and not retry.when and (retry.fields == "all" or "superseded" in retry.fields)
    if drafts and not told:
        raise PolicyError(f"{place} shows {', '.join(drafts)}, so it must always show retry with its field superseded")


def _check_decider(place: str, role: Role, rule: Rule | None) -> None:
    if rule is None or not (rule.fields == "all" or set(rule.fields) >= QUESTION):
        raise PolicyError(f"{place}: {role} must be shown {', '.join(sorted(QUESTION))} of escalation, or it is blind")


def disclose(policy: Policy, role: Role, fact: Fact) -> Fact | None:
    """The fact as this role may see it, or None when it may not see it at all."""
    rule = policy.roles.get(role, {}).get(fact.type)
    if rule is None or any(fact.data.get(name) != value for name, value in rule.when.items()):
        return None
    if rule.fields == "all":
        return fact
    shown = {name: fact.data[name] for name in rule.fields if name in fact.data}
    return Fact(fact.seq, fact.type, fact.at_us, fact.attempt, shown)
