"""The shapes of bodies: what is checked on the way in."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from gyoza.models.definition import SECRET_NAME, TYPES, USER_NAME
from gyoza.models.keys import BOOTSTRAP, Scope
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.payloads import PAYLOADS, msg
from gyoza.models.resources import cpu_from_wire


class Kept(BaseModel):
    """A body that clients of old may send: unknown members are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Ours(BaseModel):
    """A body of our own: an unknown member is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _written(moment: Any) -> Any:
    """Numbers would do as well, be it of seconds or of milliseconds."""
    if not isinstance(moment, str):
        raise PydanticKnownError("datetime_type")
    if not re.match(r"\d{4}-", moment):
        raise PydanticKnownError("datetime_parsing", {"error": "no year"})
    return moment


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("no calendar has this time") from error


def _in_reach(moment: datetime) -> datetime:
    """Deadlines are reckoned from it, and must have a date too."""
    if moment.year >= 3000:
        raise ValueError("too far ahead: give a time before the year 3000")
    return moment


INT32 = 2**31 - 1
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Amount = Annotated[int, Field(ge=0, le=INT32)]
# What is found by an index has a bound there: 2,700 bytes, and a character may have four.
Text = Annotated[str, Field(min_length=1, max_length=600)]
VersionText = Annotated[str, Field(min_length=1, max_length=400)]
Tag = Annotated[str, Field(min_length=1, max_length=200)]
Tags = Annotated[list[Tag], Field(max_length=50)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f]+$")]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]
Span = Annotated[float, Field(ge=0, le=10 * 365 * 86400)]
Attempt = Annotated[int, Field(ge=1, le=INT32)]
Event = Annotated[EventType, Field(strict=False)]
Moment = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_written), AfterValidator(_in_utc)]
Json = dict[str, Any]
_NO: Json = {"type": "null"}
Reported = Annotated[Any, Field(description="as it was reported, be it misshapen")]


PATHS: Mapping[str, Any] = {
    "run_id": Annotated[str, Field(description="matched exactly", json_schema_extra={"format": "uuid"})],
    "name": Annotated[Name, Field(description="the definition's `id`")],
    "worker_id": Annotated[Name, Field(description="the worker's name")],
    "attempt": Annotated[Attempt, Field(description="counts from 1")],
    "key_id": Annotated[str, Field(description="the key's id, not its text", json_schema_extra={"format": "uuid"})],
    "file_id": Annotated[str, Field(description="as in the file's URI", json_schema_extra={"format": "uuid"})],
}
"""The parameters of paths. A run or file that is not named well is not found."""


def _three_decimals(cpu: float) -> float:
    cpu_from_wire(cpu)
    return cpu


Cpu = Annotated[float, Field(ge=0, le=1_000_000, description="at most three decimals"), AfterValidator(_three_decimals)]


class ConstraintsBody(Kept):
    cpu: Cpu | None = None
    ram_mb: Amount | None = None
    vram_mb: Amount | None = None


Spending = Literal[
    "op_error",
    "oom_killed",
    "gpu_memory_exceeded",
    "run_timeout",
    "invalid_output",
    "image_not_found",
    "bundle_broken",
    "not_allowed",
    "external",
]
"""The reasons that spend attempts."""
Costing = Literal[Spending, "image_pull_failed", "start_failed", "start_timeout", "disk_full", "worker_lost"]
"""And those that cost an infrastructure loss."""
Pause = Annotated[float, Field(ge=0, le=30 * 86400)]


class RetryPolicyBody(Kept):
    max_attempts: int = Field(1, ge=1, le=1000, description="the first one counts")
    backoff_s: Pause = 0
    backoff_factor: float = Field(2, ge=1, le=100)
    max_backoff_s: Pause | None = None
    jitter: float = Field(0, ge=0, le=1, description="how much of a pause is left to chance")
    retry_on: list[Spending] | None = Field(None, max_length=100, description="null: as each reason says")
    fail_on: list[Costing] = Field(default_factory=list[Costing], max_length=100)


class EventDeliveryBody(Kept):
    topic: Text
    attributes: Json = Field(default_factory=dict)


class TimeoutsBody(Ours):
    queue_s: Seconds | None = None
    start_s: Seconds | None = None
    run_s: Seconds | None = None


class OptionsBody(Kept):
    """What may be said of any run."""

    priority: Priority = 5
    tags: Tags = Field(default_factory=list)
    run_at: Annotated[Moment, AfterValidator(_in_reach)] | None = Field(
        None, description="not before this time, which is before the year 3000"
    )
    timeouts: TimeoutsBody | None = None
    retry_policy: RetryPolicyBody | None = None
    delete_after_s: Span | None = Field(None, description="kept for so long after its end")


class CreateRun(OptionsBody):
    image: Text
    inputs: Json = Field(default_factory=dict)
    constraints: ConstraintsBody | None = None
    event_delivery: EventDeliveryBody | None = None


class CreateRunOfDefinition(OptionsBody):
    inputs: Json = Field(default_factory=dict)
    version: str | None = None


class Replay(OptionsBody):
    """What is to differ from the run that is replayed."""

    model_config = ConfigDict(extra="forbid")


_OF_IMAGE: Json = {
    "properties": {"image": {"type": "string"}, "op_definition": _NO, "version": _NO},
    "required": ["image"],
}
_OF_DEFINITION: Json = {
    "properties": {"op_definition": {"type": "string"}, "image": _NO, "constraints": _NO, "event_delivery": _NO},
    "required": ["op_definition"],
}


class BatchItem(CreateRun):
    """A run of an image, or of a definition: one of the two."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"anyOf": [_OF_IMAGE, _OF_DEFINITION]})
    image: Text | None = None  # type: ignore[assignment]
    op_definition: str | None = None
    version: str | None = None

    @model_validator(mode="after")
    def _one_of_two(self) -> "BatchItem":
        if (self.image is None) == (self.op_definition is None):
            raise ValueError("give an image or an op_definition, and not both")
        if self.op_definition is None and self.version is not None:
            raise ValueError("a version belongs to an op_definition")
        if self.op_definition is not None and (self.constraints or self.event_delivery):
            raise ValueError("constraints and event_delivery are the definition's")
        return self


