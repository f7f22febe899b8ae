"""The shapes of answers, for the OpenAPI document; a test holds them against what is really answered."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from gyoza.models.keys import Scope
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.reasons import Reason
from gyoza.server.schemas import (
    AttemptName,
    BundleBody,
    Deploy,
    EventDeliveryBody,
    ExecutionBody,
    Json,
    Reported,
    ResourcesBody,
    RetryPolicyBody,
    SpecBody,
    TimeoutsBody,
)


class Out(BaseModel):
    """What is answered."""

    model_config = ConfigDict(extra="allow")


class ConstraintsOut(Out):
    cpu: float | None
    ram_mb: int | None
    vram_mb: int | None


class EventOut(Out):
    id: int
    type: EventType
    t: datetime
    msg: str | int
    payload: Json | None
    attempt: int
    at: datetime | None


class EventRow(EventOut):
    state: OpRunState


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
    id: str
    state: OpRunState
    priority: int
    image: str | None
    op_definition: str | None
    inputs: Json
    outputs: Json | None
    constraints: ConstraintsOut
    retry_policy: RetryPolicyBody
    event_delivery: EventDeliveryBody | None
    progress: int
    current_attempt: int
    events: list[EventOut]
    execution_summary: SummaryOut
    created_at: datetime
    updated_at: datetime
    reason: Reason | None
    version: str | None
    revision: int | None
    submitted_by: str | None
    tags: list[str]
    run_at: datetime | None
    timeouts: TimeoutsBody
    user_failures: int
    infra_losses: int
    events_count: int
    queue_at: datetime
    delete_after_s: float | None
    pinned: bool
    replay_of: str | None


class RunsOut(Out):
    object: Literal["list"]
    data: list[RunOut]
    has_more: bool
    url: Literal["/runs"]


class BatchOut(Out):
    object: Literal["batch"]
    count: int
    ids: list[str] = Field(description="in the order of the items")


class SweptOut(Out):
    matched: int = Field(description="runs that the filters find and that can be changed so")
    changed: int
    has_more: bool = Field(description="there are more than these: ask again")
    dry_run: bool


class AttemptOut(Out):
    id: str
    op_run_id: str
    attempt: int
    state: OpRunState
    progress: int
    events: list[EventOut]
    inputs: Json
    outputs: Json | None
    execution_summary: SummaryOut
    constraints: ConstraintsOut
    started_at: datetime | None
    finished_at: datetime | None
    reason: Reason | None
    settled_at: datetime | None


class DefinitionOut(Deploy):
    revision: int
    digest: str
    disabled: bool


class StopOut(AttemptName):
    reason: Reason


class HeardOut(Out):
    heartbeat_s: float
    lease_s: float
    drain: bool
    stop: list[StopOut]


class AssignmentOut(Out):
    run_id: str
    attempt: int
    lease_token: str
    op_definition: str | None
    image: str | None
    image_digest: str | None
    bundle: BundleBody | None
    inputs: Json
    constraints: ConstraintsOut
    gpu_ids: list[int]
    execution: ExecutionBody
    timeouts: TimeoutsBody
    input_specs: dict[str, SpecBody]
    output_specs: dict[str, SpecBody]


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


class WorkerOut(Out):
    id: str
    state: Literal["alive", "late", "lost"]
    drain: bool
    host_id: str
    resources: ResourcesBody
    room: Json
    tags: list[str]
    engines: list[str]
    version: str | None
    images: list[str]
    holding: list[Json]
    registered_at: datetime
    seen_at: datetime


class FileOut(Out):
    id: str
    uri: str
    name: str
    size: int
    sha256: str
    media_type: str


class AppendedOut(Out):
    offset: int
    cut: bool


class KeyOut(Out):
    id: str
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
    key: str = Field(description="its text: told here, and never again")


class HealthOut(Out):
    status: Literal["ok"]
    cluster_id: str


class ReadyOut(Out):
    status: Literal["ready"]


class FaultOut(Out):
    pointer: str
    detail: str
    code: str


class Problem(Out):
    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FaultOut | str] | None = Field(None, description="each fault; of an op's inputs, a sentence each")
    offset: int | None = Field(None, description="with wrong_offset: where the log goes on")
