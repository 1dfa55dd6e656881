"""Who is asking: what a key says about its holder, and what follows from the role."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from eventstore.catalogue import RunRow
from eventstore.domain.disclosure import Role
from eventstore.domain.events import Person

SEES_THE_TENANT: Final[frozenset[Role]] = frozenset({"operator", "officer"})
MAY_STOP: Final[frozenset[Role]] = frozenset({"user", "operator"})  # who must prove what happened does not change it


@dataclass(frozen=True, slots=True)
class Caller:
    """The holder of a key."""

    key_id: str
    tenant_id: UUID
    tenant: str
    subject: str
    role: Role

    @property
    def person(self) -> Person:
        """As the log names them."""
        return Person(subject=self.subject, role=self.role)

    @property
    def only_subject(self) -> str | None:
        """Whose runs alone they see; None for the whole tenant's."""
        return None if self.role in SEES_THE_TENANT else self.subject

    def may_see(self, run: RunRow) -> bool:
        """Whether this run exists for them."""
        return run.tenant_id == self.tenant_id and self.only_subject in (None, run.subject)
