"""Runs whose time is over go by themselves, with everything that belongs to them; pinned ones stay."""

from dataclasses import replace

import httpx
import pytest

from gyoza.server import loops

from .actors import get, in_state, refused, submit, told, until


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    tidying = next(duty for duty in loops.DUTIES if duty.name == "tidying")
    monkeypatch.setattr(
        loops, "DUTIES", (*(d for d in loops.DUTIES if d is not tidying), replace(tidying, idle_s=0.05))
    )


async def is_gone(api: httpx.AsyncClient, run_id: str) -> bool:
    return (await api.get(f"/runs/{run_id}")).status_code == 404


async def test_a_run_goes_when_it_said_so_and_a_pinned_one_stays(alone: httpx.AsyncClient):
    pinned = await in_state(alone, "RUNNING", delete_after_s=0)
    told(await alone.patch(f"/runs/{pinned['id']}", json={"pinned": True, "state": "COMPLETED"}))
    kept = await in_state(alone, "COMPLETED")
    waiting = await submit(alone, delete_after_s=0)
    going = await in_state(alone, "COMPLETED", delete_after_s=0)
    await until(lambda: is_gone(alone, going["id"]))
    for path in ("", "/events", "/attempts", "/logs", "/wait?timeout_s=0", "/events/stream"):
        refused(await alone.get(f"/runs/{going['id']}{path}"), 404, "run_not_found")
    assert [(await get(alone, run))["state"] for run in (pinned, kept, waiting)] == [
        "COMPLETED",
        "COMPLETED",
        "PENDING",
    ]
    told(await alone.patch(f"/runs/{pinned['id']}", json={"pinned": False}))
    await until(lambda: is_gone(alone, pinned["id"]))