class Batch(Ours):
    runs: list[BatchItem] = Field(min_length=1, max_length=10_000)


Settable = Annotated[str, Field(json_schema_extra={"enum": [state for state in OpRunState if state != "ASSIGNED"]})]


class UpdateRun(Kept):
    state: Settable | None = None
    outputs: Json | None = None
    priority: Priority | None = None
    pinned: bool | None = Field(None, description="kept, however old it is")


def _event(kind: EventType) -> Json:
    """What an event of this type may say, in JSON Schema's words; it is judged in `models.payloads`."""
    members = {name: {"anyOf": [check.schema, {"type": "null"}]} for name, check in PAYLOADS.get(kind, {}).items()}
    payload = {"anyOf": [{"type": "object", "properties": members}, {"type": "null"}]}
    return {"properties": {"type": {"const": kind.value}, "msg": msg(kind).schema, "payload": payload}}


class EventBody(Kept):
    """What the msg and the payload may hold depends on the type: a table on the page of the events says it."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_event(kind) for kind in EventType]})
    type: Event
    msg: Any = Field(description="a text; for PROGRESS a whole number from 0 to 100")
    payload: Json | None = None
    attempt: Attempt | None = None


_VALUES: Json = {
    "string": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
    "any": {},
    "file": {"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9+.-]*://.+"},
}
_FITTING: list[Any] = [
    {"properties": {"type": {"const": name}, "default": {"anyOf": [value, _NO]}}} for name, value in _VALUES.items()
]


class SpecBody(Kept):
    """The default is of the type, or null."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _FITTING})

    type: Literal["string", "int", "float", "bool", "list", "dict", "any", "file"]
    required: bool = True
    default: Any = None

    @model_validator(mode="after")
    def _default_fits(self) -> "SpecBody":
        if self.default is not None and not TYPES[self.type](self.default):
            raise ValueError(f"the default is not of type {self.type}")
        return self


SecretName = Annotated[str, Field(pattern=SECRET_NAME)]
Patience = Annotated[float, Field(gt=0, le=7 * 86400)]


class ExecutionBody(Ours):
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[SecretName] = Field(default_factory=list, max_length=1000, description="names, never values")
    network: bool = True
    cancel_grace_s: float = Field(10, ge=0, le=3600)
    on_server_lost: Literal["finish", "stop"] = "finish"
    server_lost_s: Patience | None = Field(None, description="null: the cluster's lease")
    user: str | None = Field(None, pattern=USER_NAME, description="user, or user:group, by name or number")


