"""Figures for a monitor, as Prometheus reads them."""

from collections.abc import Iterator, Mapping

from fastapi import Request, Response

from gyoza.control import census
from gyoza.control.census import Census
from gyoza.server.context import READ, Routes, Stream, context

router = Routes("metrics")

TEXT = "text/plain; version=0.0.4; charset=utf-8"


@router.call("GET", "/metrics", READ, answer=Stream(TEXT))
async def get_metrics(request: Request) -> Response:
    """Runs that are not over, workers, and how far events are published.

    In the text format of Prometheus. They are the cluster's: every server tells the same.
    """
    server = context(request)
    taken = await census.take(server.database, server.pace, server.now())
    return Response("\n".join([*_lines(taken), ""]), media_type=TEXT)


def _lines(taken: Census) -> Iterator[str]:
    yield from _by_state("gyoza_runs", "Runs that are not over.", taken.runs)
    yield from _by_state("gyoza_workers", "Workers that are registered.", taken.workers)
    yield from _one("gyoza_workers_quarantined", "gauge", "Workers that take no more runs.", taken.quarantined)
    yield from _one("gyoza_events_unpublished", "gauge", "Events that are not in the feed yet.", taken.unpublished)
    yield from _one("gyoza_feed_position", "counter", "The newest position of the feed.", taken.published)


def _by_state(name: str, what: str, counts: Mapping[str, int]) -> Iterator[str]:
    yield from _head(name, "gauge", what)
    yield from (f'{name}{{state="{state}"}} {count}' for state, count in counts.items())


def _one(name: str, kind: str, what: str, value: int) -> Iterator[str]:
    yield from _head(name, kind, what)
    yield f"{name} {value}"


def _head(name: str, kind: str, what: str) -> Iterator[str]:
    yield f"# HELP {name} {what}"
    yield f"# TYPE {name} {kind}"
