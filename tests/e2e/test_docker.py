"""What only containers can show: images that are not there, the kernel's memory limit, what a killed worker leaves."""

from collections.abc import Callable, Iterator

import aiodocker
import pytest

from gyoza.worker.engines.dockerd import owned

from .conftest import hiring
from .stage import Command, Stage, until

pytestmark = pytest.mark.docker

SMALL = {"cpu": 0.1, "ram_mb": 64}
Hire = Callable[..., Command]
HOARDS = "exec python3 -c 'import time; hoard = b\"x\" * (300 * 2**20); time.sleep(60)'"


@pytest.fixture
def hire(contained: Stage) -> Iterator[Hire]:
    yield from hiring(contained)


async def containers_of(docker: aiodocker.Docker, run_id: str) -> list[str]:
    return await owned(docker, {"gyoza.run": run_id})


@pytest.mark.parametrize(
    ("image", "reasons"),
    [
        ("Not An Image", {"image_not_found"}),
        # Where no registry can be reached nobody can know whether it exists: an infrastructure loss, tried 5 times.
        ("gyoza-tests/no-such-image:latest", {"image_not_found", "image_pull_failed"}),
    ],
)
async def test_an_image_that_cannot_be_had_ends_the_run(contained: Stage, hire: Hire, image: str, reasons: set[str]):
    hire("w")
    run = contained.ended(contained.client.create_run(image, {})["id"], within_s=90)
    assert run["state"] == "FAILED" and run["reason"] in reasons
    assert image in run["execution_summary"]["error_message"]


async def test_an_op_beyond_its_memory_is_killed_and_named(contained: Stage, hire: Hire, docker: aiodocker.Docker):
    hire("w")
    (run_id,) = contained.submit(contained.op("hoards", HOARDS, constraints=SMALL))
    run = contained.ended(run_id, within_s=60)
    assert (run["state"], run["reason"]) == ("FAILED", "oom_killed")
    assert "constraints.ram_mb" in run["execution_summary"]["error_message"]
    assert await containers_of(docker, run_id) == []


async def test_a_cluster_taken_down_with_a_container_running_leaves_none(
    contained: Stage, hire: Hire, docker: aiodocker.Docker
):
    worker = hire("leaving")
    (run_id,) = contained.submit(contained.op("long", "sleep 600", constraints=SMALL))
    contained.reaches(run_id, "RUNNING", within_s=60)
    assert worker.stop(within_s=5) == 0, worker.said
    assert await containers_of(docker, run_id) == []
    until(lambda: contained.client.get_run(run_id)["state"] == "PENDING", "the run is back in the queue")
    contained.client.cancel_run(run_id)