class BundleBody(Ours):
    uri: str = Field(pattern=r"^gyoza://files/[0-9a-f-]{36}$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0, le=2**53 - 1)
    entry: list[str] = Field(min_length=1, max_length=1000)
    python: str | None = None
    base_image: str | None = None


_RUNNABLE: list[Any] = [
    {"properties": {name: {"type": kind}}, "required": [name]}
    for name, kind in (("image", "string"), ("bundle", "object"))
]


class Deploy(Kept):
    """An op needs an image, a bundle, or both."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _RUNNABLE})
    id: Name
    version: VersionText | None = None
    image: Text | None = None
    input_specs: dict[str, SpecBody] = Field(default_factory=dict)
    output_specs: dict[str, SpecBody] = Field(default_factory=dict)
    constraints: ConstraintsBody | None = None
    retry_policy: RetryPolicyBody | None = None
    event_delivery: EventDeliveryBody | None = None
    description: str | None = None
    timeouts: TimeoutsBody | None = None
    execution: ExecutionBody | None = None
    tags: Tags | None = None
    bundle: BundleBody | None = None
    concurrency: Json | None = None
    delete_after_s: Span | None = Field(None, description="its runs are kept for so long after their end")

    @model_validator(mode="after")
    def _runnable(self) -> "Deploy":
        if self.image is None and self.bundle is None:
            raise ValueError("an op needs an image, or a bundle (made by `gyoza op deploy`)")
        return self


class GpuBody(Ours):
    id: Amount
    uuid: str
    name: str
    vram_mb: Amount
    foreign_mb: Amount = 0


class ResourcesBody(Ours):
    cpu: Cpu
    ram_mb: Amount
    slots: Amount
    gpus: list[GpuBody] = Field(default_factory=list[GpuBody], max_length=1000)


class AttemptName(Ours):
    run_id: str
    attempt: Attempt


class Heartbeat(Ours):
    instance: Text
    seq: int = Field(ge=1, description="rises with every heartbeat of this instance")
    host_id: Text
    resources: ResourcesBody
    tags: list[str] = Field(default_factory=list, max_length=1000)
    engines: list[str] = Field(default_factory=list, max_length=100)
    version: str | None = None
    images: list[str] = Field(default_factory=list, max_length=10_000)
    holding: list[AttemptName] = Field(default_factory=list[AttemptName], max_length=10_000)


class ClaimBody(Ours):
    instance: Text
    known: list[AttemptName] = Field(default_factory=list[AttemptName], max_length=10_000)
    max: int = Field(1, ge=0, le=1000)
    wait_s: float = Field(0, ge=0, le=25)


class ReportedEvent(Ours):
    type: Event
    msg: Any = ""
    payload: Json | None = None
    at: Moment | None = None


class SummaryBody(Ours):
    gpu_ids: Annotated[list[int], Field(max_length=1000)] | None = None
    exit_code: int | None = None
    signal: int | None = None
    peak_ram_mb: int | None = None
    peak_vram_mb: int | None = None
    cpu_s: float | None = None
    image_digest: str | None = None


class ReportBody(Ours):
    run_id: str
    attempt: Attempt
    lease_token: str
    seq: int = Field(ge=1, le=INT32)
    events: list[ReportedEvent] = Field(default_factory=list[ReportedEvent], max_length=1000)
    summary: SummaryBody | None = None
    declined: bool = False
    settled: bool = False


class ReportsBody(Ours):
    instance: Text
    reports: list[Any] = Field(max_length=1000, description="each one a Report; they are judged one by one")


def _given_out(name: str) -> str:
    if name == BOOTSTRAP.name:
        raise ValueError(f"'{name}' is who has the key that the server was started with: choose another name")
    return name


def _alone(scopes: list[Scope]) -> list[Scope]:
    if Scope.WORKER in scopes and set(scopes) != {Scope.WORKER}:
        raise ValueError("the scope worker goes with no other: make two keys")
    return scopes


_OF_WORKER: Json = {
    "properties": {"scopes": {"items": {"const": "worker"}}, "worker": {"type": "string"}},
    "required": ["scopes", "worker"],
}
_OF_OTHERS: Json = {"properties": {"scopes": {"items": {"enum": ["admin", "submit", "read"]}}, "worker": _NO}}


class CreateKey(Ours):
    """The scope `worker` goes with no other, and with the name of the worker that the key is for."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_OF_WORKER, _OF_OTHERS]})
    name: Annotated[Name, AfterValidator(_given_out)] = Field(description="who has it; two keys may have one name")
    scopes: Annotated[list[Annotated[Scope, Field(strict=False)]], AfterValidator(_alone)] = Field(
        [Scope.SUBMIT], min_length=1
    )
    worker: Name | None = Field(
        None, validate_default=True, description="the worker that a key with the scope worker is for"
    )
    expires_in_s: Seconds | None = Field(None, description="none: it does not expire")

    @field_validator("worker")
    @classmethod
    def _is_a_workers(cls, worker: str | None, info: ValidationInfo) -> str | None:
        wants = Scope.WORKER in info.data.get("scopes", ())
        if wants and worker is None:
            raise ValueError("a key with the scope worker is for one worker: name it")
        if worker is not None and not wants and "scopes" in info.data:
            raise ValueError('only a key with the scopes ["worker"] is for a worker')
        return worker
