"""What the database itself refuses to store, and that it knows the very words that the models know."""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import psycopg
import pytest
from psycopg.errors import CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation

from gyoza.models.keys import Scope
from gyoza.models.lifecycle import EventType, OpRunState
from gyoza.models.reasons import Reason

RUN = "01890000-0000-7000-8000-000000000001"
HELD = {"held_by": "w1", "lease_token": "lease", "assigned_at": "now"}
ENDED = {"finished_at": "now", "settled_at": "now"}


@pytest.fixture
def shelf_rows(shelf_url: str) -> Iterator[psycopg.Connection]:
    """A run without attempts and a worker, in a transaction that is undone."""
    with psycopg.connect(shelf_url) as connection:
        insert(connection, "runs", **run_row())
        insert(connection, "workers", **worker_row())
        yield connection
        connection.rollback()


def insert(connection: psycopg.Connection, table: str, **values: Any) -> None:
    names = ", ".join(values)
    marks = ", ".join(["%s"] * len(values))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})".encode(), list(values.values()))


def run_row(**other: Any) -> dict[str, Any]:
    times = dict.fromkeys(("queue_at", "created_at", "updated_at"), "now")
    row = {"id": RUN, "state": "PENDING", "priority": 5, "inputs": "{}", "max_attempts": 1, "engines": ["docker"]}
    return {**row, **times, **other}


def worker_row() -> dict[str, Any]:
    lists: dict[str, Any] = {name: [] for name in ("tags", "engines", "images")}
    times = dict.fromkeys(("registered_at", "seen_at"), "now")
    return {"id": "w1", "instance": "i", "host_id": "h", "seq": 1, "resources": "{}", **lists, **times}


def attempt(connection: psycopg.Connection, **values: Any) -> None:
    insert(connection, "attempts", **{"run_id": RUN, "attempt": 1, "state": "PENDING", **values})


def event(connection: psycopg.Connection, **values: Any) -> None:
    row = {"run_id": RUN, "n": 0, "attempt": 1, "type": "INFO", "t": "now", "msg": '"x"'}
    insert(connection, "events", **{**row, **values})


@pytest.mark.parametrize(
    ("table", "column", "words"),
    [
        ("runs", "state", OpRunState),
        ("attempts", "state", OpRunState),
        ("events", "type", EventType),
        ("attempts", "reason", Reason),
        ("keys", "scopes", Scope),
    ],
)
def test_the_database_knows_the_very_words_that_the_models_know(
    shelf_rows: psycopg.Connection, table: str, column: str, words: type[StrEnum]
):
    query = """
        SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c' AND conrelid = %s::regclass
            AND conkey = ARRAY[(SELECT attnum FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s)]
        """
    ((check,),) = shelf_rows.execute(query, [table, table, column]).fetchall()
    assert set(re.findall(r"'(\w+)'::text", check)) == set(words)


@pytest.mark.parametrize(
    "impossible",
    [
        {"held_by": "w1"},
        {"lease_token": "lease"},
        {"held_by": "w1", "lease_token": "lease"},
        {"assigned_at": "now"},
        {"state": "ASSIGNED"},
        {"state": "ASSIGNED", **HELD, "finished_at": "now"},
        {"state": "RUNNING", "settled_at": "now"},
        {"state": "RUNNING", "reason": "op_error"},
        {"state": "COMPLETED"},
        {"state": "COMPLETED", **ENDED, "reason": "op_error"},
        {"state": "COMPLETED", "finished_at": "now"},
        {"state": "FAILED", **ENDED},
        {"state": "CANCELLED", **ENDED},
        {"state": "FAILED", **ENDED, "reason": "bad_luck"},
        {"state": "DONE"},
        {"progress": 101},
        {"progress": -1},
        {"attempt": 0},
    ],
    ids=str,
)
def test_an_impossible_attempt_is_refused(shelf_rows: psycopg.Connection, impossible: dict[str, Any]):
    with pytest.raises(CheckViolation):
        attempt(shelf_rows, **impossible)


