"""The shapes of answers, exact to the member: for the OpenAPI document, and for the tests that hold answers to it."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gyoza.models.keys import Scope
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.reasons import Reason
from gyoza.policy.quarantine import Cause
from gyoza.server.schemas import (
    INT32,
    AttemptName,
    BundleBody,
    EventDeliveryBody,
    ExecutionBody,
    GpuBody,
    Json,
    Name,
    Priority,
    Reported,
    RetryPolicyBody,
    SpecBody,
    TimeoutsBody,
)

Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Uri = Annotated[str, Field(json_schema_extra={"format": "uri"})]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[int, Field(ge=1, le=INT32, description="counts from 1")]
Progress = Annotated[int, Field(ge=0, le=100, description="per cent")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class Out(BaseModel):
    """What is answered: every member is there, and no other.

    A shape that is sent and answered alike is both: `class TimeoutsOut(TimeoutsBody, Out)`. What is any JSON object is
    declared as `Json`.
    """

    model_config = ConfigDict(extra="forbid", json_schema_serialization_defaults_required=True)


class ConstraintsOut(Out):
    cpu: float | None
    ram_mb: int | None
    vram_mb: int | None


class RetryPolicyOut(RetryPolicyBody, Out):
    pass


class EventDeliveryOut(EventDeliveryBody, Out):
    pass


class TimeoutsOut(TimeoutsBody, Out):
    pass


class SpecOut(SpecBody, Out):
    pass


class ExecutionOut(ExecutionBody, Out):
    pass


class BundleOut(BundleBody, Out):
    pass


class EventOut(Out):
    id: Annotated[Count, Field(description="counts from 0 over all attempts of the run")]
    type: EventType
    t: Annotated[datetime, Field(description="the server's clock")]
    msg: str | int
    payload: Json | None
    attempt: Number
    at: Annotated[datetime | None, Field(description="the worker's own clock")]


class EventRow(EventOut):
    state: Annotated[OpRunState, Field(description="the run's state now")]


class EventsOut(Out):
    events: list[EventRow]
    has_more: bool


class SummaryOut(Out):
    duration_ms: int | None
    worker_id: str | None
    error_message: str | None
    gpu_id: int | float | str | None
    gpu_ids: list[int] | None
    exit_code: int | None
    signal: int | None
    peak_ram_mb: int | None
    peak_vram_mb: int | None
    cpu_s: float | None
    image_digest: str | None


class RunOut(Out):
    id: Uuid
    state: OpRunState
    priority: Priority
    image: str | None
    op_definition: str | None
    inputs: Json
    outputs: Json | None
    constraints: ConstraintsOut
    retry_policy: RetryPolicyOut
    event_delivery: EventDeliveryOut | None
    progress: Progress
    current_attempt: Number
    events: Annotated[list[EventOut], Field(description="the current attempt's newest 100; none in lists")]
    execution_summary: SummaryOut
    created_at: datetime
    updated_at: datetime
    reason: Reason | None
    version: str | None
    revision: Number | None
    submitted_by: str | None
    tags: list[str]
    run_at: datetime | None
    timeouts: TimeoutsOut
    user_failures: Count
    infra_losses: Count
    events_count: Count
    queue_at: Annotated[datetime, Field(description="where it stands in the queue: the earlier the sooner")]
    delete_after_s: float | None
    pinned: bool
    replay_of: Uuid | None


class RunsOut(Out):
    object: Literal["list"]
    data: list[RunOut]
    has_more: Annotated[bool, Field(description="whether more lie beyond, in the direction travelled")]
    url: Literal["/runs"]


class BatchOut(Out):
    object: Literal["batch"]
    count: Count
    ids: Annotated[list[Uuid], Field(description="in the order of the items")]


class SweptOut(Out):
    matched: Annotated[Count, Field(description="runs that the filters find and that can be changed so")]
    changed: Count
    has_more: Annotated[bool, Field(description="there are more than these: ask again")]
    dry_run: bool


class AttemptOut(Out):
    id: Uuid
    op_run_id: Uuid
    attempt: Number
    state: OpRunState
    progress: Progress
    events: list[EventOut]
    inputs: Json
    outputs: Json | None
    execution_summary: SummaryOut
    constraints: ConstraintsOut
    started_at: datetime | None
    finished_at: datetime | None
    reason: Reason | None
    settled_at: Annotated[datetime | None, Field(description="since when nothing of it runs any more")]


class DefinitionOut(Out):
    id: Name
    version: str | None
    image: str | None
    input_specs: dict[str, SpecOut]
    output_specs: dict[str, SpecOut]
    constraints: ConstraintsOut
    retry_policy: RetryPolicyOut
    event_delivery: EventDeliveryOut | None
    description: str | None
    timeouts: TimeoutsOut
    execution: ExecutionOut
    tags: list[str]
    bundle: BundleOut | None
    concurrency: Json | None
    delete_after_s: float | None
    revision: Number
    digest: Annotated[Digest, Field(description="of its RFC 8785 JSON")]
    disabled: Annotated[bool, Field(description="it takes no new runs")]


class NamedOut(AttemptName, Out):
    run_id: Uuid


class StopOut(NamedOut):
    reason: Reason


class HeardOut(Out):
    heartbeat_s: float
    lease_s: float
    drain: bool
    stop: list[StopOut]


class AssignmentOut(Out):
    run_id: Uuid
    attempt: Number
    lease_token: str
    op_definition: str | None
    image: str | None
    image_digest: str | None
    bundle: BundleOut | None
    inputs: Json
    constraints: ConstraintsOut
    gpu_ids: list[int]
    execution: ExecutionOut
    timeouts: TimeoutsOut
    input_specs: dict[str, SpecOut]
    output_specs: dict[str, SpecOut]


class ClaimedOut(Out):
    assignments: list[AssignmentOut]
    stop: list[StopOut]
    drain: bool


class ResultOut(Out):
    run_id: Reported
    attempt: Reported
    seq: Reported
    ok: bool
    code: str | None
    state: OpRunState | None
    detail: str | None


class ResultsOut(Out):
    results: list[ResultOut]


class GpuOut(GpuBody, Out):
    pass


class ResourcesOut(Out):
    cpu: float
    ram_mb: Count
    slots: Count
    gpus: list[GpuOut]


class RoomOut(Out):
    """Below zero where a worker has less than it had when it took what it holds."""

    cpu: float
    ram_mb: int
    slots: int
    vram_mb: Annotated[dict[str, int], Field(description="by the id of the GPU")]


class HeldOut(NamedOut):
    state: OpRunState


class QuarantineOut(Out):
    """It takes no more runs, but for one now and then: the canary."""

    since: datetime
    until: Annotated[datetime, Field(description="no canary before")]
    cause: Annotated[Cause, Field(description="broken: attempts could not be run; failing: they failed")]
    reason: Annotated[str, Field(description="one sentence for people")]
    canaries: Annotated[Count, Field(description="how many have failed")]


class WorkerOut(Out):
    id: str
    state: Annotated[Literal["alive", "late", "lost"], Field(description="late: silent for two heartbeats")]
    drain: bool
    quarantine: QuarantineOut | None
    host_id: str
    resources: ResourcesOut
    room: RoomOut
    tags: list[str]
    engines: list[str]
    version: str | None
    images: list[str]
    holding: list[HeldOut]
    registered_at: datetime
    seen_at: datetime


class FileOut(Out):
    id: Uuid
    uri: Uri
    name: str
    size: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    media_type: str


class AppendedOut(Out):
    offset: Annotated[Count, Field(description="where the log goes on")]
    cut: Annotated[bool, Field(description="it reached its limit: what comes now is dropped")]


class KeyOut(Out):
    id: Uuid
    name: str
    scopes: list[Scope]
    worker: str | None
    hint: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyMade(KeyOut):
    key: Annotated[str, Field(description="its text: told here, and never again")]


class HealthOut(Out):
    status: Literal["ok"]
    cluster_id: Uuid


class ReadyOut(Out):
    status: Literal["ready"]


class FaultOut(Out):
    pointer: str
    detail: str
    code: str


class Problem(BaseModel):
    """A refusal (RFC 9457)."""

    model_config = ConfigDict(extra="forbid")

    type: Uri
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: Annotated[str, Field(description="one sentence for people")]
    code: Annotated[str, Field(description="for programs; does not change")]
    errors: list[FaultOut] = Field(
        default_factory=list[FaultOut], description="each faulty place, where single places are at fault"
    )
    offset: Count = Field(0, description="with `wrong_offset`: where the log goes on")
