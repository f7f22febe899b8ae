"""Asking for runs, and what of a definition they inherit."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from gyoza.control.deploy import history, latest
from gyoza.control.query import get
from gyoza.control.submit import AdHoc, OfDefinition, Options
from gyoza.models.definition import EventDelivery, InputSpec, InputSpecs, OpDefinition, RetryPolicy, Timeouts
from gyoza.models.errors import DefinitionNotFound, InputValidationError, RunNotFound
from gyoza.models.resources import Constraints
from gyoza.models.run import OpRun

from .stage import NOW, Cluster

ADD = OpDefinition(
    "add",
    version="1",
    image="adder",
    input_specs=InputSpecs(a=InputSpec("float"), b=InputSpec("int", required=False, default=2)),
    constraints=Constraints(500, 64),
    retry_policy=RetryPolicy(3),
    event_delivery=EventDelivery("sums", {"team": "a"}),
    timeouts=Timeouts(start_s=7),
    tags=("sums",),
)


async def ask_for(cluster: Cluster, text: bytes, *, name: str = "add", **how: Any) -> OpRun:
    raw = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    return await cluster.ask_for(OfDefinition(name, msgspec.json.decode(text), raw, **how))


async def test_a_run_waits_in_the_queue_and_has_no_events(cluster: Cluster):
    run = await cluster.run(await cluster.submit(cpu_m=1500))
    assert (run.state, run.current_attempt, run.events_count, run.priority) == ("PENDING", 1, 0, 5)
    assert (run.created_at, run.queue_at) == (NOW, NOW - timedelta(hours=5))
    assert run.constraints == Constraints(cpu_m=1500)


async def test_what_the_submitter_is_told_is_what_is_stored(cluster: Cluster):
    delivery = EventDelivery("topic", {"a": 1})
    options = Options(
        priority=-7,
        tags=["b", "a"],
        run_at=NOW + timedelta(hours=1),
        timeouts={"queue_s": 5.0},
        retry_policy={"max_attempts": 4, "backoff_s": 1.5, "retry_on": ["op_error"]},
        delete_after_s=60,
    )
    told = await cluster.ask_for(AdHoc("busybox", {"x": 1}, options, Constraints(1, 2, 3), delivery))
    assert as_json(told) == as_json(await get(cluster.database, told.id))


async def test_ids_rise_with_time(cluster: Cluster):
    ids: list[str] = []
    for _ in range(3):
        ids.append(await cluster.submit())
        cluster.later(0.001)
    assert ids == sorted(ids)


async def test_a_run_inherits_what_its_definition_says(cluster: Cluster):
    await cluster.deploy(ADD)
    run = await ask_for(cluster, b'{"a": 1}', options=Options(priority=9))
    assert (run.image, run.op_definition, run.version, run.revision, run.priority) == ("adder", "add", "1", 1, 9)
    assert (run.constraints, run.retry_policy, run.timeouts) == (Constraints(500, 64), RetryPolicy(3), ADD.timeouts)
    assert as_json(run) == as_json(await get(cluster.database, run.id))


async def test_inputs_are_kept_as_they_were_written_and_defaults_are_filled_in(cluster: Cluster):
    await cluster.deploy(ADD)
    run = await get(cluster.database, (await ask_for(cluster, b'{"a": 1.00000000000000000001e2, "b": null}')).id)
    assert bytes(run.inputs) == b'{"a":1.00000000000000000001e2,"b":2}'


async def test_inputs_that_do_not_fit_are_refused_with_every_fault_and_make_no_run(cluster: Cluster):
    await cluster.deploy(ADD)
    with pytest.raises(InputValidationError) as refused:
        await ask_for(cluster, b'{"b": true, "c": 1}')
    assert len(refused.value.errors) == 3
    assert await cluster.ask("SELECT count(*) FROM runs") == [(0,)]


async def test_an_unknown_definition_or_version_is_not_found(cluster: Cluster):
    with pytest.raises(DefinitionNotFound, match="OpDefinition 'add' not found"):
        await ask_for(cluster, b"{}")
    await cluster.deploy(ADD)
    with pytest.raises(DefinitionNotFound, match="in version '9'"):
        await ask_for(cluster, b"{}", version="9")


async def test_a_run_stays_pinned_to_its_revision(cluster: Cluster):
    await cluster.deploy(ADD)
    run = await ask_for(cluster, b'{"a": 1}')
    cluster.later(1)
    await cluster.deploy(OpDefinition("add", version="1", image="newer"))
    await cluster.beat()
    await cluster.place()
    held = await cluster.handed()
    assert (held.run_id, held.image) == (run.id, "adder")
    assert msgspec.json.decode(held.to_dict()["input_specs"]) == ADD.input_specs.to_dict()


async def test_the_same_content_again_is_the_same_revision_and_the_latest_again(cluster: Cluster):
    newer = OpDefinition("add", version="2", image="newer")
    assert (await cluster.deploy(ADD))[1]
    cluster.later(1)
    assert (await cluster.deploy(newer))[1]
    cluster.later(1)
    again, is_new = await cluster.deploy(ADD)
    assert (again.revision, is_new) == (1, False)
    assert (await latest(cluster.database, "add", None)).revision == 1
    assert [each.revision for each in await history(cluster.database, "add")] == [1, 2]
    assert (await latest(cluster.database, "add", "2")).digest != again.digest


@pytest.mark.parametrize("run_id", ["", "no id", "0189000000007000800000000000000A", "{" + "0" * 36 + "}"])
async def test_what_is_no_run_id_is_not_found(cluster: Cluster, run_id: str):
    with pytest.raises(RunNotFound):
        await get(cluster.database, run_id)


def as_json(run: OpRun) -> Any:
    return msgspec.json.decode(msgspec.json.encode(run.to_dict()))
