"""Asking for runs: ad hoc, or of a definition, to whose latest revision a run stays pinned."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from gyoza.models.definition import EventDelivery, OpDefinition, RetryPolicy, Timeouts
from gyoza.models.errors import DefinitionNotFound
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.models.run import DEFAULT_PRIORITY, ExecutionSummary, OpRun
from gyoza.policy.life import queue_at
from gyoza.store import bell, definitions, runs
from gyoza.store.database import Connection, Database
from gyoza.store.ids import new_id

IMAGE_ENGINES = ("docker",)
BUNDLE_ENGINES = ("docker", "process")


@dataclass(frozen=True)
class AdHoc:
    """A run of an image. `inputs` is the JSON object as it was received."""

    image: str
    inputs: Any = field(default_factory=dict[str, Any])
    priority: int = DEFAULT_PRIORITY
    constraints: Constraints = field(default_factory=Constraints)
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    event_delivery: EventDelivery | None = None


@dataclass(frozen=True)
class OfDefinition:
    """A run of a definition. `inputs` decoded, for the check; `raw` its members as they were received, for keeping."""

    name: str
    inputs: Mapping[str, Any]
    raw: Mapping[str, Any]
    version: str | None = None
    priority: int = DEFAULT_PRIORITY


async def submit_ad_hoc(database: Database, wanted: AdHoc, now: datetime) -> OpRun:
    new = runs.NewRun(
        id=new_id(now),
        created_at=now,
        queue_at=queue_at(now, wanted.priority),
        priority=wanted.priority,
        inputs=wanted.inputs,
        constraints=wanted.constraints,
        max_attempts=wanted.retry_policy.max_attempts,
        engines=IMAGE_ENGINES,
        image=wanted.image,
        event_delivery=wanted.event_delivery,
    )
    return await _keep(database, new)


async def submit_of_definition(database: Database, wanted: OfDefinition, now: datetime) -> OpRun:
    """Raises DefinitionNotFound, or InputValidationError with every fault."""
    async with database.connection() as connection:
        found = await definitions.latest(connection, wanted.name, wanted.version)
    if found is None:
        raise DefinitionNotFound(wanted.name, wanted.version)
    definition = OpDefinition.from_dict(msgspec.json.decode(found.content))
    checked = definition.input_specs.validate(wanted.inputs)
    new = runs.NewRun(
        id=new_id(now),
        created_at=now,
        queue_at=queue_at(now, wanted.priority),
        priority=wanted.priority,
        inputs={name: wanted.raw[name] if _given(wanted, name) else value for name, value in checked.items()},
        constraints=definition.constraints,
        max_attempts=definition.retry_policy.max_attempts,
        engines=BUNDLE_ENGINES if definition.bundle else IMAGE_ENGINES,
        image=definition.image,
        op_definition=found.name,
        revision=found.revision,
        version=found.version,
        event_delivery=definition.event_delivery,
        timeouts=definition.timeouts,
        tags=definition.tags,
    )
    return await _keep(database, new)


def _given(wanted: OfDefinition, name: str) -> bool:
    return wanted.inputs.get(name) is not None


async def _keep(database: Database, new: runs.NewRun) -> OpRun:
    async def work(connection: Connection) -> None:
        await runs.insert(connection, [new])
        await bell.ring(connection, [bell.QUEUE])

    await database.transact(work)
    return born(new)


def born(new: runs.NewRun) -> OpRun:
    """The run as it stands right after its creation, which writes no event."""
    return OpRun(
        id=new.id,
        state=OpRunState.PENDING,
        priority=new.priority,
        image=new.image,
        op_definition=new.op_definition,
        inputs=new.inputs,
        outputs=None,
        constraints=new.constraints,
        retry_policy=RetryPolicy(new.max_attempts),
        event_delivery=new.event_delivery,
        progress=0,
        current_attempt=1,
        events=(),
        execution_summary=ExecutionSummary(),
        created_at=new.created_at,
        updated_at=new.created_at,
        version=new.version,
        revision=new.revision,
        submitted_by=new.submitted_by,
        tags=new.tags,
        timeouts=new.timeouts or Timeouts(),
        queue_at=new.queue_at,
    )
