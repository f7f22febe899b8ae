"""What an attempt comes to: its program's end, or what hindered it; and that nothing of it is left behind."""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from gyoza.client.http import AsyncGyozaClient
from gyoza.models.errors import AttemptError
from gyoza.worker import attempt
from gyoza.worker.engines import Job, Ready, Say, silent
from gyoza.worker.engines.process import Process, Program
from gyoza.worker.work import Work

from .cluster import Cluster, Line, working

Step = Callable[[Work], AbstractAsyncContextManager[None]]
STUBBORN = "trap '' TERM; echo ready > $GYOZA_IO_DIR/ready; while :; do sleep 0.05; done"
THREE = {"retry_policy": {"max_attempts": 3}}


async def running(cluster: Cluster, run_id: str) -> None:
    """The program itself says that it runs, and the server knows it."""
    io = cluster.place.folder / "attempts" / f"{run_id}-1" / "io"
    await cluster.until(lambda: (io / "ready").exists(), "the program to run")
    await cluster.state(run_id, "RUNNING")


# How programs end


async def test_an_op_without_outputs_gives_an_empty_object(pipeline: Cluster) -> None:
    run = await pipeline.run()
    assert (run["state"], run["outputs"], run["progress"]) == ("COMPLETED", {}, 100)
    summary = run["execution_summary"]
    assert (summary["worker_id"], summary["exit_code"], summary["error_message"]) == ("one", 0, None)
    assert summary["duration_ms"] is not None


async def test_outputs_progress_and_notes_arrive(pipeline: Cluster) -> None:
    run = await pipeline.python(
        "events = open(io / 'events.ndjson', 'a')\n"
        "events.write(json.dumps({'type': 'PROGRESS', 'msg': 40}) + '\\n')\n"
        "events.write(json.dumps({'type': 'INFO', 'msg': 'half way'}) + '\\n')\n"
        "x = json.loads((io / 'inputs.json').read_text())['x']\n"
        "(io / 'outputs.json').write_text(json.dumps({'twice': 2 * x}))",
        {"x": 21},
    )
    assert run["outputs"] == {"twice": 42}
    assert await pipeline.told(run["id"]) == [
        ("STARTED", "Started on one (process)"),
        ("PROGRESS", 40),
        ("INFO", "half way"),
        ("COMPLETED", "Completed"),
    ]


async def test_an_exit_code_fails_the_run_with_the_end_of_its_log(pipeline: Cluster) -> None:
    run = await pipeline.run("echo out; echo err >&2; exit 3")
    assert (run["state"], run["reason"], run["user_failures"]) == ("FAILED", "op_error", 1)
    summary = run["execution_summary"]
    assert (summary["exit_code"], summary["signal"]) == (3, None)
    assert summary["error_message"] == "The op ended with exit code 3; its last output:\nout\nerr"


async def test_a_log_of_any_bytes_can_be_told(pipeline: Cluster) -> None:
    run = await pipeline.python("sys.stdout.buffer.write(bytes(range(256)) * 20); sys.exit(1)")
    assert "exit code 1" in run["execution_summary"]["error_message"]
    assert "\0" not in run["execution_summary"]["error_message"]


async def test_outputs_of_an_op_that_failed_do_not_count(pipeline: Cluster) -> None:
    run = await pipeline.run("echo '{\"x\": 1}' > $GYOZA_IO_DIR/outputs.json; exit 1")
    assert (run["state"], run["outputs"]) == ("FAILED", None)


async def test_a_signal_is_named(pipeline: Cluster) -> None:
    run = await pipeline.run("kill -SEGV $$")
    assert run["reason"] == "op_error"
    summary = run["execution_summary"]
    assert (summary["exit_code"], summary["signal"]) == (139, 11)
    assert summary["error_message"] == "The op ended by signal 11"


async def test_too_much_memory_kills_the_op(pipeline: Cluster) -> None:
    greedy = "x = b'y' * (200 * 2**20); time.sleep(60)"
    run = await pipeline.python(greedy, constraints={"cpu": 0.1, "ram_mb": 64})
    assert (run["state"], run["reason"]) == ("FAILED", "oom_killed")
    assert run["execution_summary"]["error_message"] == "It used more than its 64 MB of memory (constraints.ram_mb)"


