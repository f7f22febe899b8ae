"""A deployed op: what it takes, gives and needs. Every deployment is an immutable revision."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from gyoza.models.bundle import Bundle
from gyoza.models.errors import Fault, InputValidationError
from gyoza.models.resources import Constraints
from gyoza.models.strictjson import pointer

_URI = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://.+")
SECRET_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"
"""A secret is a file on a worker: its name leads nowhere else."""
USER_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,99})?$"
"""A user, and a group if need be, by name or number."""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and _URI.match(value) is not None


TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "int": _is_int,
    "float": lambda value: isinstance(value, float) or _is_int(value),
    "bool": lambda value: isinstance(value, bool),
    "list": lambda value: isinstance(value, list),
    "dict": lambda value: isinstance(value, dict),
    "any": lambda value: True,
    "file": _is_file,
}
"""The types of inputs and outputs. A bool is no int, 1.0 is no int, an int is a float; a file is a URI."""


@dataclass(frozen=True)
class InputSpec:
    type: str
    required: bool = True
    default: Any = None

    def to_dict(self) -> dict[str, Any]:
        return {"type": self.type, "required": self.required, "default": self.default}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "InputSpec":
        return cls(data["type"], data.get("required", True), data.get("default"))

    def fault(self, name: str, value: Any) -> str | None:
        """None when `value` (not null) is of this type, else a sentence."""
        if TYPES[self.type](value):
            return None
        wanted = "a URI such as gyoza://files/<id>" if self.type == "file" else f"of type {self.type}"
        return f"'{name}' must be {wanted}, not {_called(value)}"


def _called(value: object) -> str:
    names = {"str": "string"}
    name = type(value).__name__
    return names.get(name, name)


class InputSpecs(dict[str, InputSpec]):
    """Specs by name; serves outputs too."""

    def to_dict(self) -> dict[str, Any]:
        return {name: spec.to_dict() for name, spec in self.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "InputSpecs":
        return cls({name: InputSpec.from_dict(spec) for name, spec in (data or {}).items()})

    def validate(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """`inputs` with defaults filled in; null counts as absent. InputValidationError names every fault."""
        given = {name: value for name, value in inputs.items() if value is not None}
        defaults = {name: spec.default for name, spec in self.items() if name not in given and spec.default is not None}
        if faults := list(self._faults_of_inputs({**given, **defaults})):
            raise InputValidationError([fault.detail for fault in faults], faults)
        return {**given, **defaults}

    def _faults_of_inputs(self, given: Mapping[str, Any]) -> Iterator[Fault]:
        for name in given:
            if name not in self:
                yield _input_fault(name, f"'{name}' is not an input of this op{self._known()}", "unknown_member")
        for name, spec in self.items():
            if name in given and (sentence := spec.fault(name, given[name])):
                yield _input_fault(name, sentence, "wrong_type")
            elif name not in given and spec.required:
                yield _input_fault(name, f"'{name}' is required ({spec.type})", "missing")

    def faults_of_outputs(self, outputs: Mapping[str, Any]) -> list[str]:
        """What of `outputs` breaks these specs; outputs that are not declared are welcome."""
        faults: list[str] = []
        for name, spec in self.items():
            value = outputs.get(name)
            if value is None and spec.required:
                faults.append(f"'{name}' is missing ({spec.type})")
            elif value is not None and spec.type == "file" and isinstance(value, Mapping):
                continue
            elif value is not None and (fault := spec.fault(name, value)):
                faults.append(fault)
        return faults

    def _known(self) -> str:
        return f" (it takes: {', '.join(self)})" if self else " (it takes none)"


def _input_fault(name: str, sentence: str, code: str) -> Fault:
    return Fault(pointer("inputs", name), sentence, code)


@dataclass(frozen=True)
class RetryPolicy:
    """`max_attempts` counts the first attempt; `jitter`, 0 to 1, is how much of a pause is left to chance.

    The pause before the next attempt is `backoff_s`, times `backoff_factor` for each failure after the first, at most
    `max_backoff_s`. Of the failures that spend attempts, those in `retry_on` are tried again (None: as their reason
    says); what is in `fail_on` never is. Both hold reasons.
    """

    max_attempts: int = 1
    backoff_s: float = 0
    backoff_factor: float = 2
    max_backoff_s: float | None = None
    jitter: float = 0
    retry_on: Sequence[str] | None = None
    fail_on: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "max_attempts": self.max_attempts,
            "backoff_s": self.backoff_s,
            "backoff_factor": self.backoff_factor,
            "max_backoff_s": self.max_backoff_s,
            "jitter": self.jitter,
            "retry_on": None if self.retry_on is None else list(self.retry_on),
            "fail_on": list(self.fail_on),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "RetryPolicy":
        """Null counts as absent, and what this version does not know is ignored."""
        data = data or {}
        known: dict[str, Any] = {f.name: data[f.name] for f in fields(cls) if data.get(f.name) is not None}
        known.update({name: tuple(known[name]) for name in ("retry_on", "fail_on") if name in known})
        return cls(**known)


@dataclass(frozen=True)
class EventDelivery:
    """`attributes` is a JSON object: decoded, or as it was received."""

    topic: str
    attributes: Any = field(default_factory=dict[str, Any])

    def to_dict(self) -> dict[str, Any]:
        return {"topic": self.topic, "attributes": self.attributes}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EventDelivery":
        return cls(data["topic"], data.get("attributes") or {})


@dataclass(frozen=True)
class Timeouts:
    """Seconds; None is the server's or worker's default (`start_s`) or no limit (`queue_s`, `run_s`)."""

    queue_s: float | None = None
    start_s: float | None = None
    run_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"queue_s": self.queue_s, "start_s": self.start_s, "run_s": self.run_s}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "Timeouts":
        data = data or {}
        return cls(data.get("queue_s"), data.get("start_s"), data.get("run_s"))


@dataclass(frozen=True)
class Execution:
    """How the program is run. `secrets` are names, never values; `user` is a name or number, with `:group` if need be.

    `server_lost_s`: how long server and worker wait for each other before the attempt counts as lost (None: the
    cluster's lease). A worker cut off for so long stops it where `on_server_lost` is stop, and lets it finish where it
    is finish.
    """

    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Sequence[str] = ()
    network: bool = True
    cancel_grace_s: float = 10
    on_server_lost: str = "finish"
    server_lost_s: float | None = None
    user: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "env": dict(self.env),
            "secrets": list(self.secrets),
            "network": self.network,
            "cancel_grace_s": self.cancel_grace_s,
            "on_server_lost": self.on_server_lost,
            "server_lost_s": self.server_lost_s,
            "user": self.user,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | None) -> "Execution":
        """Null counts as absent, and what this version does not know is ignored: a newer server may send more."""
        data = data or {}
        known: dict[str, Any] = {f.name: data[f.name] for f in fields(cls) if data.get(f.name) is not None}
        known["secrets"] = tuple(known.get("secrets", ()))
        return cls(**known)


@dataclass(frozen=True)
class OpDefinition:
    """`revision`, `digest` and `disabled` are the server's; everything else is the author's.

    `delete_after_s`: how long after their end its runs are kept; None leaves that to the server.
    """

    id: str
    version: str | None = None
    image: str | None = None
    input_specs: InputSpecs = field(default_factory=InputSpecs)
    output_specs: InputSpecs = field(default_factory=InputSpecs)
    constraints: Constraints = field(default_factory=Constraints)
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    event_delivery: EventDelivery | None = None
    description: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    execution: Execution = field(default_factory=Execution)
    tags: Sequence[str] = ()
    bundle: Bundle | None = None
    concurrency: Mapping[str, Any] | None = None
    delete_after_s: float | None = None
    revision: int | None = None
    digest: str | None = None
    disabled: bool = False

    def content(self) -> dict[str, Any]:
        """What the author deployed: the part that the digest covers."""
        return {
            "id": self.id,
            "version": self.version,
            "image": self.image,
            "input_specs": self.input_specs.to_dict(),
            "output_specs": self.output_specs.to_dict(),
            "constraints": self.constraints.to_dict(),
            "retry_policy": self.retry_policy.to_dict(),
            "event_delivery": self.event_delivery.to_dict() if self.event_delivery else None,
            "description": self.description,
            "timeouts": self.timeouts.to_dict(),
            "execution": self.execution.to_dict(),
            "tags": list(self.tags),
            "bundle": self.bundle.to_dict() if self.bundle else None,
            "concurrency": self.concurrency,
            "delete_after_s": self.delete_after_s,
        }

    def to_dict(self) -> dict[str, Any]:
        return {**self.content(), "revision": self.revision, "digest": self.digest, "disabled": self.disabled}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "OpDefinition":
        delivery, bundle = data.get("event_delivery"), data.get("bundle")
        return cls(
            id=data["id"],
            version=data.get("version"),
            image=data.get("image"),
            input_specs=InputSpecs.from_dict(data.get("input_specs")),
            output_specs=InputSpecs.from_dict(data.get("output_specs")),
            constraints=Constraints.from_dict(data.get("constraints")),
            retry_policy=RetryPolicy.from_dict(data.get("retry_policy")),
            event_delivery=EventDelivery.from_dict(delivery) if delivery else None,
            description=data.get("description"),
            timeouts=Timeouts.from_dict(data.get("timeouts")),
            execution=Execution.from_dict(data.get("execution")),
            tags=tuple(data.get("tags") or ()),
            bundle=Bundle.from_dict(bundle) if bundle else None,
            concurrency=data.get("concurrency"),
            delete_after_s=data.get("delete_after_s"),
            revision=data.get("revision"),
            digest=data.get("digest"),
            disabled=data.get("disabled", False),
        )
