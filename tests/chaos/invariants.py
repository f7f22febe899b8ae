"""What must be true of every history, whatever failed: a list of functions, each of which names what is not."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from gyoza.models.lifecycle import TRANSITIONS, EventType, OpRunState
from gyoza.models.reasons import INFRA_LOSS_LIMIT, RULES, Budget, Reason

from .faults import explained_by
from .history import History, Json, Tried
from .ops import OPS
from .scene import NARROW, SLOTS

Complaints = Iterator[str]
ENDS = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
BY_USERS = frozenset({"cancelled", "external"})
LINE = re.compile(r"\d+\.\d+")
DOUBT = timedelta(seconds=1)
"""How far the clocks of two servers, which both follow the database's, may be apart."""


def every_run_ended(history: History) -> Complaints:
    for run_id, run in history.runs.items():
        if run["state"] not in ENDS:
            yield f"run {run_id} is {run['state']}"


def every_life_follows_the_table(history: History) -> Complaints:
    """Each event was allowed where it stands, and together they lead to the state that is shown."""
    for run_id, run in history.runs.items():
        state = OpRunState.PENDING
        for event in history.events[run_id]:
            after = TRANSITIONS.get((state, EventType(event["type"])))
            if after is None:
                yield f"run {run_id}: event {event['id']} {event['type']} while {state}"
            state = after or state
        if state != run["state"]:
            yield f"run {run_id} is shown as {run['state']}, but its events lead to {state}"


def the_outputs_of_one_attempt_won(history: History) -> Complaints:
    """Of a completed run the outputs are those of its last attempt, made of its inputs; of others there are none."""
    for run_id, run in history.runs.items():
        number = run["current_attempt"]
        right = {"run": run_id, "attempt": number, "got": run["inputs"]} if run["state"] == "COMPLETED" else None
        if run["outputs"] != right:
            yield f"run {run_id} ({run['state']}, attempt {number}) has the outputs {run['outputs']}"
        winners = [tried.attempt for tried in history.tries_of(run_id) if tried.outputs is not None]
        if winners != [number] * (right is not None):
            yield f"run {run_id} ({run['state']}): attempts {winners} have outputs"


def every_event_is_there_once(history: History) -> Complaints:
    """Numbered without a gap, in the database, as users read them, and in the feed, where each run keeps its order."""
    for run_id, events in history.events.items():
        numbers = [event["id"] for event in events]
        if numbers != list(range(len(events))) or history.runs[run_id]["events_count"] != len(events):
            yield f"run {run_id}: {history.runs[run_id]['events_count']} events, read as {numbers}"
    read = [(run_id, event["id"]) for run_id, events in history.events.items() for event in events]
    if sorted(read) != sorted(history.kept):
        yield f"events read but not kept, or kept but not read: {set(read) ^ set(history.kept)}"
    if history.unpublished:
        yield f"{history.unpublished} events are not published"
    if sorted(history.feed) != sorted(history.kept):
        yield f"the feed differs from the events by {Counter(history.feed) - Counter(history.kept)} too many and "
        yield f"{Counter(history.kept) - Counter(history.feed)} missing"
    for run_id in history.runs:
        published = [n for run, n in history.feed if run == run_id]
        if published != sorted(published):
            yield f"run {run_id}: published in the order {published}"


def what_ops_said_is_whole(history: History) -> Complaints:
    """All of it of attempts that completed, of others its beginning without a hole; in its order."""
    for tried in history.tries:
        events = [event for event in history.events[tried.run_id] if event["attempt"] == tried.attempt]
        said = [event["msg"] for event in events if event["type"] == "INFO" and LINE.fullmatch(event["msg"])]
        lines = OPS[history.runs[tried.run_id]["op_definition"]].lines
        whole = [f"{tried.attempt}.{n}" for n in range(lines)]
        if said != (whole if tried.state == "COMPLETED" else whole[: len(said)]):
            yield f"{tried} ({tried.state}) said {said}"


def nothing_follows_an_end(history: History) -> Complaints:
    """No event of an attempt comes after the one that ended it, or after one of a later attempt."""
    for run_id, events in history.events.items():
        over = 0
        for event in events:
            if event["attempt"] <= over:
                yield f"run {run_id}: event {event['id']} {event['type']} of attempt {event['attempt']}, which was over"
            over = max(over, event["attempt"] - 1, event["attempt"] * (event["type"] in ENDS))