@pytest.mark.parametrize(
    "possible",
    [
        {},
        {"state": "ASSIGNED", **HELD},
        {"state": "RUNNING"},
        {"state": "RUNNING", **HELD},
        {"state": "COMPLETED", **ENDED},
        {"state": "COMPLETED", **HELD, "finished_at": "now"},
        {"state": "CANCELLED", **HELD, **ENDED, "reason": "cancelled"},
    ],
    ids=str,
)
def test_a_possible_one_is_kept(shelf_rows: psycopg.Connection, possible: dict[str, Any]):
    attempt(shelf_rows, **possible)


@pytest.mark.parametrize(
    "impossible",
    [
        {"state": "DONE"},
        {"priority": 1001},
        {"priority": -1001},
        {"max_attempts": 0},
        {"cpu_m": -1},
        {"ram_mb": -1},
        {"vram_mb": -1},
        {"engines": []},
        {"current_attempt": 0},
        {"op_definition": "add"},
        {"revision": 1},
    ],
    ids=str,
)
def test_an_impossible_run_is_refused(shelf_rows: psycopg.Connection, impossible: dict[str, Any]):
    with pytest.raises(psycopg.IntegrityError):
        insert(shelf_rows, "runs", **run_row(id=RUN[:-1] + "2", **impossible))


@pytest.mark.parametrize(
    ("impossible", "violation"),
    [
        ({"n": -1}, CheckViolation),
        ({"type": "DONE"}, CheckViolation),
        ({"msg": None}, NotNullViolation),
        ({"run_id": RUN[:-1] + "9"}, ForeignKeyViolation),
    ],
    ids=str,
)
def test_an_impossible_event_is_refused(
    shelf_rows: psycopg.Connection, impossible: dict[str, Any], violation: type[Exception]
):
    with pytest.raises(violation):
        event(shelf_rows, **impossible)


def key(connection: psycopg.Connection, **values: Any) -> None:
    who = {"name": "ci", "scopes": ["submit"], "created_by": "me", "created_at": "now"}
    insert(connection, "keys", **{"id": RUN, "hash": b"h" * 32, "hint": "abcd", **who, **values})


@pytest.mark.parametrize(
    "impossible",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": ["worker"]},
        {"worker": "w1"},
        {"worker": "w1", "scopes": ["worker", "read"]},
        {"scopes": ["worker", "read"]},
        {"hash": b"the text itself"},
    ],
    ids=str,
)
def test_an_impossible_key_is_refused(shelf_rows: psycopg.Connection, impossible: dict[str, Any]):
    with pytest.raises(CheckViolation):
        key(shelf_rows, **impossible)


def test_two_keys_may_have_one_name_but_not_one_hash(shelf_rows: psycopg.Connection):
    key(shelf_rows)
    key(shelf_rows, id=RUN[:-1] + "2", hash=b"g" * 32, scopes=["worker"], worker="w1")
    with pytest.raises(UniqueViolation):
        key(shelf_rows, id=RUN[:-1] + "3")


def test_an_event_number_is_given_once(shelf_rows: psycopg.Connection):
    event(shelf_rows)
    with pytest.raises(UniqueViolation):
        event(shelf_rows)


def test_an_attempt_is_held_by_a_worker_that_exists(shelf_rows: psycopg.Connection):
    with pytest.raises(ForeignKeyViolation):
        attempt(shelf_rows, state="ASSIGNED", **{**HELD, "held_by": "nobody"})


def test_a_run_refers_to_a_revision_that_exists(shelf_rows: psycopg.Connection):
    with pytest.raises(ForeignKeyViolation):
        insert(shelf_rows, "runs", **run_row(id=RUN[:-1] + "2", op_definition="none", revision=1))


@pytest.mark.parametrize("table", ["cluster", "leader"])
def test_there_is_one_cluster_and_one_leader(shelf_rows: psycopg.Connection, table: str):
    assert shelf_rows.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (1,)
    with pytest.raises(UniqueViolation):
        shelf_rows.execute(f"INSERT INTO {table} DEFAULT VALUES".encode())
