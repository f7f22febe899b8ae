"""What goes out as JSON comes back as the same value."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models import (
    Constraints,
    EventDelivery,
    EventEntry,
    EventType,
    ExecutionSummary,
    InputSpec,
    InputSpecs,
    OpAttempt,
    OpDefinition,
    OpRun,
    OpRunState,
    RetryPolicy,
)
from gyoza.models.bundle import Bundle, BundleManifest
from gyoza.models.definition import Execution, Timeouts
from gyoza.models.reasons import Reason
from gyoza.models.resources import Gpu, Resources
from gyoza.models.run import time_from_wire, time_to_wire

from .builders import NOW, at

EVENT = EventEntry(7, EventType.PROGRESS, at(1), 40, {"b": 1, "a": [None]}, attempt=2, at=NOW)
SUMMARY = ExecutionSummary(1200, "w1", "boom", 0, [0, 1], 3, 9, 100, 200, 1.5, "sha256:00")
DELIVERY = EventDelivery("topic", {"team": "a"})
BUNDLE = Bundle("gyoza://files/1", "sha256:00", 10, ("python3", "op.py"), "3.11", "base:1")
SPECS = InputSpecs(photo=InputSpec("file"), size=InputSpec("int", required=False, default=3))
EXECUTION = Execution(
    {"A": "1"}, ("TOKEN",), network=False, cancel_grace_s=3, on_server_lost="stop", server_lost_s=9, user="1000"
)
NEEDS = Constraints(1500, 512, 4000)
ATTEMPT = OpAttempt(
    "a1",
    "r1",
    2,
    OpRunState.FAILED,
    40,
    (EVENT,),
    {"x": 1},
    {"y": 2},
    SUMMARY,
    NEEDS,
    NOW,
    at(1),
    Reason.OP_ERROR,
    at(2),
)
RUN = OpRun(
    id="r1",
    state=OpRunState.FAILED,
    priority=5,
    image="img",
    op_definition="op",
    inputs={"z": 1, "a": 2},
    outputs=None,
    constraints=NEEDS,
    retry_policy=RetryPolicy(3, 1.5, 3, 60, 0.5, ("op_error",), ("worker_lost",)),
    event_delivery=DELIVERY,
    progress=40,
    current_attempt=2,
    events=(EVENT,),
    execution_summary=SUMMARY,
    created_at=NOW,
    updated_at=at(1),
    reason=Reason.OP_ERROR,
    version="1.0",
    revision=4,
    submitted_by="ann",
    tags=("t",),
    run_at=at(2),
    timeouts=Timeouts(1, 2.5, None),
    user_failures=1,
    infra_losses=2,
    events_count=8,
    queue_at=at(3),
    delete_after_s=60.5,
    pinned=True,
    replay_of="01890000-0000-7000-8000-000000000001",
)
DEFINITION = OpDefinition(
    id="op",
    version="1.0",
    image="img",
    input_specs=SPECS,
    output_specs=SPECS,
    constraints=NEEDS,
    retry_policy=RetryPolicy(2),
    event_delivery=DELIVERY,
    description="what it does",
    timeouts=Timeouts(1, 2, 3),
    execution=EXECUTION,
    tags=("t",),
    bundle=BUNDLE,
    concurrency={"key": "k", "limit": 2},
    delete_after_s=3600,
    revision=4,
    digest="sha256:11",
    disabled=True,
)
VALUES = [
    EVENT,
    EventEntry(0, EventType.INFO, NOW, "text"),
    SUMMARY,
    ExecutionSummary(),
    DELIVERY,
    EventDelivery("topic"),
    BUNDLE,
    BundleManifest(("./run.sh",)),
    BundleManifest(("python3", "op.py"), "3.11", "base:1"),
    SPECS,
    InputSpecs(),
    InputSpec("any"),
    RetryPolicy(7),
    Timeouts(),
    EXECUTION,
    Execution(),
    NEEDS,
    Constraints(),
    Resources(4000, 8192, 8, (Gpu(0, "u", "H", 1000, 10),)),
    Resources(500, 1, 1),
    ATTEMPT,
    OpAttempt("a1", "r1", 1, OpRunState.PENDING),
    RUN,
    DEFINITION,
    OpDefinition("bare"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back_from_json_as_it_was(value: Any):
    assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


@pytest.mark.parametrize("value", [SUMMARY, EXECUTION, EVENT, RUN, ATTEMPT, DEFINITION], ids=lambda v: type(v).__name__)
def test_what_a_newer_side_adds_is_ignored(value: Any):
    assert type(value).from_dict({**value.to_dict(), "from_the_future": 1}) == value


@pytest.mark.parametrize("body", [{}, {"event_delivery": None, "constraints": None, "tags": None, "bundle": None}])
def test_a_definition_needs_no_more_than_its_name(body: dict[str, Any]):
    assert OpDefinition.from_dict({"id": "op", **body}) == OpDefinition("op")


def test_the_digest_covers_what_the_author_wrote_and_nothing_of_the_server_s():
    assert DEFINITION.to_dict() == {**DEFINITION.content(), "revision": 4, "digest": "sha256:11", "disabled": True}
    assert not {"revision", "digest", "disabled"} & set(DEFINITION.content())


def test_a_run_goes_out_with_every_field_of_the_contract():
    kept = (
        "id state priority image op_definition inputs outputs constraints retry_policy event_delivery progress "
        "current_attempt events execution_summary created_at updated_at"
    )
    ours = (
        "reason version revision submitted_by tags run_at timeouts user_failures infra_losses events_count queue_at "
        "delete_after_s pinned replay_of"
    )
    assert list(RUN.to_dict()) == kept.split() + ours.split()


def test_an_attempt_goes_out_with_every_field_of_the_contract():
    kept = (
        "id op_run_id attempt state progress events inputs outputs execution_summary constraints started_at finished_at"
    )
    assert list(ATTEMPT.to_dict()) == [*kept.split(), "reason", "settled_at"]


def test_a_summary_goes_out_with_every_field_of_the_contract():
    kept, ours = "duration_ms worker_id error_message gpu_id", "gpu_ids exit_code signal peak_ram_mb peak_vram_mb cpu_s"
    assert list(SUMMARY.to_dict()) == [*kept.split(), *ours.split(), "image_digest"]


def test_an_event_keeps_the_order_of_its_payload_s_keys():
    assert list(EventEntry.from_dict(EVENT.to_dict()).payload) == ["b", "a"]


def test_a_time_has_six_decimals_and_names_utc():
    assert time_to_wire(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000+00:00"
    assert time_to_wire(datetime(2026, 1, 2, 3, 4, 5, 67, tzinfo=UTC)) == "2026-01-02T03:04:05.000067+00:00"
    east = timezone(timedelta(hours=2))
    assert time_to_wire(datetime(2026, 1, 2, 3, 4, 5, tzinfo=east)) == "2026-01-02T01:04:05.000000+00:00"


def test_no_time_is_null():
    assert time_to_wire(None) is None
    assert time_from_wire(None) is None


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)))
def test_a_time_survives_the_wire_exactly(moment: datetime):
    wire = time_to_wire(moment)
    assert wire is not None and len(wire) == len("2026-01-02T03:04:05.000000+00:00")
    assert time_from_wire(wire) == moment


def test_a_bundle_of_another_format_asks_for_a_new_deployment():
    with pytest.raises(ValueError, match="format 2 is not 1: deploy the op anew"):
        BundleManifest.from_dict({"format": 2, "entry": ["x"]})
