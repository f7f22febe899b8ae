"""Reports: batched by arrival, in order, within the server's bounds, told until they are judged."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gyoza.client.errors import ResponseError
from gyoza.client.http import AsyncGyozaClient
from gyoza.worker.reports import MOST_BYTES, MOST_IN_BATCH, Lease, Reports, Telling, Verdict
from gyoza.worker.spool import FILE, Spool

from .cluster import KEY, URL, Cluster, Line, Object

SERVER_BOUND = 16 * 2**20


@pytest.fixture
async def reports(cluster: Cluster, line: Line) -> AsyncIterator[Reports]:
    """A second sender under the name of the cluster's worker, on the same line."""
    async with AsyncGyozaClient(URL, KEY, transport=line) as client:
        reports = Reports(client, "one", cluster.identity.instance)
        sending = asyncio.create_task(reports.run())
        yield reports
        sending.cancel()
        with suppress(asyncio.CancelledError, ResponseError):
            await sending


def report(seq: int = 1, *events: Object, run_id: str | None = None) -> Object:
    """Of a run that nobody knows."""
    name = {"run_id": run_id or str(uuid4()), "attempt": 1, "lease_token": "none"}
    return {**name, "seq": seq, "events": list(events)}


def completed(outputs: Any) -> Object:
    return {"type": "COMPLETED", "msg": "done", "payload": {"outputs": outputs}}


def codes(verdicts: Sequence[Verdict]) -> list[str | None]:
    return [verdict.code for verdict in verdicts]


def hold_reports(line: Line) -> None:
    line.hold = lambda request: request.url.path.endswith("/reports")


def let_go(line: Line) -> None:
    line.hold = lambda request: False
    line.go_on.set()


async def test_runs_that_nobody_knows_are_refused_each_for_itself(reports: Reports) -> None:
    verdicts = await asyncio.gather(*(reports.send(report()) for _ in range(3)))
    assert codes(verdicts) == ["run_not_found"] * 3


async def test_what_arrives_while_a_batch_is_under_way_goes_together(reports: Reports, line: Line) -> None:
    hold_reports(line)
    first = reports.send(report())
    await line.held.wait()
    others = [reports.send(report(seq)) for seq in range(2, 2 + MOST_IN_BATCH + 10)]
    let_go(line)
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in line.reports] == [1, MOST_IN_BATCH, 10]
    assert [each["seq"] for batch in line.reports for each in batch] == list(range(1, 212))


async def test_several_large_outputs_do_not_exceed_what_a_server_takes(reports: Reports, line: Line) -> None:
    hold_reports(line)
    sent = [reports.send(report(seq, completed({"x": "y" * (4 * 2**20 - 20)}))) for seq in range(1, 8)]
    await line.held.wait()
    let_go(line)
    verdicts = await asyncio.gather(*sent)
    assert {verdict.code for verdict in verdicts} == {"run_not_found"}
    sizes = [len(body) for _, path, body in line.asked if path.endswith("/reports")]
    assert len(sizes) > 1 and max(sizes) < MOST_BYTES + 2**16 < SERVER_BOUND


async def test_one_that_the_server_cannot_read_fails_none_of_its_neighbours(reports: Reports, line: Line) -> None:
    deep: Any = 1
    for _ in range(120):
        deep = [deep]
    hold_reports(line)
    held = reports.send(report())
    await line.held.wait()
    odd = {3: completed({"x": deep}), 7: {"type": "INFO", "msg": "\0"}}
    sent = [reports.send(report(seq, *([odd[seq]] if seq in odd else []))) for seq in range(10)]
    let_go(line)
    verdicts = await asyncio.gather(held, *sent)
    misshapen = {0, *odd}
    assert codes(verdicts[1:]) == ["malformed" if seq in misshapen else "run_not_found" for seq in range(10)]
    assert "nested deeper" in (verdicts[4].detail or "")


async def test_one_that_is_too_large_by_itself_is_refused(reports: Reports) -> None:
    small, large = reports.send(report()), reports.send(report(1, completed({"x": "y" * SERVER_BOUND})))
    assert codes([await small, await large]) == ["run_not_found", "too_large"]


async def test_reports_wait_while_the_server_is_away(reports: Reports, line: Line) -> None:
    line.is_cut = True
    sent = [reports.send(report(seq)) for seq in range(1, 4)]
    await asyncio.sleep(0.25)
    assert not any(each.done() for each in sent)
    line.is_cut = False
    assert codes(await asyncio.gather(*sent)) == ["run_not_found"] * 3


async def test_reports_wait_until_the_worker_is_registered_anew(cluster: Cluster, reports: Reports) -> None:
    await cluster.user.remove_worker("one")
    verdict = await asyncio.wait_for(reports.send(report()), 10)
    assert verdict.code == "run_not_found"


async def test_there_is_no_verdict_after_the_end(reports: Reports, cluster: Cluster, line: Line) -> None:
    hold_reports(line)
    client = AsyncGyozaClient(URL, KEY, transport=line)
    ending = Reports(client, "one", cluster.identity.instance)
    sending = asyncio.create_task(ending.run())
    waiting = ending.send(report())
    await line.held.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await ending.send(report())
    let_go(line)


async def test_a_later_process_counts_on_from_beyond_what_a_full_disk_may_not_have_kept(
    reports: Reports, line: Line, tmp_path: Path
) -> None:
    """A number that the server knows already would be taken for told."""
    lease = Lease(str(uuid4()), 1, "none")
    path = tmp_path / "attempts" / "run-1" / FILE
    path.parent.mkdir(parents=True)
    await Telling(reports, lease, Spool(path)).tell()
    await Telling(reports, lease, Spool.read(path)).tell()
    told = [each["seq"] for batch in line.reports for each in batch]
    assert set(told) == {1, 1 + 2**20 + 1}


async def test_telling_numbers_its_reports_and_hears_that_the_lease_is_lost(reports: Reports, line: Line) -> None:
    lost: list[bool] = []
    telling = Telling(reports, Lease(str(uuid4()), 1, "none"))
    telling.on_lost = lambda: lost.append(True)
    verdicts = await asyncio.gather(*(telling.tell({"type": "INFO", "msg": str(n)}) for n in range(3)))
    assert codes(verdicts) == ["run_not_found"] * 3
    assert [each["seq"] for batch in line.reports for each in batch] == [1, 2, 3]
    assert lost == [True] * 3
