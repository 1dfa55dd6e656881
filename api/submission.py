"""From the bytes of a request to a submission that the log can accept, or a refusal that says what to mend."""

import secrets
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from time import time_ns
from typing import Any, Final

import orjson
import uuid_utils.compat
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from api.callers import Caller
from api.errors import Fault, InvalidInput, NotAllowed, UnknownWorkflow
from api.offers import Offer
from api.service import Service
from eventstore.catalogue import Submission
from eventstore.domain import intake
from eventstore.domain.disclosure import Policy
from eventstore.domain.events import Accepted, Continues, PolicyRef, new_event

FIELDS: Final = ("workflow", "input", "title", "continues")
OMITTED: Final = object()  # null is an input as well
TITLE_MAX: Final = 200
FAULTS_MAX: Final = 20
POINTER_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants to run, read but not yet judged."""

    workflow: str
    input: Any
    title: str | None
    continues: str | None = None
    sent: tuple[Any, ...] = ()  # by which the same request is known again


def read_object(raw: bytes, bytes_max: int) -> dict[str, Any]:
    """A JSON object in the one form that can be stored."""
    value = intake.parse(raw, bytes_max)
    if not isinstance(value, dict):
        raise InvalidInput(faults=[Fault("", "must be an object")])
    return value


def read_wish(raw: bytes, bytes_max: int) -> Wish:
    """The body of a submission."""
    value = read_object(raw, bytes_max)
    faults = [
        Fault(_pointer([name]), f"unknown field; fields are {', '.join(FIELDS)}")
        for name in value
        if name not in FIELDS
    ]
    workflow, title, continues = value.get("workflow"), value.get("title"), value.get("continues")
    if not isinstance(continues, str | None) or (continues is None and "continues" in value):
        faults.append(Fault("/continues", "must be the id of a run"))
    if not isinstance(workflow, str) and not ("continues" in value and "workflow" not in value):
        faults.append(Fault("/workflow", "must be the name of a workflow"))
    if "input" not in value and "continues" not in value:
        faults.append(Fault("/input", "is missing"))
    if title is not None and not (isinstance(title, str) and 1 <= len(title.strip()) <= TITLE_MAX):
        faults.append(Fault("/title", f"must be a text of 1 to {TITLE_MAX} characters"))
    if faults:
        raise InvalidInput(faults=faults[:FAULTS_MAX])
    sent = (workflow, title, value.get("input"), *(("input" in value, continues) if continues is not None else ()))
    return Wish(str(workflow or ""), value.get("input", OMITTED), title, continues, sent)


async def judged(service: Service, caller: Caller, wish: Wish) -> tuple[Offer, Policy]:
    """The workflow that is meant, if this caller may start it with this input."""
    offer = (await service.offers.all()).get(wish.workflow)
    policy = service.policies.of(wish.workflow)
    if offer is None or policy is None:
        startable = await service.offers.startable(service.policies, caller)
        raise UnknownWorkflow(
            faults=[Fault("/workflow", "is not a workflow that you may start")], allowed=[one.name for one in startable]
        )
    if caller.role not in policy.submit:
        raise NotAllowed(f"The role {caller.role} may not start this workflow.", allowed=policy.submit)
    if faults := faults_in(offer.validator, wish.input, "input"):
        raise InvalidInput("The input does not fit the workflow's schema.", faults=faults)
    return offer, policy


def faults_in(validator: Draft202012Validator, value: Any, name: str) -> list[Fault]:
    """Where a value from outside does not fit its schema, in our words and without a word of its own."""
    found = islice(validator.iter_errors(value), FAULTS_MAX)
    faults = {Fault(_pointer([name, *one.absolute_path]), _said(one)) for one in found}
    return sorted(faults, key=_by_place)


def submission(
    caller: Caller,
    wish: Wish,
    offer: Offer,
    policy: Policy,
    key: str | None,
    trace_id: str | None,
    bytes_max: int,
    *,
    version: int | None = None,
    continues: Continues | None = None,
) -> Submission:
    """Everything that accepting the run stores, its first event included. `version`: of the run that is continued."""
    body = orjson.dumps(wish.input)
    if len(body) > bytes_max:
        raise InvalidInput(faults=[Fault("/input", f"is larger than {bytes_max} bytes")])
    title = _title(wish, offer)
    accepted = Accepted(
        workflow=offer.name,
        workflow_version=offer.version if version is None else version,
        title=title,
        input_digest=sha256(body).hexdigest(),
        input_bytes=len(body),
        caller=caller.person,
        tenant=caller.tenant,
        policy=PolicyRef(version=policy.version, digest=policy.digest()),
        milestones=offer.manifest.milestones,
        limits=offer.manifest.limits,
        trace_id=trace_id or secrets.token_hex(16),
        on_disconnect=offer.manifest.on_disconnect,
        continues=continues,
    )
    return Submission(
        run_id=uuid_utils.compat.uuid7(),
        tenant_id=caller.tenant_id,
        subject=caller.subject,
        workflow=offer.name,
        title=title,
        idempotency_key=key,
        body_digest=sha256(orjson.dumps(wish.sent, option=orjson.OPT_SORT_KEYS)).digest(),
        input=body,
        accepted=new_event(accepted, time_ns() // 1_000),
    )


def _title(wish: Wish, offer: Offer) -> str:
    if wish.title is not None:
        return wish.title.strip()
    field = offer.manifest.title_field
    named = wish.input.get(field) if field is not None and isinstance(wish.input, dict) else None
    if isinstance(named, str) and named.strip():
        return named.strip()[:TITLE_MAX]
    return offer.manifest.title


def _pointer(path: list[str | int]) -> str:
    whole = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)
    return whole if len(whole) <= POINTER_MAX else whole[:POINTER_MAX] + "…"


def _by_place(fault: Fault) -> tuple[str, str]:
    return fault.pointer, fault.detail


def _said(error: ValidationError) -> str:
    """What the schema wants there. The library's own messages quote the value, ours never do."""
    want: Any = error.validator_value
    found: Any = error.instance
    rule = str(error.validator)
    match rule:
        case "required":
            missing = [name for name in want if name not in found]
            return f"lacks {', '.join(missing)}"
        case "additionalProperties" | "unevaluatedProperties":
            known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
            return f"holds an unknown field; fields are {', '.join(known)}"
        case "type":
            return f"must be of type {want if isinstance(want, str) else ' or '.join(want)}"
        case "enum":
            return f"must be one of {', '.join(map(str, want))}"
        case "const":
            return f"must be {want}"
        case "minLength" | "maxLength":
            return f"must have at {rule[:3].replace('min', 'least').replace('max', 'most')} {want} characters"
        case "minItems" | "maxItems":
            return f"must have at {rule[:3].replace('min', 'least').replace('max', 'most')} {want} items"
        case "minimum" | "exclusiveMinimum":
            return f"must be {'at least' if rule == 'minimum' else 'above'} {want}"
        case "maximum" | "exclusiveMaximum":
            return f"must be {'at most' if rule == 'maximum' else 'below'} {want}"
        case "pattern" | "format":
            return f"must fit the {rule} {want}"
        case "anyOf" | "oneOf":
            return "fits none of the shapes that are allowed here"
        case _:
            return f"does not fit the schema's {rule}"