def nothing_changes_after_its_end(history: History) -> Complaints:
    """An attempt that is over is only settled, once; an event never changes. The database itself has watched."""
    yield from history.witnessed


def all_room_is_free(history: History) -> Complaints:
    for tried in history.tries:
        if tried.settled_at is None:
            yield f"{tried} ({tried.state}) is not settled"
    for worker in history.workers:
        whole, room = worker["resources"], worker["room"]
        if worker["holding"] or any(room[name] != whole[name] for name in ("cpu", "ram_mb", "slots")):
            yield f"worker {worker['id']} has {room} of {whole}, and holds {worker['holding']}"


def no_worker_was_given_too_much(history: History) -> Complaints:
    """At no time did a worker hold more attempts that were not settled than it has slots."""
    for name in {tried.held_by for tried in history.tries if tried.held_by}:
        held = [tried for tried in history.tries if tried.held_by == name]
        changes = [(_moment(tried.assigned_at), 1) for tried in held]
        changes += [(tried.settled_at - DOUBT, -1) for tried in held if tried.settled_at]
        count = 0
        for t, change in sorted(changes):
            count += change
            if count > SLOTS:
                yield f"worker {name} held {count} attempts at {t}"


def attempts_come_one_after_the_other(history: History) -> Complaints:
    """Placed only when the one before was settled, or its worker evicted."""
    for run_id in history.runs:
        tries = history.tries_of(run_id)
        for before, after in pairwise(tries):
            if before.held_by and after.assigned_at and not _let_go(history, before, after.assigned_at):
                yield f"{after} was placed at {after.assigned_at}, {before} settled at {before.settled_at}"


def _let_go(history: History, before: Tried, by: datetime) -> bool:
    settled = before.settled_at is not None and before.settled_at <= by + DOUBT
    begun = _moment(before.assigned_at)
    return settled or any(worker == before.held_by and begun <= t <= by + DOUBT for worker, t in history.evictions)


def budgets_are_right(history: History) -> Complaints:
    """Each budget is what the reasons of its attempts cost, and a run that was not retried by hand kept within them."""
    for run_id, run in history.runs.items():
        spent = Counter(RULES[Reason(tried.reason)].spends for tried in history.tries_of(run_id) if tried.reason)
        for name, budget in (("user_failures", Budget.USER), ("infra_losses", Budget.INFRA)):
            if run[name] != spent[budget]:
                yield f"run {run_id}: {name} is {run[name]}, but its attempts cost {spent[budget]}"
        by_hand = any((event["payload"] or {}).get("force") for event in history.events[run_id])
        limits = ((Budget.USER, run["retry_policy"]["max_attempts"]), (Budget.INFRA, INFRA_LOSS_LIMIT))
        for budget, limit in limits:
            if spent[budget] > limit and not by_hand:
                yield f"run {run_id} failed {spent[budget]} times of {limit} ({budget})"


def no_run_was_given_up_too_early(history: History) -> Complaints:
    """One that failed for what may be tried again had spent the budget of it."""
    for run_id, run in history.runs.items():
        reason = Reason(run["reason"]) if run["state"] == "FAILED" else Reason.CANCELLED
        last = history.events[run_id][-1]
        gave_up = (last["payload"] or {}).get("retryable") is False or last["msg"] == "Set by update"
        left = {
            Budget.NONE: RULES[reason].retried,
            Budget.USER: run["user_failures"] < run["retry_policy"]["max_attempts"],
            Budget.INFRA: run["infra_losses"] < INFRA_LOSS_LIMIT,
        }
        if RULES[reason].retried and left[RULES[reason].spends] and not gave_up:
            yield f"run {run_id} failed ({reason}), and might have been tried again"


def every_attempt_is_explained(history: History) -> Complaints:
    """By its op, by a user, or by a fault that there was; and if it failed, in words."""
    abroad = explained_by(history.faults) | BY_USERS
    for tried in history.tries:
        own = OPS[history.runs[tried.run_id]["op_definition"]].ends
        if tried.reason not in own | abroad:
            yield f"{tried} is {tried.state} for {tried.reason}: {tried.summary.get('error_message')}"
        if tried.state == "FAILED" and tried.reason != "external" and not tried.summary.get("error_message"):
            yield f"{tried} failed ({tried.reason}) without a word"


