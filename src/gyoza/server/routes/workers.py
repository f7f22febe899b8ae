"""Workers: they register, claim and report; people list, drain and remove them."""

from typing import Any

import msgspec
from fastapi import Request, Response

from gyoza.control import claim, heartbeat, report, workforce
from gyoza.control.heartbeat import Registration
from gyoza.models.errors import Malformed, NotRegistered, Superseded, WorkerNameTaken, WorkerNotFound
from gyoza.models.resources import Resources
from gyoza.models.run import ExecutionSummary
from gyoza.models.strictjson import NESTING, check, parse, read
from gyoza.server.answers import ClaimedOut, HeardOut, ResultsOut, WorkerOut
from gyoza.server.context import ADMIN, READ, WORKER, Routes, context
from gyoza.server.schemas import AttemptName, ClaimBody, Heartbeat, ReportBody, ReportsBody
from gyoza.server.wire import Answer, checked, happening, members, read_body

router = Routes("workers")

_WRAPPING = 4
"""Levels around the outputs that a report holds: itself, its events, the event, its payload."""


@router.hot(
    "PUT", "/workers/{worker_id}", WORKER, body=Heartbeat, answer=HeardOut, refuses=(WorkerNameTaken, Superseded)
)
async def register_worker(request: Request) -> Response:
    """Register, and say with every heartbeat what the worker has and holds."""
    said = checked(Heartbeat, parse(await read_body(request)))
    worker_id, server = request.path_params["worker_id"], context(request)
    registration = Registration(
        worker_id=worker_id,
        instance=said.instance,
        seq=said.seq,
        host_id=said.host_id,
        resources=Resources.from_dict(said.resources.model_dump()),
        tags=said.tags,
        engines=said.engines,
        version=said.version,
        images=said.images,
    )
    heard = await heartbeat.heartbeat(server.database, registration, _names(said.holding), server.pace, server.now())
    pace = {"heartbeat_s": server.pace.heartbeat_s, "lease_s": server.pace.lease_s}
    return Answer({**pace, "drain": heard.drain, "stop": [stop.to_dict() for stop in heard.stop]})


@router.hot(
    "POST", "/workers/{worker_id}/claim", WORKER, body=ClaimBody, answer=ClaimedOut, refuses=(NotRegistered, Superseded)
)
async def claim_attempts(request: Request) -> Response:
    """What is assigned to this worker and not known to it yet; waits up to `wait_s` for something to say."""
    said = checked(ClaimBody, parse(await read_body(request)))
    worker_id, server = request.path_params["worker_id"], context(request)
    wanted = claim.Claim(worker_id, said.instance, _names(said.known), said.max, said.wait_s)
    return Answer((await claim.claim(server.database, server.bell, wanted)).to_dict())


@router.hot(
    "POST",
    "/workers/{worker_id}/reports",
    WORKER,
    body=ReportsBody,
    answer=ResultsOut,
    refuses=(NotRegistered, Superseded),
)
async def report_attempts(request: Request) -> Response:
    """What happened to attempts, judged one by one."""
    body = await read_body(request)
    value = read(body)
    check({**value, "reports": None} if isinstance(value, dict) else value)
    said, server = checked(ReportsBody, value), context(request)
    worker_id = request.path_params["worker_id"]
    await claim.check_instance(server.database, worker_id, said.instance)
    judged = [_report(worker_id, each, raw) for each, raw in zip(said.reports, _slices(body, value), strict=True)]
    taken = [each for each in judged if isinstance(each, report.Report)]
    results = iter(await report.report(server.database, taken, server.now()))
    return Answer(
        {"results": [(next(results).to_dict() if isinstance(each, report.Report) else each) for each in judged]}
    )


@router.call("GET", "/workers", READ, answer=list[WorkerOut])
async def list_workers(request: Request) -> Response:
    """Every worker that is not removed, the lost ones too."""
    server = context(request)
    found = await workforce.every(server.database, server.pace, server.now())
    return Answer([staff.to_dict() for staff in found])


@router.call("GET", "/workers/{worker_id}", READ, WORKER, answer=WorkerOut, refuses=(WorkerNotFound,))
async def get_worker(request: Request, worker_id: str) -> Response:
    """One worker, with the room it has left."""
    return await _shown(request, worker_id)


@router.call("POST", "/workers/{worker_id}/drain", ADMIN, answer=WorkerOut, refuses=(WorkerNotFound,))
async def drain_worker(request: Request, worker_id: str) -> Response:
    """Give it nothing new; what it runs goes on."""
    server = context(request)
    await workforce.drain(server.database, worker_id, server.now())
    return await _shown(request, worker_id)


@router.call("POST", "/workers/{worker_id}/resume", ADMIN, answer=WorkerOut, refuses=(WorkerNotFound,))
async def resume_worker(request: Request, worker_id: str) -> Response:
    """Give it work again, whether it was drained or is in quarantine."""
    server = context(request)
    await workforce.resume(server.database, worker_id, server.now())
    return await _shown(request, worker_id)


@router.call("DELETE", "/workers/{worker_id}", ADMIN, WORKER, status=204, refuses=(WorkerNotFound,))
async def remove_worker(request: Request, worker_id: str) -> Response:
    """Forget it; what it still holds goes back to the queue."""
    server = context(request)
    await workforce.remove(server.database, worker_id, server.now())
    return Response(status_code=204)


async def _shown(request: Request, worker_id: str) -> Response:
    server = context(request)
    return Answer((await workforce.one(server.database, worker_id, server.pace, server.now())).to_dict())


def _names(names: list[AttemptName]) -> frozenset[tuple[str, int]]:
    return frozenset((name.run_id, name.attempt) for name in names)


def _slices(body: bytes, value: Any) -> list[msgspec.Raw]:
    """Each report as the text that was received. What cannot even be sliced fails all of them, by its place."""
    try:
        return msgspec.json.decode(members(body)["reports"], type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        check(value)
        raise


def _report(worker_id: str, value: Any, raw: msgspec.Raw) -> report.Report | dict[str, Any]:
    """The report, or the result that says why it is none: a misshapen one never fails its neighbours."""
    try:
        check(value, NESTING + _WRAPPING)
        said = checked(ReportBody, value)
    except Malformed as refusal:
        kept = members(raw) if isinstance(value, dict) else {}
        place = {name: kept.get(name) for name in ("run_id", "attempt", "seq")}
        return {**place, "ok": False, "code": refusal.code, "state": None, "detail": refusal.detail}
    events = msgspec.json.decode(members(raw).get("events", b"[]"), type=list[dict[str, msgspec.Raw]])
    return report.Report(
        worker_id=worker_id,
        run_id=said.run_id,
        attempt=said.attempt,
        lease=said.lease_token,
        seq=said.seq,
        events=[
            happening(event.type, event.msg, event.payload, kept.get("payload"), event.at)
            for event, kept in zip(said.events, events, strict=True)
        ],
        summary=ExecutionSummary.from_dict(said.summary.model_dump()) if said.summary else None,
        declined=said.declined,
        settled=said.settled,
    )
