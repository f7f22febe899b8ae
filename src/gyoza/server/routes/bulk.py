"""Many runs at once: asked for, cancelled, retried."""

import asyncio
from typing import Annotated

from fastapi import Query, Request, Response

from gyoza.control import bulk, submit
from gyoza.models.errors import InvalidQuery
from gyoza.server import submission
from gyoza.server.answers import BatchOut, SweptOut
from gyoza.server.context import SUBMIT, Routes, caller, context
from gyoza.server.narrowing import Meant
from gyoza.server.repeats import answered, asked
from gyoza.server.schemas import Batch
from gyoza.server.wire import Answer, read_body

router = Routes("runs")

DryRun = Annotated[bool, Query(description="only say how many there are")]


@router.hot("POST", "/runs/batch", SUBMIT, body=Batch, answer=BatchOut, status=201, repeats=True)
async def create_runs(request: Request) -> Response:
    """Create many runs.

    Up to 10,000, all or none of them; refused items are named by their place.
    """
    body, server = await read_body(request), context(request)
    wanted = await asyncio.to_thread(submission.batch, body)  # so large a body would hold up everybody else
    by, once = caller(request).name, asked(request, body)
    return answered(await submit.submit_all(server.database, wanted, by, submission.many, server.now(), once))


@router.call("POST", "/runs/cancel", SUBMIT, answer=SweptOut, refuses=(InvalidQuery,), no_empty=True)
async def cancel_runs(request: Request, filters: Meant, dry_run: DryRun = False) -> Response:
    """Cancel all that the filters find.

    They are those of GET /runs; at least one is needed, and here an empty or unknown one is refused.
    """
    server = context(request)
    return Answer((await bulk.cancel_all(server.database, filters, server.now(), dry_run=dry_run)).to_dict())


@router.call("POST", "/runs/retry", SUBMIT, answer=SweptOut, refuses=(InvalidQuery,), no_empty=True)
async def retry_runs(request: Request, filters: Meant, dry_run: DryRun = False) -> Response:
    """Retry all that the filters find and that FAILED or were CANCELLED.

    They are those of GET /runs; at least one is needed, and here an empty or unknown one is refused.
    """
    server = context(request)
    return Answer((await bulk.retry_all(server.database, filters, server.now(), dry_run=dry_run)).to_dict())
