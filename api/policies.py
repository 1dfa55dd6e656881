"""The disclosure policies, read once at start from one TOML file per workflow; a broken file stops the start."""

import tomllib
from collections.abc import Iterable
from pathlib import Path

from api.errors import NotAllowed
from api.fronts.feed import View
from eventstore.domain.disclosure import Policy, Role, policy_from
from eventstore.domain.errors import PolicyError
from eventstore.workflow_folders import POLICY, FolderError, workflow_folders


class Policies:
    """Policies by workflow, with one view per role so that what is encoded for a view is encoded once."""

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._policies = {policy.workflow: policy for policy in policies}
        self._views = {(name, role): View(one, role) for name, one in self._policies.items() for role in one.roles}

    def of(self, workflow: str) -> Policy | None:
        """The policy of a workflow; without one nobody may start it."""
        return self._policies.get(workflow)

    def view(self, workflow: str, role: Role) -> View:
        """How this role sees runs of this workflow."""
        view = self._views.get((workflow, role))
        if view is None:
            raise NotAllowed(f"No policy shows runs of this workflow to the role {role}.")
        return view


def load(folder: Path, workflows: str = "") -> Policies:
    """All policies of a folder, and those beside the workflows that the setting names; or a PolicyError that names the
    file and the place in it."""
    files = sorted(folder.glob("*.toml"))
    if not files:
        raise PolicyError(f"{folder}: there is no policy here, so nobody could see anything")
    found: dict[str, Path] = {}
    policies = []
    for file in [*files, *_beside(workflows)]:
        try:
            data = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as fault:
            raise PolicyError(f"{file}: {fault}") from fault
        policy = policy_from(data, str(file))
        if policy.workflow in found:
            raise PolicyError(f"{file}: workflow: {found[policy.workflow]} is a policy of the same workflow")
        found[policy.workflow] = file
        policies.append(policy)
    return Policies(policies)


def _beside(workflows: str) -> list[Path]:
    try:
        return [each / POLICY for each in workflow_folders(workflows)]
    except FolderError as fault:
        raise PolicyError(str(fault)) from fault
