"""Who sees what: nothing that no policy names, and no broken policy is ever taken."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.domain.disclosure import (
    ASKING,
    DRAFTS,
    LIFE,
    ROLES,
    Policy,
    Role,
    disclose,
    may_decide,
    policy_from,
)
from eventstore.domain.errors import PolicyError
from eventstore.domain.events import BODIES
from eventstore.domain.record import Fact, Recorded
from eventstore.domain.run import fold
from eventstore.domain.transcript import public
from tests.histories import facts, histories, mark, superseded

PLAIN: dict[str, Any] = {
    "workflow": "contract_review",
    "version": 3,
    "submit": ["user"],
    "roles": {
        "user": {
            "accepted": ["title", "milestones"],
            "started": [],
            "progress": "all",
            "token": {"fields": ["text", "section"], "when": {"shape": "text"}},
            "retry": ["superseded"],
            "cancel_requested": ["reason"],
            "result": "all",
            "cancelled": "all",
            "error": ["code", "message"],
        },
        "operator": dict.fromkeys(LIFE, "all"),
    },
}


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    data = copy.deepcopy(PLAIN)
    change(data)
    return data


def policies() -> st.SearchStrategy[Policy]:
    """Any policy that is taken."""

    def rules(type_: str) -> st.SearchStrategy[Any]:
        fields = st.sampled_from(sorted(BODIES[type_].model_fields))
        return st.just("all") | st.lists(fields, unique=True)

    one_role = st.fixed_dictionaries(
        {type_: rules(type_) for type_ in LIFE} | {"retry": st.just("all")},
        optional={type_: rules(type_) for type_ in BODIES if type_ not in (*LIFE, "retry")},
    )
    roles = st.dictionaries(st.sampled_from(ROLES), one_role)
    return roles.map(lambda made: policy_from({**PLAIN, "roles": made}, "drawn"))


@given(policies(), st.sampled_from(ROLES), histories())
def test_every_shown_event_and_field_is_named_by_the_policy(
    policy: Policy, role: Role, history: list[Recorded]
) -> None:
    for fact in facts(history):
        shown = disclose(policy, role, fact)
        rule = policy.roles.get(role, {}).get(fact.type)
        if shown is None:
            assert rule is None
            continue
        assert rule is not None
        assert (shown.seq, shown.type, shown.at_us, shown.attempt) == (fact.seq, fact.type, fact.at_us, fact.attempt)
        allowed = set(fact.data) if rule.fields == "all" else set(rule.fields)
        assert shown.data == {name: value for name, value in fact.data.items() if name in allowed}


@given(policies(), st.sampled_from(ROLES), histories())
def test_no_role_is_left_with_text_of_a_superseded_attempt(policy: Policy, role: Role, history: list[Recorded]) -> None:
    log = facts(history)
    seen = [shown for fact in log if (shown := disclose(policy, role, fact)) is not None]
    told = repr(public(fold(seen)))
    for fact in log:
        if fact.type in DRAFTS and fact.seq in superseded(log):
            assert mark(fact.seq) not in told


@given(policies(), st.sampled_from(ROLES), histories())
def test_a_role_that_sees_anything_knows_how_the_run_stands(
    policy: Policy, role: Role, history: list[Recorded]
) -> None:
    log = facts(history)
    seen = [shown for fact in log if (shown := disclose(policy, role, fact)) is not None]
    if role in policy.roles:
        assert fold(seen).status == fold(log).status
    else:
        assert seen == []


def test_a_role_a_type_and_a_field_that_nobody_named_are_not_shown() -> None:
    policy = policy_from(PLAIN, "here")
    token = Fact(5, "token", 0, 1, {"text": "a", "section": "s", "step": "secret", "shape": "text"})
    assert disclose(policy, "officer", token) is None
    assert disclose(policy, "operator", token) is None
    shown = disclose(policy, "user", token)
    assert shown is not None
    assert shown.data == {"text": "a", "section": "s"}
    assert disclose(policy, "user", Fact(6, "model_call", 0, 1, {"model": "m"})) is None
    assert disclose(policy, "nobody", token) is None  # type: ignore[arg-type]


def test_when_shows_an_event_only_with_these_stored_values() -> None:
    policy = policy_from(PLAIN, "here")
    assert disclose(policy, "user", Fact(5, "token", 0, 1, {"text": "{", "section": "s", "shape": "json"})) is None
    assert disclose(policy, "user", Fact(5, "token", 0, 1, {"text": "{", "section": "s"})) is None


def test_a_shown_field_that_the_event_lacks_is_left_out() -> None:
    policy = policy_from(PLAIN, "here")
    shown = disclose(policy, "user", Fact(5, "error", 0, 1, {"code": "x"}))
    assert shown is not None
    assert shown.data == {"code": "x"}


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "an unknown event type": (lambda d: d["roles"]["user"].update(tokens="all"), "roles.user.tokens"),
    "an unknown field": (lambda d: d["roles"]["user"].update(progress=["label", "secret"]), "roles.user.progress"),
    "an unknown field in when": (
        lambda d: d["roles"]["user"].update(progress={"fields": "all", "when": {"colour": "red"}}),
        "roles.user.progress",
    ),
    "an unknown role": (lambda d: d["roles"].update(admin={}), "roles.admin"),
    "an unknown role that may submit": (lambda d: d["submit"].append("admin"), "submit.1"),
    "an extra key": (lambda d: d.update(note="x"), "note"),
    "an extra key in a rule": (
        lambda d: d["roles"]["user"].update(progress={"fields": "all", "unless": {}}),
        "roles.user.progress.unless",
    ),
    "a rule without fields": (lambda d: d["roles"]["user"].update(progress={}), "roles.user.progress.fields"),
    "a word that is not all": (lambda d: d["roles"]["user"].update(progress="some"), "roles.user.progress"),
    "a rule that is no rule": (lambda d: d["roles"]["user"].update(progress=None), "roles.user.progress"),
    "rules that are no table": (lambda d: d["roles"].update(user="all"), "roles.user"),
    "roles that are no table": (lambda d: d.update(roles=["user"]), "roles"),
    "no version": (lambda d: d.pop("version"), "version"),
    "no roles": (lambda d: d.pop("roles"), "roles"),
    "no word on who may submit": (lambda d: d.pop("submit"), "submit"),
    "somebody who may answer and sees no question": (
        lambda d: d.update(decide={"reviewer": ["operator", "user"]}),
        "decide.reviewer: operator",
    ),
    "an unknown role that may answer": (lambda d: d.update(decide={"reviewer": ["boss"]}), "decide.reviewer.0"),
    "a condition on a question": (
        lambda d: d["roles"]["user"].update(escalation={"fields": "all", "when": {"to": "user"}}),
        "roles.user.escalation",
    ),
    "a condition on how the run stands": (
        lambda d: d["roles"]["user"].update(result={"fields": "all", "when": {"status": "complete"}}),
        "roles.user.result",
    ),
    "drafts without word of what is superseded": (lambda d: d["roles"]["user"].pop("retry"), "roles.user"),
    "a retry that does not say what is superseded": (
        lambda d: d["roles"]["user"].update(retry=["reason"]),
        "roles.user",
    ),
    "a retry that is shown now and then": (
        lambda d: d["roles"]["user"].update(retry={"fields": "all", "when": {"what": "model"}}),
        "roles.user",
    ),
    **{
        f"no word of {type_}": (lambda d, t=type_: d["roles"]["user"].pop(t), "roles.user")  # type: ignore[misc]
        for type_ in LIFE
    },
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_policy_is_refused_and_the_place_is_named(fault: str) -> None:
    change, place = BROKEN[fault]
    with pytest.raises(PolicyError) as caught:
        policy_from(changed(change), "contract_review/policy.toml")
    assert str(caught.value).startswith(f"contract_review/policy.toml: {place}")


def test_a_policy_that_shows_no_drafts_needs_no_retry() -> None:
    def without_drafts(data: dict[str, Any]) -> None:
        data["roles"]["user"] = {type_: [] for type_ in LIFE}

    assert policy_from(changed(without_drafts), "here").roles["user"]["accepted"].fields == ()


def test_nobody_may_answer_whom_the_policy_does_not_name() -> None:
    def with_a_reviewer(data: dict[str, Any]) -> None:
        data["roles"]["user"]["escalation"] = ["question", "choices", "answer_schema"]
        data["decide"] = {"reviewer": ["user"]}

    policy = policy_from(changed(with_a_reviewer), "here")
    assert [role for role in ROLES if may_decide(policy, role, "reviewer")] == ["user"]
    assert not any(may_decide(policy, role, to) for role in ROLES for to in ("user", "operator", ""))
    assert not any(may_decide(policy_from(PLAIN, "here"), role, "reviewer") for role in ROLES)


def test_a_policy_that_is_silent_about_questions_shows_that_there_are_some_and_nothing_of_them() -> None:
    policy = policy_from(PLAIN, "here")
    for type_ in ASKING:
        shown = disclose(policy, "user", Fact(5, type_, 0, 1, {"question": "Why?", "choice": "so"}))
        assert shown is not None
        assert shown.data == {}


def test_the_digest_names_one_policy() -> None:
    assert policy_from(PLAIN, "here").digest() == policy_from(copy.deepcopy(PLAIN), "there").digest()
    seen = {policy_from(PLAIN, "here").digest()}
    for change in (
        lambda d: d.update(version=4),
        lambda d: d["submit"].append("operator"),
        lambda d: d["roles"]["user"].update(error=["code"]),
        lambda d: d["roles"].pop("operator"),
    ):
        digest = policy_from(changed(change), "here").digest()
        assert digest not in seen
        seen.add(digest)
