"""The checker itself: it finds nothing in a good history, and each fault that is put into one, by its name."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from .crowd import Deed
from .faults import KINDS, Fault, schedule
from .history import History, Json, Tried
from .invariants import broken

RUN = "run-a"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FAULTS = (Fault(1.0, "kill worker", "one", 2.0),)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def tried(attempt: int, state: str, reason: str | None, begun: float, **more: Any) -> Tried:
    """Assigned, started, ended and settled within three seconds."""
    summary = {"error_message": "it was lost"} if reason else {}
    moments = [at(begun + part) for part in (0, 1, 2, 3)]
    return replace(Tried(RUN, attempt, state, None, reason, summary, "one", *moments), **more)


def event(number: int, kind: str, attempt: int, msg: str = "", payload: Json | None = None) -> Json:
    return {"id": number, "type": kind, "attempt": attempt, "msg": msg, "payload": payload}


OUTPUTS = {"run": RUN, "attempt": 2, "got": {"n": 7}}
GOOD = History(
    runs={
        RUN: {
            "id": RUN,
            "op_definition": "quick",
            "state": "COMPLETED",
            "reason": None,
            "current_attempt": 2,
            "inputs": {"n": 7},
            "outputs": OUTPUTS,
            "events_count": 9,
            "user_failures": 0,
            "infra_losses": 1,
            "retry_policy": {"max_attempts": 1},
        }
    },
    events={
        RUN: [
            event(0, "ASSIGNED", 1),
            event(1, "STARTED", 1),
            event(2, "FAILED", 1),
            event(3, "RETRIED", 2),
            event(4, "ASSIGNED", 2),
            event(5, "STARTED", 2),
            event(6, "INFO", 2, "2.0"),
            event(7, "INFO", 2, "a note"),
            event(8, "COMPLETED", 2),
        ]
    },
    tries=(
        tried(1, "FAILED", "worker_lost", 0),
        tried(2, "COMPLETED", None, 10, outputs=OUTPUTS),
    ),
    kept=[(RUN, n) for n in range(9)],
    feed=[(RUN, n) for n in range(9)],
    workers=(
        {
            "id": "one",
            "resources": {"cpu": 1, "ram_mb": 2, "slots": 4},
            "room": {"cpu": 1, "ram_mb": 2, "slots": 4},
            "holding": [],
        },
    ),
    logs={(RUN, 2): b"line 0\n"},
    deeds=(Deed("submit", RUN, "7", True), Deed("note", RUN, "a note", True), Deed("cancel", RUN, "", False)),
    faults=FAULTS,
)


def with_run(**changes: Any) -> History:
    return replace(GOOD, runs={RUN: {**GOOD.runs[RUN], **changes}})


def with_events(change: Callable[[list[Json]], object]) -> History:
    events = [dict(each) for each in GOOD.events[RUN]]
    change(events)
    return replace(GOOD, events={RUN: events})


def with_try(number: int, **changes: Any) -> History:
    return replace(GOOD, tries=[replace(each, **changes) if each.attempt == number else each for each in GOOD.tries])


def numbered_anew(events: list[Json]) -> None:
    for number, each in enumerate(events):
        each["id"] = number


BROKEN: dict[str, tuple[str, History]] = {
    "a run that goes on": ("every_run_ended", with_run(state="RUNNING")),
    "two ends": (
        "every_life_follows_the_table",
        with_events(lambda events: events.append(event(9, "CANCELLED", 2))),
    ),
    "another state than events lead to": ("every_life_follows_the_table", with_run(state="CANCELLED")),
    "outputs of another attempt": ("the_outputs_of_one_attempt_won", with_run(outputs={**OUTPUTS, "attempt": 1})),
    "outputs of another run": ("the_outputs_of_one_attempt_won", with_run(outputs={**OUTPUTS, "got": {"n": 8}})),
    "outputs of two attempts": ("the_outputs_of_one_attempt_won", with_try(1, outputs={})),
    "a missing event": ("every_event_is_there_once", with_events(lambda events: events.pop(6))),
    "an event that only the feed misses": ("every_event_is_there_once", replace(GOOD, feed=GOOD.feed[1:])),
    "an event published twice": ("every_event_is_there_once", replace(GOOD, feed=[*GOOD.feed, (RUN, 8)])),
    "a swapped feed": ("every_event_is_there_once", replace(GOOD, feed=[*GOOD.feed[1:], (RUN, 0)])),
    "events that were never published": ("every_event_is_there_once", replace(GOOD, unpublished=1)),
    "a word that was lost": (
        "what_ops_said_is_whole",
        with_events(lambda events: (events.pop(6), numbered_anew(events))),
    ),
    "a word said twice": (
        "what_ops_said_is_whole",
        with_events(lambda events: (events.insert(7, event(0, "INFO", 2, "2.0")), numbered_anew(events))),
    ),
    "a word of the attempt that was lost": (
        "nothing_follows_an_end",
        with_events(lambda events: (events.insert(5, event(0, "INFO", 1, "1.0")), numbered_anew(events))),
    ),
    "an attempt that changed after its end": (
        "nothing_changes_after_its_end",
        replace(GOOD, witnessed=["attempts: ..."]),
    ),
    "an attempt that is never settled": ("all_room_is_free", with_try(1, settled_at=None)),
    "a worker with less room": (
        "all_room_is_free",
        replace(GOOD, workers=[{**GOOD.workers[0], "room": {"cpu": 1, "ram_mb": 2, "slots": 3}}]),
    ),
    "a worker with too much": (
        "no_worker_was_given_too_much",
        replace(GOOD, tries=[*GOOD.tries, *(tried(n, "FAILED", "worker_lost", 10) for n in range(3, 7))]),
    ),
    "two attempts at once": ("attempts_come_one_after_the_other", with_try(2, assigned_at=at(1))),
    "a loss at the cost of the user": ("budgets_are_right", with_run(user_failures=1)),
    "a loss that cost nothing": ("budgets_are_right", with_run(infra_losses=0)),
    "a run given up after one loss": (
        "no_run_was_given_up_too_early",
        with_run(state="FAILED", reason="worker_lost", outputs=None),
    ),
    "an end that nobody brought about": ("every_attempt_is_explained", replace(GOOD, faults=())),
    "a failure without a word": ("every_attempt_is_explained", with_try(1, summary={})),
    "a note that was lost": ("what_was_answered_is_true", with_events(lambda events: events.pop(7))),
    "a cancel that was refused and done": (
        "what_was_answered_is_true",
        with_events(lambda events: events.append(event(9, "CANCELLED", 2))),
    ),
    "a request that was lost": (
        "what_was_asked_for_once_is_one_run",
        replace(GOOD, deeds=[*GOOD.deeds, Deed("submit", "run-b", "8", True)]),
    ),
    "a log with a hole": ("logs_are_whole", replace(GOOD, logs={(RUN, 2): b"ne 0\n"})),
    "a container": ("nothing_is_left", replace(GOOD, left=["gyoza-run-a-1"])),
}


def test_a_good_history_is_without_fault():
    assert broken(GOOD) == []


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_is_found_and_named(fault: str):
    name, history = BROKEN[fault]
    assert name in {complaint.partition(":")[0] for complaint in broken(history)}


def test_one_request_that_became_two_runs_is_found():
    twice = replace(
        GOOD, runs={**GOOD.runs, "run-b": GOOD.runs[RUN]}, events={**GOOD.events, "run-b": GOOD.events[RUN]}
    )
    assert "what_was_asked_for_once_is_one_run: 2 runs were made of request 7" in broken(twice)


def test_an_attempt_may_be_placed_before_the_one_of_a_worker_that_was_evicted_is_settled():
    late = with_try(1, settled_at=at(20))
    assert broken(late) != []
    assert broken(replace(late, evictions=[("one", at(9))])) == []


TARGETS = {kind.of: ("one", "two") for kind in KINDS.values()}


def test_a_seed_gives_the_same_schedule_again_and_another_one_another():
    assert schedule(7, 60, TARGETS) == schedule(7, 60, TARGETS) != schedule(8, 60, TARGETS)


def test_a_schedule_befalls_nothing_twice_at_once_and_nothing_that_is_not_there():
    faults = schedule(7, 3600, TARGETS)
    assert {fault.kind for fault in faults} == set(KINDS)
    for place in {(KINDS[fault.kind].of, fault.target) for fault in faults}:
        mine = [fault for fault in faults if (KINDS[fault.kind].of, fault.target) == place]
        assert all(before.at_s + before.for_s <= after.at_s for before, after in pairwise(mine))
    assert {KINDS[fault.kind].of for fault in schedule(7, 600, {"worker": ["one"]})} == {"worker"}
