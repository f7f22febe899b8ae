"""Who may what: by the scopes of a key, and by the worker that it is bound to."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gyoza.models.errors import Forbidden
from gyoza.models.keys import BOOTSTRAP, GRANTS, Caller, Key, Scope, digest

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
A, S, R, W = Scope.ADMIN, Scope.SUBMIT, Scope.READ, Scope.WORKER
KEY = Key("1", "ci", frozenset({W}), "w1", "abcd", NOW, "me")


def may(scopes: set[Scope], *needed: Scope) -> bool:
    try:
        Caller("ci", frozenset(scopes)).allow(needed)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(("has", "allowed"), [(A, {A, S, R, W}), (S, {S, R}), (R, {R}), (W, {W})])
def test_a_scope_allows_what_it_includes_and_no_more(has: Scope, allowed: set[Scope]):
    assert {needed for needed in Scope if may({has}, needed)} == allowed
    assert GRANTS[has] == allowed


def test_one_of_several_scopes_is_enough():
    assert may({R}, R, W) and may({W}, R, W) and may({R, S}, S)
    assert not may({S}, A, W)


def test_a_workers_key_speaks_for_that_worker_alone():
    one = KEY.caller
    one.allow([W], "w1")
    one.allow([W])
    for other in ("w2", "W1", "w1 ", ""):
        with pytest.raises(Forbidden, match="speaks for worker 'w1' alone"):
            one.allow([W], other)
    BOOTSTRAP.allow([W], "w2")


def test_what_is_lacking_is_told_with_what_there_is():
    with pytest.raises(Forbidden) as refused:
        Caller("ci", frozenset({R, S})).allow([A, W])
    assert refused.value.detail.startswith("The key 'ci' lacks the scope admin or worker: it has read, submit.")


def test_a_key_is_good_until_it_expires_or_is_revoked():
    assert KEY.is_good(NOW + timedelta(days=9999))
    ending = replace(KEY, expires_at=NOW + timedelta(seconds=5))
    assert [ending.is_good(NOW + timedelta(seconds=after)) for after in (0, 4.999, 5, 6)] == [True, True, False, False]
    assert not replace(KEY, revoked_at=NOW).is_good(NOW)


def test_what_is_kept_of_a_key_is_its_sha_256():
    assert digest(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
