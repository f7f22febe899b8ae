"""Asking for runs, one or ten thousand: ad hoc, of a definition, or once more what was asked for before.

A run of a definition stays pinned to the revision that was the latest when it was asked for.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from gyoza.control.once import Asked, once
from gyoza.models.definition import EventDelivery, OpDefinition, RetryPolicy, Timeouts
from gyoza.models.errors import DefinitionDisabled, DefinitionNotFound, Fault, InputValidationError, Malformed, Refusal
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.models.run import DEFAULT_PRIORITY, ExecutionSummary, OpRun
from gyoza.models.strictjson import pointer, within
from gyoza.store import bell, definitions, new_runs
from gyoza.store.database import Connection, Database
from gyoza.store.definitions import as_definition
from gyoza.store.idempotency import Reply
from gyoza.store.ids import new_id
from gyoza.store.new_runs import NewRun

IMAGE_ENGINES = ("docker",)
BUNDLE_ENGINES = ("docker", "process")


@dataclass(frozen=True)
class Options:
    """What may be said of any run. `timeouts` and `retry_policy` hold the members that were given."""

    priority: int = DEFAULT_PRIORITY
    tags: Sequence[str] = ()
    run_at: datetime | None = None
    timeouts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    retry_policy: Mapping[str, Any] = field(default_factory=dict[str, Any])
    delete_after_s: float | None = None


@dataclass(frozen=True)
class AdHoc:
    """A run of an image. `inputs` is the JSON object as it was received."""

    image: str
    inputs: Any = field(default_factory=dict[str, Any])
    options: Options = field(default_factory=Options)
    constraints: Constraints = field(default_factory=Constraints)
    event_delivery: EventDelivery | None = None


@dataclass(frozen=True)
class OfDefinition:
    """A run of a definition. `inputs` decoded, for the check; `raw` its members as they were received, for keeping."""

    name: str
    inputs: Mapping[str, Any]
    raw: Mapping[str, Any]
    version: str | None = None
    options: Options = field(default_factory=Options)


Wanted = AdHoc | OfDefinition
Definitions = Mapping[tuple[str, str | None], OpDefinition]
"""What is meant by a name and a version; what is not there is absent."""
Render = Callable[[Sequence[OpRun]], Reply]
"""How the runs that were made are answered."""


async def submit(
    database: Database, wanted: Wanted, by: str, render: Render, now: datetime, asked: Asked | None = None
) -> Reply:
    """Raises DefinitionNotFound, DefinitionDisabled, or InputValidationError with every fault."""

    async def work(connection: Connection) -> Reply:
        found = await _definitions(connection, [wanted])
        return await keep(connection, [_drawn(new_id(now), wanted, found, by, now)], render)

    return await once(database, asked, work, now)


async def submit_all(
    database: Database, wanted: Sequence[Wanted], by: str, render: Render, now: datetime, asked: Asked | None = None
) -> Reply:
    """All of them or none: Malformed names each item that is refused, and why.

    They stand in the queue and in lists in the order in which they were asked for. Another thread draws them, since
    thousands take long enough for others to notice.
    """

    async def work(connection: Connection) -> Reply:
        found = await _definitions(connection, wanted)
        return await keep(connection, await asyncio.to_thread(_drawn_all, wanted, found, by, now), render)

    return await once(database, asked, work, now)


async def _definitions(connection: Connection, wanted: Sequence[Wanted]) -> Definitions:
    named = {(each.name, each.version) for each in wanted if isinstance(each, OfDefinition)}
    return {
        (name, version): as_definition(found)
        for name, version in named
        if (found := await definitions.latest(connection, name, version))
    }


def _drawn_all(wanted: Sequence[Wanted], found: Definitions, by: str, now: datetime) -> list[NewRun]:
    drawn: list[NewRun] = []
    faults: list[Fault] = []
    ids = sorted(new_id(now) for _ in wanted)
    for index, (run_id, each) in enumerate(zip(ids, wanted, strict=True)):
        try:
            drawn.append(_drawn(run_id, each, found, by, now))
        except InputValidationError as refusal:
            faults += within(refusal.faults, "runs", index)
        except Refusal as refusal:
            faults.append(Fault(pointer("runs", index), refusal.detail, refusal.code))
    if faults:
        raise Malformed(faults)
    return drawn


def _drawn(run_id: str, wanted: Wanted, found: Definitions, by: str, now: datetime) -> NewRun:
    if isinstance(wanted, AdHoc):
        return _of_image(run_id, wanted, by, now)
    if (wanted.name, wanted.version) not in found:
        raise DefinitionNotFound(wanted.name, wanted.version)
    return _of_revision(run_id, wanted, found[wanted.name, wanted.version], by, now)


def _of_image(run_id: str, wanted: AdHoc, by: str, now: datetime) -> NewRun:
    return NewRun(
        id=run_id,
        created_at=now,
        submitted_by=by,
        image=wanted.image,
        inputs=wanted.inputs,
        constraints=wanted.constraints,
        engines=IMAGE_ENGINES,
        event_delivery=wanted.event_delivery,
        **_chosen(wanted.options, RetryPolicy(), Timeouts()),
    )


def _of_revision(run_id: str, wanted: OfDefinition, definition: OpDefinition, by: str, now: datetime) -> NewRun:
    if definition.disabled:
        raise DefinitionDisabled(definition.id)
    checked = definition.input_specs.validate(wanted.inputs)
    options = wanted.options
    inherited = replace(
        options,
        tags=list(dict.fromkeys([*definition.tags, *options.tags])),
        delete_after_s=definition.delete_after_s if options.delete_after_s is None else options.delete_after_s,
    )
    return NewRun(
        id=run_id,
        created_at=now,
        submitted_by=by,
        image=definition.image,
        op_definition=definition.id,
        revision=definition.revision,
        version=definition.version,
        inputs={name: wanted.raw[name] if _given(wanted, name) else value for name, value in checked.items()},
        constraints=definition.constraints,
        engines=_engines(definition),
        event_delivery=definition.event_delivery,
        **_chosen(inherited, definition.retry_policy, definition.timeouts),
    )


def _engines(definition: OpDefinition) -> Sequence[str]:
    """Plain processes run bundles, and can neither take the network away nor become another user."""
    asks_for_a_container = not definition.execution.network or definition.execution.user is not None
    return BUNDLE_ENGINES if definition.bundle and not asks_for_a_container else IMAGE_ENGINES


def _chosen(options: Options, retry_policy: RetryPolicy, timeouts: Timeouts) -> dict[str, Any]:
    """The members of a run that its options decide, over what they inherit."""
    return {
        "priority": options.priority,
        "tags": options.tags,
        "run_at": options.run_at,
        "retry_policy": replace(retry_policy, **options.retry_policy),
        "timeouts": replace(timeouts, **options.timeouts),
        "delete_after_s": options.delete_after_s,
    }


def _given(wanted: OfDefinition, name: str) -> bool:
    return wanted.inputs.get(name) is not None


async def keep(connection: Connection, new: Sequence[NewRun], render: Render) -> Reply:
    """Within a transaction: the runs are there, and the queue hears of them."""
    await new_runs.insert(connection, new)
    await bell.ring(connection, [bell.QUEUE])
    return render([born(each) for each in new])


def born(new: NewRun) -> OpRun:
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
        retry_policy=new.retry_policy,
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
        run_at=new.run_at,
        timeouts=new.timeouts,
        queue_at=new.queue_at,
        delete_after_s=new.delete_after_s,
        replay_of=new.replay_of,
    )
