"""Pages of runs, newest first, in both directions."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gyoza.control.query import Page, page
from gyoza.models.errors import InvalidQuery
from gyoza.models.lifecycle import OpRunState
from gyoza.models.resources import Constraints
from gyoza.store import new_runs
from gyoza.store.database import Database
from gyoza.store.filters import Filters

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def run_id(n: int) -> str:
    return f"01890000-0000-7000-8000-{n:012d}"


def numbers(page: Page) -> list[int]:
    return [int(run.id[-12:]) for run in page.runs]


@pytest.fixture
async def twelve(shelf: Database) -> AsyncIterator[Database]:
    """Runs 1 to 12, three made at the same moment each, of images a and b in turn."""
    made = [
        new_runs.NewRun(
            id=run_id(n),
            created_at=NOW + timedelta(seconds=(n - 1) // 3),
            priority=5,
            inputs={},
            constraints=Constraints(),
            engines=["docker"],
            image="ab"[n % 2],
        )
        for n in range(1, 13)
    ]
    async with shelf.connection() as connection:
        await connection.execute("DELETE FROM runs")
        await new_runs.insert(connection, made)
        yield shelf
        await connection.execute("DELETE FROM runs")


async def test_the_newest_come_first_and_those_of_one_moment_by_their_ids(twelve: Database):
    found = await page(twelve, Filters(), 5)
    assert (numbers(found), found.has_more) == ([12, 11, 10, 9, 8], True)


async def test_pages_forward_hold_every_run_once_and_the_last_says_so(twelve: Database):
    seen, cursor, more = [], None, True
    while more:
        found = await page(twelve, Filters(), 5, starting_after=cursor)
        seen, cursor, more = [*seen, *numbers(found)], found.runs[-1].id, found.has_more
    assert seen == list(range(12, 0, -1))


@pytest.mark.parametrize(
    ("before", "found", "has_more"), [(4, [9, 8, 7, 6, 5], True), (8, [12, 11, 10, 9], False), (12, [], False)]
)
async def test_a_page_back_holds_the_nearest_still_newest_first(
    twelve: Database, before: int, found: list[int], has_more: bool
):
    answer = await page(twelve, Filters(), 5, ending_before=run_id(before))
    assert (numbers(answer), answer.has_more) == (found, has_more)


async def test_a_page_that_is_exactly_full_has_no_more(twelve: Database):
    assert not (await page(twelve, Filters(), 12)).has_more
    assert not (await page(twelve, Filters(), 3, starting_after=run_id(4))).has_more


async def test_the_cursor_s_run_need_not_match_the_filters(twelve: Database):
    found = await page(twelve, Filters(image="a"), 2, starting_after=run_id(9))
    assert (numbers(found), found.has_more) == ([8, 6], True)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (Filters(image="b"), [11, 9, 7, 5, 3, 1]),
        (Filters(image="c"), []),
        (Filters(state=OpRunState.FAILED), []),
        (Filters(created_gte=NOW + timedelta(seconds=3)), [12, 11, 10]),
        (Filters(created_gt=NOW + timedelta(seconds=2)), [12, 11, 10]),
        (Filters(created_lte=NOW), [3, 2, 1]),
        (Filters(created_lt=NOW + timedelta(seconds=1), image="a"), [2]),
        (Filters(op_definition="add"), []),
    ],
    ids=str,
)
async def test_every_filter_narrows(twelve: Database, filters: Filters, found: list[int]):
    assert numbers(await page(twelve, filters, 100)) == found


@pytest.mark.parametrize(
    "cursors",
    [
        {"starting_after": run_id(99)},
        {"ending_before": run_id(99)},
        {"starting_after": "no id"},
        {"starting_after": run_id(1), "ending_before": run_id(2)},
    ],
    ids=str,
)
async def test_a_cursor_that_leads_nowhere_is_refused(twelve: Database, cursors: dict[str, Any]):
    with pytest.raises(InvalidQuery):
        await page(twelve, Filters(), 5, **cursors)
