"""One attempt's work while it is done: what was assigned, what the steps made of it, and what ends it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from gyoza.client.http import AsyncGyozaClient
from gyoza.models.bundle import Bundle
from gyoza.models.definition import Execution, InputSpecs, Timeouts
from gyoza.models.resources import Constraints
from gyoza.worker.contact import Contact
from gyoza.worker.engines import Engine, Exit, Job, Ready, Running
from gyoza.worker.engines.log import LIMIT
from gyoza.worker.gpus import Gpus, Share
from gyoza.worker.reports import Lease, Telling
from gyoza.worker.shipping import Shipper
from gyoza.worker.spool import Spool
from gyoza.worker.vault import Vault

START_S = 60.0
"""Default of `timeouts.start_s`: from the engine being asked to start the program to its having started."""
LEAVING_GRACE_S = 2.0
"""The most that a program is given to end when the worker itself leaves and stops it."""


class Unreadable(Exception):
    """An assignment that this worker cannot read; `lease` is the part of it that it can."""

    def __init__(self, lease: Lease, detail: str):
        super().__init__(detail)
        self.lease = lease


class NotOurs(Exception):
    """The server says that this attempt is not, or no longer, this worker's."""


@dataclass(frozen=True)
class Assignment:
    """An attempt as the server hands it over. `inputs` are its members as they were received."""

    lease: Lease
    op_definition: str | None
    image: str | None
    image_digest: str | None
    bundle: Bundle | None
    inputs: Mapping[str, msgspec.Raw]
    input_specs: InputSpecs
    output_specs: InputSpecs
    constraints: Constraints
    gpu_ids: tuple[int, ...]
    execution: Execution
    timeouts: Timeouts

    @classmethod
    def from_json(cls, raw: msgspec.Raw) -> "Assignment":
        """Raises Unreadable for what this version of the worker does not understand."""
        slices = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        lease = Lease(*(msgspec.json.decode(slices[name]) for name in ("run_id", "attempt", "lease_token")))
        try:
            return cls._of(lease, slices)
        except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
            raise Unreadable(lease, str(error)) from error

    @classmethod
    def _of(cls, lease: Lease, slices: Mapping[str, msgspec.Raw]) -> "Assignment":
        data: dict[str, Any] = {name: msgspec.json.decode(slices[name]) for name in slices if name != "inputs"}
        return cls(
            lease=lease,
            op_definition=data["op_definition"],
            image=data["image"],
            image_digest=data["image_digest"],
            bundle=Bundle.from_dict(data["bundle"]) if data["bundle"] else None,
            inputs=msgspec.json.decode(slices["inputs"], type=dict[str, msgspec.Raw]),
            input_specs=InputSpecs.from_dict(data["input_specs"]),
            output_specs=InputSpecs.from_dict(data["output_specs"]),
            constraints=Constraints.from_dict(data["constraints"]),
            gpu_ids=tuple(data["gpu_ids"]),
            execution=Execution.from_dict(data["execution"]),
            timeouts=Timeouts.from_dict(data["timeouts"]),
        )

    @property
    def name(self) -> str:
        return f"{self.lease.run_id}-{self.lease.attempt}"


class Outcome(TypedDict):
    """What the program came to, as an event; read again, the members of its payload are as they were written."""

    type: str
    msg: str
    payload: dict[str, msgspec.Raw]


@dataclass(frozen=True)
class Begun:
    """What is kept before an engine is asked to start the program: whoever finds it takes hold of what was started.

    `boot`: of the machine. What was started before a crash of the machine did not end by itself.
    """

    engine: str
    ready: Ready
    boot: str


@dataclass(frozen=True)
class Place:
    """Where attempts are worked on: this worker's name, folder, engine, line to the server, GPUs and secrets."""

    worker: str
    folder: Path
    engine: Engine
    client: AsyncGyozaClient
    gpus: Gpus = field(default_factory=Gpus)
    log_limit: int = LIMIT
    """How many bytes the log of an attempt may have."""
    vault: Vault = field(default_factory=Vault)
    contact: Contact = field(default_factory=Contact)

    @cached_property
    def shipper(self) -> Shipper:
        return Shipper(self.client)

    @property
    def attempts(self) -> Path:
        """Where each attempt has its folder."""
        return self.folder / "attempts"


@dataclass
class Work:
    """Filled in on the way: `io_dir` by the step workspace, `secrets` and their folder by secrets, `job` and `ready` by
    image, `job.log` by logs, `running` by program; `end` once the program has ended, `outcome` (the event to tell) once
    it is known what it came to.

    A worker that was killed leaves an attempt behind. A later process of it enters the steps again: `begun` is set
    where the program may have been started already, `end` and `outcome` where they were known.
    """

    assignment: Assignment
    place: Place
    telling: Telling
    io_dir: Path = field(default_factory=Path)
    secrets: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    secrets_dir: Path | None = None
    job: Job | None = None
    ready: Ready | None = None
    running: Running | None = None
    end: Exit | None = None
    outcome: Mapping[str, Any] | None = None
    begun: Begun | None = None
    peak_vram_mb: int | None = None
    overuse: str | None = None
    """How much more GPU memory than declared it used, once that has ended it."""
    in_hand: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it is known what is left of the program that `begun` speaks of."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    stop_reason: str | None = None
    """Why this worker stops it itself: `drained`. None when it is the server that wants it stopped."""
    stop_message: str = ""
    in_haste: bool = False
    """This worker leaves: it has little time itself."""

    def __post_init__(self) -> None:
        self.telling.on_lost = self.stop
        self.begun = self.spool.recall("begun", Begun)
        self.end = self.spool.recall("end", Exit)
        self.outcome = self.spool.recall("outcome", Outcome)
        if why := self.spool.recall("stopped", tuple[str, str]):
            self.stop(*why)

    @property
    def spool(self) -> Spool:
        """What is kept of it on disk."""
        return self.telling.spool

    @property
    def folder(self) -> Path:
        """Its own on this host: what is kept of it, and what its program works with."""
        return self.place.attempts / self.assignment.name

    def stop(self, reason: str | None = None, message: str = "", *, in_haste: bool = False) -> bool:
        """Whether that is news; only the first word counts."""
        if self.stopped.is_set():
            return False
        self.stop_reason, self.stop_message, self.in_haste = reason, message, in_haste
        self.spool.keep(stopped=(reason, message) if reason else None)
        self.stopped.set()
        return True

    @property
    def is_unwanted(self) -> bool:
        """The server itself wanted it stopped."""
        return self.stopped.is_set() and self.stop_reason is None

    @property
    def grace_s(self) -> float:
        """Between SIGTERM and SIGKILL."""
        wanted = self.assignment.execution.cancel_grace_s
        return min(wanted, LEAVING_GRACE_S) if self.in_haste else wanted

    @property
    def has_gpus(self) -> bool:
        return bool(self.assignment.gpu_ids)

    @property
    def share(self) -> Share:
        """What it has of the GPUs."""
        pids = self.running.pids() if self.running else frozenset[int]()
        return Share(self.assignment.gpu_ids, self.assignment.constraints.counted.vram_mb, pids)

    @property
    def summary(self) -> dict[str, Any]:
        """From what it was run, which pins the run, and what is measured of the program once it has ended."""
        ready = {} if self.ready is None else {"image_digest": self.ready.digest}
        if self.end is None:
            return ready
        return ready | {
            "exit_code": self.end.exit_code,
            "signal": self.end.signal,
            "cpu_s": self.end.cpu_s,
            "peak_ram_mb": self.end.peak_ram_mb,
            "peak_vram_mb": self.peak_vram_mb,
        }