def what_was_answered_is_true(history: History) -> Complaints:
    """What users were told was done is there once; what was refused is not; what was not answered is there or not."""
    for run_id in history.runs:
        events, deeds = history.events[run_id], [deed for deed in history.deeds if deed.run_id == run_id]
        for what, is_it in DONE.items():
            asked = Counter(deed.was_done for deed in deeds if deed.what == what)
            found = sum(map(is_it, events))
            least = (
                0 if what == "fail" else asked[True]
            )  # what has failed already is left as it is, and that is no fault
            if not least <= found <= asked[True] + asked[None]:
                yield f"run {run_id}: {what} was answered {dict(asked)}, and is there {found} times"
        texts = Counter(event["msg"] for event in events)
        for deed in deeds:
            allowed = {True: (1,), False: (0,), None: (0, 1)}[deed.was_done]
            if deed.what == "note" and texts[deed.text] not in allowed:
                yield f"run {run_id}: '{deed.text}' was answered {deed.was_done}, is there {texts[deed.text]} times"


def _set_to_failed(event: Json) -> bool:
    return event["type"] == "FAILED" and event["msg"] == "Set by update"


DONE: dict[str, Callable[[Json], bool]] = {
    "cancel": lambda event: event["type"] == "CANCELLED",
    "retry": lambda event: event["type"] == "RETRIED" and event["msg"] == "Manual retry",
    "fail": _set_to_failed,
}


def what_was_asked_for_once_is_one_run(history: History) -> Complaints:
    """However often it was asked for under its key."""
    numbers = Counter(run["inputs"]["n"] for run in history.runs.values())
    for number, times in numbers.items():
        if times > 1:
            yield f"{times} runs were made of request {number}"
    for deed in history.deeds:
        if deed.what == "submit" and deed.was_done is False:
            yield f"request {deed.text} was refused: {deed.why}"
    answered = {int(deed.text) for deed in history.deeds if deed.what == "submit" and deed.was_done}
    if missing := answered - set(numbers):
        yield f"requests {missing} were answered, and no run is there"


def logs_are_whole(history: History) -> Complaints:
    """Of attempts that completed; but for those on a disk that was full, where a log is not worth its run."""
    was_full = any(fault.kind == "fill the disk" for fault in history.faults)
    for tried in history.tries:
        kept = history.logs.get((tried.run_id, tried.attempt))
        lines = OPS[history.runs[tried.run_id]["op_definition"]].lines
        whole = b"".join(b"line %d\n" % n for n in range(lines))
        if tried.state == "COMPLETED" and kept != whole and not (was_full and tried.held_by == NARROW):
            yield f"{tried} ({tried.state}) on {tried.held_by} has a log of {len(kept or b'')} of {len(whole)} bytes"


def nothing_is_left(history: History) -> Complaints:
    """No container, network, process or folder of an attempt."""
    yield from history.left


INVARIANTS: Sequence[Callable[[History], Complaints]] = (
    every_run_ended,
    every_life_follows_the_table,
    the_outputs_of_one_attempt_won,
    every_event_is_there_once,
    what_ops_said_is_whole,
    nothing_follows_an_end,
    nothing_changes_after_its_end,
    all_room_is_free,
    no_worker_was_given_too_much,
    attempts_come_one_after_the_other,
    budgets_are_right,
    no_run_was_given_up_too_early,
    every_attempt_is_explained,
    what_was_answered_is_true,
    what_was_asked_for_once_is_one_run,
    logs_are_whole,
    nothing_is_left,
)


def broken(history: History) -> list[str]:
    """Every complaint, with the name of what is broken."""
    return [f"{holds.__name__}: {complaint}" for holds in INVARIANTS for complaint in holds(history)]


def figures(history: History, length_s: float) -> str:
    """A summary for people."""
    rows: dict[str, Counter[Any]] = {
        "runs": Counter(run["state"] for run in history.runs.values()),
        "attempts": Counter(tried.reason or tried.state for tried in history.tries),
        "faults": Counter(fault.kind for fault in history.faults),
        "asked by users": Counter(deed.what for deed in history.deeds),
        "of these unanswered": Counter(deed.what for deed in history.deeds if deed.was_done is None),
        "evictions": Counter(worker for worker, _ in history.evictions),
    }
    lines = [f"{name}: {sum(counts.values())} ({_listed(counts)})" for name, counts in rows.items()]
    return "\n".join([*lines, f"events: {len(history.kept)}", f"duration: {length_s:.0f} s"])


def _listed(counts: Counter[Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def _moment(t: datetime | None) -> datetime:
    assert t is not None
    return t
