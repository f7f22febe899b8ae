"""An attempt, from its assignment to its settled end: a short tuple of steps, each of which cleans up after itself.

The steps are entered in their order; then the program runs until it ends, its time is over, or it must stop; then they
are left in reverse. Only when all of them are left does the attempt count as settled: nothing of it runs any more.
"""

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from gyoza.models.errors import AttemptError
from gyoza.worker.engines import Exit
from gyoza.worker.steps.events import events
from gyoza.worker.steps.image import image
from gyoza.worker.steps.inputs import inputs
from gyoza.worker.steps.outputs import collect, said_error
from gyoza.worker.steps.program import program
from gyoza.worker.steps.taken_up import taken_up
from gyoza.worker.steps.workspace import workspace
from gyoza.worker.work import NotOurs, Work

STEPS = (taken_up, workspace, inputs, image, program, events)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """What is reported last. No event where the server knows the end already, because it wanted it."""

    event: dict[str, Any] | None = None
    summary: dict[str, Any] = field(default_factory=dict[str, Any])


async def run(work: Work) -> None:
    """Never raises but CancelledError; returns when the server has heard the end, or does not want to."""
    ending = await _ended(work)
    told = [ending.event] if ending.event else []
    verdict = await work.telling.tell(*told, summary=ending.summary, settled=True)
    if not verdict.ok and told:
        await _told_again(work, verdict.code, verdict.detail, ending)


async def _ended(work: Work) -> Ending:
    working = asyncio.create_task(_worked(work))
    stopping = asyncio.create_task(_stop_before_start(work, working))
    try:
        return await working
    except asyncio.CancelledError:
        if not work.stopped.is_set():
            raise
        return _stopped(work)
    except NotOurs:
        return Ending()
    except AttemptError as error:
        return _failed(error.reason, error.detail)
    except Exception:
        _log.exception("%s: the worker failed on this attempt", work.assignment.name)
        return _failed("start_failed", "The worker failed on this attempt; its log says more")
    finally:
        stopping.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)


async def _worked(work: Work) -> Ending:
    async with AsyncExitStack() as stack:
        for step in STEPS:
            await stack.enter_async_context(step(work))
        return await _run_out(work)


async def _run_out(work: Work) -> Ending:
    """Wait for the end of the program, whoever brings it about."""
    assert work.running is not None
    waiting = asyncio.create_task(work.running.wait())
    halt = asyncio.create_task(work.stopped.wait())
    try:
        await asyncio.wait([waiting, halt], timeout=work.assignment.timeouts.run_s, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return await _judged(work, waiting.result())
        await work.running.stop(work.assignment.execution.cancel_grace_s)
        summary = _summary(await waiting)
    finally:
        halt.cancel()
        waiting.cancel()
    if halt.done() and not halt.cancelled():
        return _stopped(work, summary)
    return _failed("run_timeout", f"It ran longer than {work.assignment.timeouts.run_s} s", summary)


async def _judged(work: Work, end: Exit) -> Ending:
    """What a program that ended by itself came to."""
    summary = _summary(end)
    if end.oom_killed:
        limit = work.job.ram_mb if work.job else 0
        return _failed("oom_killed", f"It used more than its {limit} MB of memory (constraints.ram_mb)", summary, end)
    if end.exit_code != 0:
        message, retryable = await said_error(work, end)
        return _failed("op_error", message, summary, end, **({} if retryable is None else {"retryable": retryable}))
    outputs = await collect(work)
    return Ending({"type": "COMPLETED", "msg": "Completed", "payload": {"outputs": outputs}}, summary)


def _stopped(work: Work, summary: dict[str, Any] | None = None) -> Ending:
    if work.stop_reason is None:
        return Ending(None, summary or {})
    return _failed(work.stop_reason, "The worker was stopped before the run had ended", summary)


def _failed(
    reason: str, message: str, summary: dict[str, Any] | None = None, end: Exit | None = None, **more: Any
) -> Ending:
    code = {} if end is None else {"exit_code": end.exit_code, "signal": end.signal}
    payload = {"error_message": message, "reason": reason, **code, **more}
    return Ending({"type": "FAILED", "msg": message, "payload": payload}, summary or {})


def _summary(end: Exit) -> dict[str, Any]:
    return {
        "exit_code": end.exit_code,
        "signal": end.signal,
        "cpu_s": end.cpu_s,
        "peak_ram_mb": end.peak_ram_mb,
    }


async def _stop_before_start(work: Work, working: asyncio.Task[Ending]) -> None:
    """What is stopped while it is still being prepared is not waited for."""
    lost = asyncio.create_task(work.telling.lost.wait())
    stopped = asyncio.create_task(work.stopped.wait())
    try:
        await asyncio.wait([lost, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        lost.cancel()
        stopped.cancel()
    work.stop()
    if work.running is None:
        working.cancel()


async def _told_again(work: Work, code: str | None, detail: str | None, ending: Ending) -> None:
    """An ending that was refused: for its outputs, it becomes a failure; for being late, only the settling counts."""
    if code == "malformed":
        failed = _failed("invalid_output", f"The server refused the outputs: {detail or code}")
        verdict = await work.telling.tell(*([failed.event] if failed.event else []), settled=True)
        if verdict.ok:
            return
    await work.telling.tell(summary=ending.summary, settled=True)
