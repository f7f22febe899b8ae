"""Who asks, and what they may ask for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gyoza.models.errors import Forbidden


class Scope(StrEnum):
    """`read` looks, `submit` asks for work as well, `admin` does everything; `worker` acts for one worker."""

    ADMIN = "admin"
    SUBMIT = "submit"
    READ = "read"
    WORKER = "worker"


GRANTS: Mapping[Scope, frozenset[Scope]] = {
    Scope.ADMIN: frozenset(Scope),
    Scope.SUBMIT: frozenset({Scope.SUBMIT, Scope.READ}),
    Scope.READ: frozenset({Scope.READ}),
    Scope.WORKER: frozenset({Scope.WORKER}),
}
"""What a key with this scope may do: its own and all that it includes."""


@dataclass(frozen=True)
class Caller:
    """Whose key a request carries. `worker`: the only worker for which it speaks; None where it is no worker's key."""

    name: str
    scopes: frozenset[Scope]
    worker: str | None = None

    def allow(self, needed: Iterable[Scope], worker_id: str | None = None) -> None:
        """Raises Forbidden unless one of `needed` is granted; `worker_id` is the worker that the request is about."""
        granted = frozenset[Scope]().union(*(GRANTS[scope] for scope in self.scopes))
        if not granted & set(needed):
            has = ", ".join(sorted(self.scopes))
            raise Forbidden(
                f"The key '{self.name}' lacks the scope {' or '.join(needed)}: it has {has}. "
                "Ask an administrator for a key with that scope (gyoza keys create)"
            )
        if self.worker is not None and worker_id is not None and worker_id != self.worker:
            raise Forbidden(f"The key '{self.name}' speaks for worker '{self.worker}' alone, not for '{worker_id}'")
