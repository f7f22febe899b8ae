"""The shapes of bodies: what is checked on the way in."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from gyoza.models.definition import TYPES
from gyoza.models.lifecycle import EventType
from gyoza.models.resources import cpu_from_wire


class Kept(BaseModel):
    """A body that clients of old may send: unknown members are passed over."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Ours(BaseModel):
    """A body of our own: an unknown member is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("no calendar has this time") from error


INT32 = 2**31 - 1
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Amount = Annotated[int, Field(ge=0, le=INT32)]
Text = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^/\x00-\x1f]+$")]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86400)]
Attempt = Annotated[int, Field(ge=1, le=INT32)]
Event = Annotated[EventType, Field(strict=False)]
Moment = Annotated[AwareDatetime, Field(strict=False), AfterValidator(_in_utc)]
Json = dict[str, Any]
Reported = Annotated[Any, Field(description="as it was reported, be it misshapen")]


def _three_decimals(cpu: float) -> float:
    cpu_from_wire(cpu)
    return cpu


Cpu = Annotated[float, Field(ge=0, le=1_000_000, description="at most three decimals"), AfterValidator(_three_decimals)]


class ConstraintsBody(Kept):
    cpu: Cpu | None = None
    ram_mb: Amount | None = None
    vram_mb: Amount | None = None


class RetryPolicyBody(Kept):
    max_attempts: int = Field(1, ge=1, le=1000, description="the first one counts")


class EventDeliveryBody(Kept):
    topic: Text
    attributes: Json = Field(default_factory=dict)


class CreateRun(Kept):
    image: Text
    priority: Priority = 5
    inputs: Json = Field(default_factory=dict)
    constraints: ConstraintsBody | None = None
    retry_policy: RetryPolicyBody | None = None
    event_delivery: EventDeliveryBody | None = None


class CreateRunOfDefinition(Kept):
    inputs: Json = Field(default_factory=dict)
    priority: Priority = 5
    version: str | None = None


class UpdateRun(Kept):
    state: str | None = None
    outputs: Json | None = None
    priority: Priority | None = None


class EventBody(Kept):
    type: Event
    msg: Any = Field(description="a text; for PROGRESS a whole number from 0 to 100")
    payload: Json | None = None
    attempt: Attempt | None = None


class SpecBody(Kept):
    type: Literal["string", "int", "float", "bool", "list", "dict", "any", "file"]
    required: bool = True
    default: Any = None

    @model_validator(mode="after")
    def _default_fits(self) -> "SpecBody":
        if self.default is not None and not TYPES[self.type](self.default):
            raise ValueError(f"the default is not of type {self.type}")
        return self


class TimeoutsBody(Ours):
    queue_s: Seconds | None = None
    start_s: Seconds | None = None
    run_s: Seconds | None = None


class ExecutionBody(Ours):
    env: dict[str, str] = Field(default_factory=dict)
    secrets: list[str] = Field(default_factory=list)
    network: bool = True
    cancel_grace_s: float = Field(10, ge=0, le=3600)
    on_server_lost: Literal["finish", "stop"] = "finish"
    user: str | None = None


class BundleBody(Ours):
    uri: str = Field(pattern=r"^gyoza://files/[0-9a-f-]{36}$")
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    size: int = Field(ge=0)
    entry: list[str] = Field(min_length=1)
    python: str | None = None
    base_image: str | None = None


class Deploy(Kept):
    id: Name
    version: Text | None = None
    image: Text | None = None
    input_specs: dict[str, SpecBody] = Field(default_factory=dict)
    output_specs: dict[str, SpecBody] = Field(default_factory=dict)
    constraints: ConstraintsBody | None = None
    retry_policy: RetryPolicyBody | None = None
    event_delivery: EventDeliveryBody | None = None
    description: str | None = None
    timeouts: TimeoutsBody | None = None
    execution: ExecutionBody | None = None
    tags: list[Text] | None = None
    bundle: BundleBody | None = None
    concurrency: Json | None = None

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
    gpus: list[GpuBody] = Field(default_factory=list[GpuBody])


class AttemptName(Ours):
    run_id: str
    attempt: Attempt


class Heartbeat(Ours):
    instance: Text
    seq: int = Field(ge=1, description="rises with every heartbeat of this instance")
    host_id: Text
    resources: ResourcesBody
    tags: list[str] = Field(default_factory=list)
    engines: list[str] = Field(default_factory=list)
    version: str | None = None
    images: list[str] = Field(default_factory=list)
    holding: list[AttemptName] = Field(default_factory=list[AttemptName])


class ClaimBody(Ours):
    instance: Text
    known: list[AttemptName] = Field(default_factory=list[AttemptName])
    max: int = Field(1, ge=0, le=1000)
    wait_s: float = Field(0, ge=0, le=25)


class ReportedEvent(Ours):
    type: Event
    msg: Any = ""
    payload: Json | None = None
    at: Moment | None = None


class SummaryBody(Ours):
    gpu_ids: list[int] | None = None
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
