"""An attempt, from its assignment to its settled end: a short tuple of steps, each of which cleans up after itself.

The steps are entered in their order; then the program runs until it ends, its time is over, or it must stop; then they
are left in reverse. Only when all of them are left does the attempt count as settled: nothing of it runs any more.
Whoever wants it stopped cancels whatever is going on just then, be it a download, the program or an upload.

What a worker that was killed left behind, its next process enters again from the first step on: each step knows by
what was kept on disk what there is already. What the program came to is kept before anything of it is removed.
"""

import asyncio
import errno
import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from gyoza.models.errors import AttemptError
from gyoza.worker.engines.cleanup import to_the_end
from gyoza.worker.reports import Verdict
from gyoza.worker.steps.events import events
from gyoza.worker.steps.image import image
from gyoza.worker.steps.inputs import inputs
from gyoza.worker.steps.logs import logs
from gyoza.worker.steps.outputs import collect, said_error
from gyoza.worker.steps.program import program
from gyoza.worker.steps.remains import remains
from gyoza.worker.steps.secrets import secrets
from gyoza.worker.steps.server_lost import server_lost
from gyoza.worker.steps.taken_up import taken_up
from gyoza.worker.steps.vram import vram
from gyoza.worker.steps.workspace import workspace
from gyoza.worker.work import NotOurs, Work

STEPS = (taken_up, workspace, remains, server_lost, secrets, inputs, image, logs, program, vram, events)
LONGEST_MESSAGE = 8000
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNFIT = ("malformed", "too_large")

Event = Mapping[str, Any]

_log = logging.getLogger(__name__)


async def run(work: Work) -> None:
    """Never raises but CancelledError; returns when the server has heard the end, or does not want to."""
    verdict = await (work.telling.last_word or await _last_word(work))
    if not verdict.ok:
        await _tell_again(work, verdict)


async def _last_word(work: Work) -> asyncio.Task[Verdict]:
    return work.telling.tell(*await _ending(work), summary=work.summary, settled=True)


async def _ending(work: Work) -> list[Event]:
    """What is told last, once nothing of it runs; no event where the server knows the end already."""
    working = asyncio.create_task(_worked(work))
    stopping = asyncio.create_task(_cancel_when_stopped(work, working))
    try:
        await asyncio.wait({working})
    finally:
        working.cancel()
        stopping.cancel()
        await to_the_end(_over(working, stopping))
    return _told_of(work, working)


async def _worked(work: Work) -> Event:
    async with AsyncExitStack() as stack:
        try:
            for step in STEPS:
                await stack.enter_async_context(step(work))
        except AttemptError as error:
            work.outcome = work.outcome or _failed(work, error.reason, error.detail)
        if work.outcome is None:
            work.outcome = await _outcome(work)
            work.spool.keep(outcome=work.outcome, end=work.end)
            await work.spool.sync()
    return work.outcome


async def _outcome(work: Work) -> Event:
    try:
        await _run_out(work)
        return await _came_to(work)
    except AttemptError as error:
        return _failed(work, error.reason, error.detail)


async def _run_out(work: Work) -> None:
    """Until the program has ended: by itself, because its time is over, or because it must stop."""
    assert work.running is not None
    run_s = work.assignment.timeouts.run_s
    try:
        async with asyncio.timeout(run_s and run_s - work.running.ran_s):
            work.end = await work.running.wait()
    except TimeoutError as error:
        late = AttemptError("run_timeout", f"It ran longer than {run_s:g} s (timeouts.run_s)")
        work.outcome = _failed(work, late.reason, late.detail)  # whatever comes in between while it is stopped
        work.spool.keep(outcome=work.outcome)
        await _stop(work)
        raise late from error
    except asyncio.CancelledError:
        if work.stopped.is_set():
            await _stop(work)
        raise


async def _stop(work: Work) -> None:
    assert work.running is not None
    await work.running.stop(work.grace_s)
    work.end = await work.running.wait()


async def _came_to(work: Work) -> Event:
    """What a program that ended by itself came to."""
    assert work.job is not None and work.end is not None
    if work.overuse is not None:
        raise AttemptError("gpu_memory_exceeded", work.overuse)
    if work.end.oom_killed:
        limit = f"{work.job.ram_mb} MB of memory (constraints.ram_mb)"
        raise AttemptError("oom_killed", f"It used more than its {limit}")
    if work.end.exit_code != 0:
        message, retryable = await said_error(work, work.end)
        return _failed(work, "op_error", message, **({} if retryable is None else {"retryable": retryable}))
    return {"type": "COMPLETED", "msg": "Completed", "payload": {"outputs": await collect(work)}}


async def _cancel_when_stopped(work: Work, working: asyncio.Task[Event]) -> None:
    """What an earlier process started is stopped once it is in hand: gently, and its last words are heard."""
    await work.stopped.wait()
    if work.begun is not None:
        await work.in_hand.wait()
    working.cancel()


async def _over(*tasks: asyncio.Task[Any]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _told_of(work: Work, worked: asyncio.Task[Event]) -> list[Event]:
    """The end of the work as an event: what it came to, be it cleaned up in peace or not, or what went wrong."""
    try:
        return [worked.result()]
    except (asyncio.CancelledError, NotOurs):
        if work.outcome is not None:
            return [work.outcome]
        return [_failed(work, work.stop_reason, work.stop_message)] if work.stop_reason else []
    except AttemptError as error:
        return [work.outcome or _failed(work, error.reason, error.detail)]
    except Exception as error:
        _log.exception("%s: the worker failed on this attempt", work.assignment.name)
        if work.outcome is not None:
            return [work.outcome]
        reason = "disk_full" if getattr(error, "errno", None) in _DISK_FULL else "start_failed"
        return [_failed(work, reason, f"The worker failed on this attempt, and its log says more: {error}")]


def _failed(work: Work, reason: str, message: str, **more: Any) -> Event:
    """Its message may come from the op: it is cut and cleaned so that the server can keep it, secrets first."""
    message = work.telling.redactor.whole(message)
    message = message.encode(errors="replace").decode().replace("\0", "")[:LONGEST_MESSAGE]
    code = {"exit_code": work.end.exit_code, "signal": work.end.signal} if work.end else {}
    return {"type": "FAILED", "msg": message, "payload": {"error_message": message, "reason": reason, **code, **more}}


async def _tell_again(work: Work, verdict: Verdict) -> None:
    """An ending that was refused: for its outputs, it becomes a failure; for being late, only the settling counts."""
    if verdict.code in _UNFIT:
        failed = _failed(work, "invalid_output", f"The server refused the outputs: {verdict.detail or verdict.code}")
        verdict = await work.telling.tell(failed, summary=work.summary, settled=True)
    if not verdict.ok:
        await work.telling.tell(summary=work.summary, settled=True)
