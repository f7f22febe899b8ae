"""Keys: who asks, what they may ask for, and what is kept of a key: never its text."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any

from gyoza.models.errors import Forbidden
from gyoza.models.run import time_to_wire

PREFIX = "gyoza_"
SHAPE = re.compile(rb"gyoza_[A-Za-z0-9_-]{43}")
"""Every key that was made here, as bytes; the one that a server is started with may be any text."""
HINT_LENGTH = 4


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


BOOTSTRAP = Caller("bootstrap", frozenset({Scope.ADMIN}))
"""Who has the key that the server was started with."""


@dataclass(frozen=True)
class Key:
    """What is known of a key. `hint`: its last characters, to recognise it by; `worker`: as in `Caller`."""

    id: str
    name: str
    scopes: frozenset[Scope]
    worker: str | None
    hint: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def caller(self) -> Caller:
        """Keys of one name are one caller: a new one takes over from an old one, and nothing changes hands."""
        return Caller(self.name, self.scopes, self.worker)

    def is_good(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "scopes": [scope.value for scope in Scope if scope in self.scopes],
            "worker": self.worker,
            "hint": self.hint,
            "created_at": time_to_wire(self.created_at),
            "created_by": self.created_by,
            "expires_at": time_to_wire(self.expires_at),
            "revoked_at": time_to_wire(self.revoked_at),
            "last_used_at": time_to_wire(self.last_used_at),
        }


def digest(text: bytes) -> bytes:
    """What is kept of a key and looked for. Of 256 random bits nobody guesses any: neither salt nor slowness helps."""
    return sha256(text).digest()