async def test_a_program_runs_no_longer_than_it_may(pipeline: Cluster) -> None:
    run = await pipeline.run("sleep 60", timeouts={"run_s": 0.2})
    assert (run["state"], run["reason"]) == ("FAILED", "run_timeout")
    summary = run["execution_summary"]
    assert summary["error_message"] == "It ran longer than 0.2 s (timeouts.run_s)"
    assert summary["signal"] == 15


class Older(Process):
    """Its programs have run for an hour when they come into its hands."""

    @asynccontextmanager
    async def started(self, job: Job, ready: Ready) -> AsyncGenerator[Program]:
        async with super().started(job, ready) as program:
            program.ran_s = 3600
            yield program


async def test_the_time_that_a_program_had_run_before_it_was_adopted_counts(
    line: Line, user: AsyncGyozaClient, tmp_path: Path
) -> None:
    async with working(line, user, tmp_path / "worker", engine=Older) as cluster:
        run = await cluster.run("sleep 60", timeouts={"run_s": 3600.5})
        assert (run["state"], run["reason"]) == ("FAILED", "run_timeout")


async def test_a_program_whose_time_is_over_may_not_stay_by_ignoring_it(pipeline: Cluster) -> None:
    run = await pipeline.run(STUBBORN, timeouts={"run_s": 0.2}, execution={"cancel_grace_s": 0.1})
    assert (run["reason"], run["execution_summary"]["signal"]) == ("run_timeout", 9)


async def test_what_a_program_leaves_running_is_ended(pipeline: Cluster) -> None:
    run = await pipeline.run("sleep 60 & setsid sleep 60 & exit 0")
    assert run["state"] == "COMPLETED"


async def test_a_program_that_cannot_be_started_fails_the_run(pipeline: Cluster) -> None:
    run = await pipeline.run(bundle={"entry": ["/no/such/program"]})
    assert (run["reason"], await pipeline.told(run["id"])) == (
        "bundle_broken",
        [("FAILED", run["execution_summary"]["error_message"])],
    )


# Trying again


async def test_a_failure_is_tried_again_while_attempts_are_left(pipeline: Cluster) -> None:
    run = await pipeline.run("exit $GYOZA_ATTEMPT", **THREE)
    assert await pipeline.attempts(run["id"]) == [("FAILED", "op_error")] * 3
    assert (run["user_failures"], run["execution_summary"]["exit_code"]) == (3, 3)


async def test_a_later_attempt_may_succeed(pipeline: Cluster) -> None:
    run = await pipeline.run("[ $GYOZA_ATTEMPT = 2 ]", **THREE)
    assert (run["state"], run["current_attempt"], run["user_failures"]) == ("COMPLETED", 2, 1)


@pytest.mark.parametrize(("retryable", "attempts"), [("false", 1), ("true", 3), ("null", 3), ('"no"', 3)])
async def test_an_op_may_say_that_trying_again_does_not_help(pipeline: Cluster, retryable: str, attempts: int) -> None:
    said = f'{{"error_message": "no", "retryable": {retryable}}}'
    run = await pipeline.run(f"echo '{said}' > $GYOZA_IO_DIR/error.json; exit 1", **THREE)
    assert await pipeline.attempts(run["id"]) == [("FAILED", "op_error")] * attempts


# Cancelling


async def test_cancelling_stops_the_program(pipeline: Cluster) -> None:
    run_id = await pipeline.submit("trap 'echo bye > $GYOZA_IO_DIR/bye; exit 5' TERM; " + STUBBORN.split(";", 1)[1])
    await running(pipeline, run_id)
    run = await pipeline.cancelled(run_id)
    assert (run["state"], run["execution_summary"]["exit_code"]) == ("CANCELLED", 5)
    assert [kind for kind, _ in await pipeline.told(run_id)] == ["STARTED", "CANCELLED"]


async def test_a_program_that_does_not_listen_is_killed_and_keeps_its_room_until_then(pipeline: Cluster) -> None:
    run_id = await pipeline.submit(STUBBORN, execution={"cancel_grace_s": 0.5})
    await running(pipeline, run_id)
    await pipeline.user.cancel_run(run_id)
    held = await pipeline.user.get_worker("one")
    assert [each["run_id"] for each in held["holding"]] == [run_id]
    run = await pipeline.ended(run_id)
    assert run["execution_summary"]["signal"] == 9
    assert (await pipeline.user.get_worker("one"))["holding"] == []


