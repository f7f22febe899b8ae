"""Asking once more for what was asked for before, as a new run: the same image or revision, the same inputs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from gyoza.control.once import Asked, once
from gyoza.control.submit import Render, keep
from gyoza.models.errors import DefinitionDisabled, DefinitionNotFound, RunNotFound
from gyoza.models.run import is_run_id
from gyoza.store import definitions, new_runs
from gyoza.store.database import Connection, Database
from gyoza.store.idempotency import Reply
from gyoza.store.ids import new_id
from gyoza.store.new_runs import NewRun


async def replay(
    database: Database,
    run_id: str,
    changed: Mapping[str, Any],
    by: str,
    render: Render,
    now: datetime,
    asked: Asked | None = None,
) -> Reply:
    """`changed`: the options that are to differ. Raises RunNotFound, or what a submission of its definition raises."""

    async def work(connection: Connection) -> Reply:
        before = await new_runs.read(connection, run_id) if is_run_id(run_id) else None
        if before is None:
            raise RunNotFound(run_id)
        await _check_definition(connection, before)
        new = replace(before, id=new_id(now), created_at=now, submitted_by=by, replay_of=run_id)
        return await keep(connection, [replace(new, **_merged(before, changed))], render)

    return await once(database, asked, work, now)


def _merged(before: NewRun, changed: Mapping[str, Any]) -> dict[str, Any]:
    """Members of the retry policy and of the time-outs change one by one."""
    return {
        name: replace(getattr(before, name), **value) if name in ("retry_policy", "timeouts") else value
        for name, value in changed.items()
    }


async def _check_definition(connection: Connection, before: NewRun) -> None:
    """It may be another revision that is the latest now, but the op must still be there to run."""
    if (name := before.op_definition) is None:
        return
    latest = await definitions.latest(connection, name)
    if latest is None:
        raise DefinitionNotFound(name)
    if latest.disabled:
        raise DefinitionDisabled(name)
