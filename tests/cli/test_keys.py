"""`gyoza keys`: a key is printed once and alone, so that a shell can catch it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Gyoza = Callable[..., Any]
FIRST, SECOND = "01980000-0000-7000-8000-0000000000k1", "01980000-0000-7000-8000-0000000000k2"


def test_a_new_key_stands_alone_on_stdout(little: Any, gyoza: Gyoza) -> None:
    result = gyoza("keys", "create", "ci")
    assert (result.exit_code, result.stdout) == (0, "gyoza_secret\n")
    assert result.stderr == f"Key {FIRST} of ci (submit). Keep it now: it is not shown again\n"
    assert little.asked == {"name": "ci"}


def test_a_new_key_as_json_is_what_the_server_answered(little: Any, gyoza: Gyoza) -> None:
    made = json.loads(gyoza("keys", "create", "ci", "-o", "json").stdout)
    assert made == {**little.keys[0], "key": "gyoza_secret"}


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        (("--scope", "read", "--scope", "submit"), {"scopes": ["read", "submit"]}),
        (("--worker", "w1"), {"scopes": ["worker"], "worker": "w1"}),
        (("--scope", "worker", "--worker", "w1"), {"scopes": ["worker"], "worker": "w1"}),
        (("--scope", "worker"), {"scopes": ["worker"]}),
        (("--expires-in", "90d"), {"expires_in_s": 7776000}),
        (("--expires-in", "12h"), {"expires_in_s": 43200}),
        (("--expires-in", "30m"), {"expires_in_s": 1800}),
        (("--expires-in", "45s"), {"expires_in_s": 45}),
    ],
)
def test_what_a_key_is_for_is_said_by_options(little: Any, gyoza: Gyoza, options: Any, asked: dict[str, Any]) -> None:
    assert gyoza("keys", "create", "ci", *options).exit_code == 0
    assert little.asked == {"name": "ci", **asked}


def test_a_key_that_ends_says_when(little: Any, gyoza: Gyoza) -> None:
    stderr = gyoza("keys", "create", "ci", "--expires-in", "1d").stderr
    assert stderr == f"Key {FIRST} of ci (submit, until 2026-03-01 12:00:09 UTC). Keep it now: it is not shown again\n"


@pytest.mark.parametrize("options", [("--expires-in", "soon"), ("--expires-in", "90"), ("--scope", "root")])
def test_what_makes_no_sense_is_refused_before_a_key_is_made(
    little: Any, gyoza: Gyoza, options: tuple[str, str]
) -> None:
    assert gyoza("keys", "create", "ci", *options).exit_code == 2
    assert little.keys == []


def test_keys_are_listed(little: Any, gyoza: Gyoza) -> None:
    gyoza("keys", "create", "ci", "--expires-in", "1d")
    gyoza("keys", "create", "box", "--worker", "w1")
    little.keys[0]["last_used_at"] = little.keys[0]["created_at"]
    assert gyoza("keys", "ls").stdout == (
        "ID                                    NAME  SCOPES  WORKER  HINT  "
        "CREATED (UTC)        EXPIRES              REVOKED  LAST USED\n"
        f"{FIRST}  ci    submit  -       cret  2026-03-01 12:00:00  2026-03-01 12:00:09  -        2026-03-01 12:00:00\n"
        f"{SECOND}  box   worker  w1      cret  2026-03-01 12:00:00  -                    -        -\n"
    )
    assert json.loads(gyoza("keys", "ls", "-o", "json").stdout) == little.keys


def test_a_key_is_revoked_by_its_id(little: Any, gyoza: Gyoza) -> None:
    little.keys = [{**key_row(little, gyoza), "id": "01980000-0000-7000-8000-000000000009"}]
    result = gyoza("keys", "revoke", "01980000-0000-7000-8000-000000000009")
    assert (result.stdout, result.stderr) == ("", "revoked 01980000-0000-7000-8000-000000000009\n")
    assert little.keys[0]["revoked_at"]


def key_row(little: Any, gyoza: Gyoza) -> dict[str, Any]:
    gyoza("keys", "create", "ci")
    return little.keys.pop()


def test_a_key_is_revoked_by_its_name_where_no_other_has_it(little: Any, gyoza: Gyoza) -> None:
    gyoza("keys", "create", "ci")
    gyoza("keys", "create", "other")
    assert gyoza("keys", "revoke", "ci").stderr == f"revoked {FIRST}\n"
    assert [bool(key["revoked_at"]) for key in little.keys] == [True, False]


def test_of_two_keys_of_one_name_it_must_be_said_which(little: Any, gyoza: Gyoza) -> None:
    gyoza("keys", "create", "ci")
    gyoza("keys", "create", "ci")
    result = gyoza("keys", "revoke", "ci")
    assert result.exit_code == 2
    assert "2 keys are named 'ci'" in result.stderr
    assert not any(key["revoked_at"] for key in little.keys)
    little.keys[0]["revoked_at"] = "2026-03-01T12:00:00.000000+00:00"
    assert gyoza("keys", "revoke", "ci").stderr == f"revoked {SECOND}\n"


def test_a_key_that_is_not_there_is_one_line(little: Any, gyoza: Gyoza) -> None:
    result = gyoza("keys", "revoke", "nobody")
    assert (result.exit_code, result.stderr) == (2, "gyoza: Key 'nobody' not found\n")
