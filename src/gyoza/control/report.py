"""What workers report, judged one by one and written together.

A report binds to its attempt by a lease, and comes from the worker that holds it. It is applied whole or not at all;
one that was applied before answers ok and changes nothing; one that comes too late is refused and changes nothing,
however late it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from gyoza.control.change import Change, change_all
from gyoza.models.errors import LeaseLost, Refusal
from gyoza.models.lifecycle import OpRunState
from gyoza.models.reasons import Reason
from gyoza.models.run import ExecutionSummary
from gyoza.policy.life import Happening, Life, acknowledge, is_live, leased, reported, settle, take_back
from gyoza.store.database import Connection, Database


@dataclass(frozen=True)
class Report:
    """What a worker says. `seq` rises per attempt. `declined`: it never started it. `settled`: nothing of it runs."""

    worker_id: str
    run_id: str
    attempt: int
    lease: str
    seq: int
    events: Sequence[Happening] = ()
    summary: ExecutionSummary | None = None
    declined: bool = False
    settled: bool = False


@dataclass(frozen=True)
class Result:
    """`code` and `detail` are those of the refusal; `state` is the run's state now, None when there is no such run."""

    run_id: str
    attempt: int
    seq: int
    ok: bool
    code: str | None
    state: OpRunState | None
    detail: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}


async def report(database: Database, reports: Sequence[Report], now: datetime) -> list[Result]:
    async def work(connection: Connection) -> list[Result]:
        changes = [Change(each.run_id, _Judgement(each), each.attempt) for each in reports]
        outcomes, lives = await change_all(connection, changes, now)
        return [_result(each, outcome, lives.get(each.run_id)) for each, outcome in zip(reports, outcomes, strict=True)]

    return await database.transact(work)


@dataclass(frozen=True)
class _Judgement:
    report: Report

    def __call__(self, life: Life, now: datetime) -> Life:
        report = self.report
        held = leased(life, report.attempt, report.lease)
        if held.held_by != report.worker_id:
            raise LeaseLost(life.run_id, report.attempt)
        if report.seq <= held.last_report:
            return life
        if not (report.settled or report.declined or is_live(life, report.attempt)):
            raise LeaseLost(life.run_id, report.attempt)
        life = acknowledge(life, report.attempt, now)
        for event in report.events:
            life = reported(life, report.attempt, event, now)
        if report.declined:
            life = take_back(life, report.attempt, Reason.DECLINED, "The worker declined it", now)
        if report.declined or report.settled:
            life = settle(life, report.attempt, now)
        return _measured(life, report)


def _measured(life: Life, report: Report) -> Life:
    tried = life.tries[report.attempt]
    measured = {
        name: value for name, value in (report.summary or ExecutionSummary()).to_dict().items() if value is not None
    }
    return life.with_try(replace(tried, last_report=report.seq, summary=replace(tried.summary, **measured)))


def _result(report: Report, outcome: Life | Refusal, life: Life | None) -> Result:
    refusal = outcome if isinstance(outcome, Refusal) else None
    code, detail = (refusal.code, refusal.detail) if refusal else (None, None)
    state = life.state if life else None
    return Result(report.run_id, report.attempt, report.seq, refusal is None, code, state, detail)