async def test_cancelling_races_with_completion(pipeline: Cluster) -> None:
    async def race() -> None:
        run_id = await pipeline.submit("exit 0")
        await asyncio.sleep(random.uniform(0, 0.3))
        run = await pipeline.user.get_run(run_id)
        if run["state"] != "COMPLETED":
            await asyncio.gather(pipeline.user.cancel_run(run_id), return_exceptions=True)
        run = await pipeline.ended(run_id)
        ends = [kind for kind, _ in await pipeline.told(run_id) if kind in ("COMPLETED", "CANCELLED", "FAILED")]
        assert ends == [run["state"]] and run["state"] != "FAILED"

    await asyncio.gather(*(race() for _ in range(12)))


class Slow(Process):
    """Never ready: whoever waits for it is stopped, or nothing goes on."""

    entered: asyncio.Event

    async def ready(self, job: Job, say: Say = silent) -> Ready:
        self.entered.set()
        await asyncio.Event().wait()
        raise AssertionError


async def test_cancelling_while_the_bundle_is_prepared(line: Line, user: AsyncGyozaClient, tmp_path: Path) -> None:
    Slow.entered = asyncio.Event()
    async with working(line, user, tmp_path, engine=Slow) as cluster:
        run_id = await cluster.submit()
        await asyncio.wait_for(Slow.entered.wait(), 10)
        assert (await cluster.cancelled(run_id))["state"] == "CANCELLED"
        assert [kind for kind, _ in await cluster.told(run_id)] == ["CANCELLED"]


class StuckUploads(AsyncGyozaClient):
    entered: asyncio.Event

    async def upload_file(self, *_: Any, **__: Any) -> Any:
        self.entered.set()
        await asyncio.Event().wait()


async def test_cancelling_while_a_file_is_uploaded(line: Line, user: AsyncGyozaClient, tmp_path: Path) -> None:
    StuckUploads.entered = asyncio.Event()
    async with working(line, user, tmp_path, client=StuckUploads) as cluster:
        program = 'cd $GYOZA_IO_DIR; echo x > x; echo \'{"file": "x"}\' > outputs.json'
        run_id = await cluster.submit(program, output_specs={"file": {"type": "file"}})
        await asyncio.wait_for(StuckUploads.entered.wait(), 10)
        assert (await cluster.cancelled(run_id))["state"] == "CANCELLED"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: httpx.Response(413, html="<p>Request Entity Too Large</p>"),
        lambda: httpx.Response(403, json={"code": "forbidden", "detail": "Not yours"}),
    ],
    ids=["too large for a proxy", "refused"],
)
async def test_an_output_that_cannot_be_uploaded_is_invalid_and_the_op_is_not_run_again(
    cluster: Cluster, line: Line, answer: Callable[[], httpx.Response]
) -> None:
    line.instead = lambda request: answer() if request.url.path.endswith("/files") else None
    program = 'cd $GYOZA_IO_DIR; echo x > x; echo \'{"file": "x"}\' > outputs.json'
    run = await cluster.run(program, output_specs={"file": {"type": "file"}})
    assert await cluster.attempts(run["id"]) == [("FAILED", "invalid_output")]
    assert "'file': the server refused the file" in run["execution_summary"]["error_message"]


async def test_nothing_is_started_before_the_server_has_agreed(cluster: Cluster, line: Line) -> None:
    line.hold = lambda request: request.url.path.endswith("/reports")
    run_id = await cluster.submit("touch /never")
    await asyncio.wait_for(line.held.wait(), 10)
    await cluster.user.cancel_run(run_id)
    assert cluster.leftovers == []
    line.go_on.set()
    assert (await cluster.ended(run_id))["state"] == "CANCELLED"
    assert [kind for kind, _ in await cluster.told(run_id)] == ["CANCELLED"]
    assert cluster.leftovers == []


# Stopped or crashed in any of the steps


@asynccontextmanager
async def waiting_for_ever(work: Work) -> AsyncGenerator[None]:
    work.telling.tell({"type": "INFO", "msg": "waiting"})
    await asyncio.Event().wait()
    yield


