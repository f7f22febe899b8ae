"""One attempt's work while it is done: what was assigned, what the steps made of it, and what ends it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from gyoza.client.http import AsyncGyozaClient
from gyoza.models.bundle import Bundle
from gyoza.models.definition import Execution, InputSpecs, Timeouts
from gyoza.models.resources import Constraints
from gyoza.worker.engines import Engine, Job, Ready, Running
from gyoza.worker.reports import Lease, Telling

START_S = 60.0
"""Default of `timeouts.start_s`: from the engine being asked to start the program to its having started."""


class NotOurs(Exception):
    """The server says that this attempt is not, or no longer, this worker's."""


@dataclass(frozen=True)
class Assignment:
    """An attempt as the server hands it over. `inputs` are its members as they were received."""

    lease: Lease
    image: str | None
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
        data: dict[str, Any] = msgspec.json.decode(raw)
        slices = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return cls(
            lease=Lease(data["run_id"], data["attempt"], data["lease_token"]),
            image=data["image"],
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


@dataclass(frozen=True)
class Place:
    """Where attempts are worked on: this worker's name, folder, engine, and its line to the server."""

    worker: str
    folder: Path
    engine: Engine
    client: AsyncGyozaClient


@dataclass
class Work:
    """Filled in by the steps: `io_dir` by workspace, `job` and `ready` by image, `running` by program."""

    assignment: Assignment
    place: Place
    telling: Telling
    io_dir: Path = field(default_factory=Path)
    job: Job | None = None
    ready: Ready | None = None
    running: Running | None = None
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    stop_reason: str | None = None
    """Why this worker stops it itself: `drained`. None when it is the server that wants it stopped."""

    def stop(self, reason: str | None = None) -> None:
        if not self.stopped.is_set():
            self.stop_reason = reason
            self.stopped.set()
