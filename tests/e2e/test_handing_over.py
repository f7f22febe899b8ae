"""How long a run waits on an idle cluster: until it is handed to its worker, and until its program runs."""

from collections.abc import Callable
from datetime import datetime
from statistics import median

from .stage import Command, Stage


def test_an_idle_cluster_hands_a_run_over_at_once(
    served: Stage, hire: Callable[..., Command], record_testsuite_property: Callable[[str, object], None]
):
    hire("idle")
    op = served.op("nothing", ":", constraints={"cpu": 0.1, "ram_mb": 32})
    assert served.ended(*served.submit(op))["state"] == "COMPLETED"  # its bundle is unpacked now
    runs = [served.ended(*served.submit(op)) for _ in range(10)]
    assigned = [waited_s(run, "ASSIGNED") for run in runs]
    started = [waited_s(run, "STARTED") for run in runs]
    said = f"assigned after {1000 * median(assigned):.0f} ms, started after {1000 * median(started):.0f} ms"
    print(said)
    record_testsuite_property("handing over", said)
    # Far from a tick of a second, on a machine that may be busy.
    assert median(assigned) < 0.5 and median(started) < 0.8, said


def waited_s(run: dict, event: str) -> float:
    at = next(each["t"] for each in run["events"] if each["type"] == event)
    return (datetime.fromisoformat(at) - datetime.fromisoformat(run["created_at"])).total_seconds()
