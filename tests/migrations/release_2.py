"""What a server that knows the steps up to 0002 says of workers and attempts, word for word, where 0003 changes."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from . import release_1
from .release_1 import Row, _rows


class Server(release_1.Server):
    """One that was started before the next step. It speaks of workers as the one before it did, and of runs anew."""

    def change(self, now: datetime, run: Row, attempts: Sequence[Row], types: Sequence[str]) -> None:
        """A run that changes, as a server of the step before writes it, and what this one writes besides."""
        super().change(now, run, attempts, types)
        common = {"retry": None, "run_at": None, "due": True, "reason": None, "worker_id": None, "ended_at": None}
        self._say(
            """
            UPDATE runs SET run_at = new.run_at, due = new.due, reason = new.reason, worker_id = new.worker_id,
                ended_at = new.ended_at, delete_at = new.ended_at + make_interval(secs => runs.delete_after_s)
            FROM json_to_recordset(%s::json) AS new (
                id uuid, run_at timestamptz, due boolean, reason text, worker_id text, ended_at timestamptz)
            WHERE runs.id = new.id
            """,
            [_rows([{**common, **run}])],
        )

    def rooms(self) -> list[str]:
        """The ids of the workers that it gives runs to."""
        found = self._say(
            "SELECT id, resources, engines FROM workers WHERE evicted_at IS NULL AND NOT drain ORDER BY id", None
        )
        return [row[0] for row in found]

    def silent(self, limit: datetime) -> list[str]:
        found = self._say("SELECT id FROM workers WHERE evicted_at IS NULL AND seen_at < %s ORDER BY id", [limit])
        return [row[0] for row in found]

    def evict(self, worker: str, now: datetime) -> None:
        self._say("UPDATE workers SET evicted_at = %s WHERE id = %s", [now, worker])

    def drain(self, worker: str, drain: bool) -> None:
        self._say("UPDATE workers SET drain = %s WHERE id = %s", [drain, worker])

    def forget(self, worker: str, now: datetime) -> None:
        self._say(
            "UPDATE workers SET forgotten = true, evicted_at = coalesce(evicted_at, %s) WHERE id = %s", [now, worker]
        )

    def shown(self, worker: str) -> tuple[Any, ...]:
        """Whether it is drained, evicted, forgotten, of all that it reads."""
        (row,) = self._say(
            "SELECT id, instance, seq, host_id, resources, tags, engines, version, images, former, drain, "
            "registered_at, seen_at, evicted_at, forgotten FROM workers WHERE id = %s FOR NO KEY UPDATE",
            [worker],
        )
        return row[10], row[13] is not None, row[14]

    def overdue(self, now: datetime) -> list[str]:
        found = self._say(
            """
            SELECT run_id, attempt FROM attempts
            WHERE deadline IS NOT NULL AND finished_at IS NULL AND deadline <= %s ORDER BY deadline LIMIT %s
            """,
            [now, 1000],
        )
        return [str(row[0]) for row in found]
