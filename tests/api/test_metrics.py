"""What a monitor reads."""

from collections.abc import Callable

import httpx

from .actors import Worker, in_state, submit


async def figures(api: httpx.AsyncClient) -> dict[str, str]:
    answer = await api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in answer.text.splitlines() if not line.startswith("#")]
    return dict(line.rsplit(" ", 1) for line in lines)


async def test_what_is_alive_is_counted(alone: httpx.AsyncClient, worker: Callable[..., Worker]):
    before = await figures(alone)
    assert {value for name, value in before.items() if name != "gyoza_feed_position"} == {"0"}
    await submit(alone, constraints={"cpu": 1000})
    await in_state(alone, "RUNNING")
    await in_state(alone, "COMPLETED")
    await worker("w1").beat()
    after = await figures(alone)
    assert after['gyoza_runs{state="PENDING"}'] == after['gyoza_runs{state="RUNNING"}'] == "1"
    assert after['gyoza_runs{state="ASSIGNED"}'] == after['gyoza_workers{state="lost"}'] == "0"
    assert after['gyoza_workers{state="alive"}'] == "1"