def crashing(on: str) -> Step:
    """A step that fails in the first attempt, on entering or on leaving."""

    @asynccontextmanager
    async def crash(work: Work) -> AsyncGenerator[None]:
        first = work.assignment.lease.attempt == 1
        if first and on == "entering":
            raise ValueError("a fault of the worker")
        yield
        if first and on == "leaving":
            raise ValueError("a fault of the worker")

    return crash


def put_in(monkeypatch: pytest.MonkeyPatch, place: int, step: Step) -> None:
    monkeypatch.setattr(attempt, "STEPS", (*attempt.STEPS[:place], step, *attempt.STEPS[place:]))


@pytest.mark.parametrize("place", range(1, 7))
async def test_it_can_be_stopped_in_every_step(pipeline: Cluster, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    put_in(monkeypatch, place, waiting_for_ever)
    run_id = await pipeline.submit("sleep 60")

    async def waits() -> bool:
        return ("INFO", "waiting") in await pipeline.told(run_id)

    await pipeline.until(waits, "the step to be reached")
    assert (await pipeline.cancelled(run_id))["state"] == "CANCELLED"


@pytest.mark.parametrize("place", range(1, 7))
async def test_a_crash_while_any_step_is_left_is_logged_and_costs_no_outputs(
    pipeline: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    put_in(monkeypatch, place, crashing("leaving"))
    run = await pipeline.run()
    assert (run["state"], run["infra_losses"], run["user_failures"]) == ("COMPLETED", 0, 0)
    assert await pipeline.attempts(run["id"]) == [("COMPLETED", None)]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None and "a fault of the worker" in caplog.text


@pytest.mark.parametrize("place", range(1, 7))
async def test_a_crash_in_any_step_is_told_logged_and_settled(
    pipeline: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    put_in(monkeypatch, place, crashing("entering"))
    run = await pipeline.run()
    assert (run["state"], run["infra_losses"], run["user_failures"]) == ("COMPLETED", 1, 0)
    assert await pipeline.attempts(run["id"]) == [("FAILED", "start_failed"), ("COMPLETED", None)]
    (failed,) = [msg for kind, msg in await pipeline.told(run["id"]) if kind == "FAILED"]
    assert failed == "The worker failed on this attempt, and its log says more: a fault of the worker"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None and "Traceback" in caplog.text


async def test_a_full_disk_is_called_so(pipeline: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def full(work: Work) -> AsyncGenerator[None]:
        if work.assignment.lease.attempt == 1:
            raise OSError(28, "No space left on device")
        yield

    put_in(monkeypatch, 3, full)
    run = await pipeline.run()
    assert await pipeline.attempts(run["id"]) == [("FAILED", "disk_full"), ("COMPLETED", None)]


async def test_a_message_that_no_text_can_hold_is_told_all_the_same(
    pipeline: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def odd(work: Work) -> AsyncGenerator[None]:
        raise AttemptError("bundle_broken", f"odd \0\udcff {'x' * 10_000}")
        yield

    put_in(monkeypatch, 2, odd)
    run = await pipeline.run()
    assert run["reason"] == "bundle_broken"
    assert run["execution_summary"]["error_message"].startswith("odd ? xxx")


async def test_a_folder_that_cannot_be_removed_costs_no_outputs(
    pipeline: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from gyoza.worker.steps import workspace

    real = workspace.remove_folder

    def failing(folder: Path) -> None:
        there = folder.exists()
        real(folder)
        if there:
            raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(workspace, "remove_folder", failing)
    run = await pipeline.run("echo '{\"x\": 1}' > $GYOZA_IO_DIR/outputs.json")
    assert (run["state"], run["outputs"]) == ("COMPLETED", {"x": 1})
    assert "could not be removed" in caplog.text


async def test_what_the_op_came_to_counts_though_its_worker_is_stopped_while_it_cleans_up(
    pipeline: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def stopped_on_the_way_out(work: Work) -> AsyncGenerator[None]:
        yield
        work.stop("drained")
        await asyncio.sleep(5)

    put_in(monkeypatch, 2, stopped_on_the_way_out)
    run = await pipeline.run("echo '{\"x\": 1}' > $GYOZA_IO_DIR/outputs.json")
    assert await pipeline.attempts(run["id"]) == [("COMPLETED", None)]
    assert run["outputs"] == {"x": 1}
