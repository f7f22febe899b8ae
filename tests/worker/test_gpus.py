"""GPUs as a worker sees them, by NVIDIA's library: a faithful fake of it, and the real one without a driver."""

import asyncio
import logging

import pynvml
import pytest

from gyoza.models.errors import AttemptError
from gyoza.models.resources import Gpu
from gyoza.worker import nvml
from gyoza.worker.gpus import Gpus, Share

from .nvml_fake import Card, FakeNvml

LOST = pynvml.NVML_ERROR_GPU_IS_LOST


async def offered(*cards: Card, shares: tuple[Share, ...] = ()) -> tuple[Gpu, ...]:
    return await Gpus(FakeNvml(*cards)).offered(shares)


async def test_the_real_library_tells_what_this_machine_has(caplog: pytest.LogCaptureFixture) -> None:
    """Without a driver: nothing, at once, and without a word. With one: every GPU."""
    seen = await Gpus(nvml.library(), answer_s=60).look()
    assert caplog.messages == []
    if seen.no_driver:
        assert (list(seen.devices), seen.silent) == ([], "NVML Shared Library Not Found")
    else:
        assert all(device.uuid.startswith(("GPU-", "MIG-")) and device.vram > 0 for device in seen.devices)


def test_the_fake_has_every_call_that_the_real_library_is_asked() -> None:
    calls = [name for name in vars(nvml.Nvml) if name.startswith("nvml")]
    assert len(calls) == 13
    assert [name for name in calls if not (callable(getattr(pynvml, name)) and hasattr(FakeNvml, name))] == []


async def test_gpus_are_reported_in_the_order_of_the_driver() -> None:
    assert await offered(Card("GPU-a"), Card("GPU-b", vram_mb=8000, name="Other")) == (
        Gpu(0, "GPU-a", "NVIDIA L4", 24_000),
        Gpu(1, "GPU-b", "Other", 8000),
    )


async def test_parts_of_a_divided_gpu_are_gpus_of_their_own() -> None:
    parts = {0: Card("MIG-x", vram_mb=4864), 3: Card("MIG-y", vram_mb=9856, computing=lambda: {7: 1000})}
    found = await offered(Card("GPU-a"), Card("GPU-b", parts=parts))
    assert [(gpu.id, gpu.uuid, gpu.vram_mb, gpu.foreign_mb) for gpu in found] == [
        (0, "GPU-a", 24_000, 0),
        (200, "MIG-x", 4864, 0),
        (203, "MIG-y", 9856, 1000),
    ]


async def test_what_strangers_and_the_driver_use_is_foreign_and_our_attempts_are_not() -> None:
    card = Card("GPU-a", reserved_mb=300, computing=lambda: {1: 5000, 2: 6000, 3: 700})
    [gpu] = await offered(card, shares=(Share([0], 6000, {2, 20}), Share([0], 1000, {3}), Share([1], 9000, {1})))
    assert gpu.foreign_mb == 5300


async def test_a_process_that_computes_and_draws_is_counted_once() -> None:
    card = Card("GPU-a", computing=lambda: {1: 500}, drawing=lambda: {1: 500, 2: 40})
    [device] = (await Gpus(FakeNvml(card)).look()).devices
    assert device.used_by({1, 2}) == 540 * 2**20


@pytest.mark.parametrize(
    "card",
    [
        Card("GPU-a", reserved_mb=9000, tells_processes=False),
        Card("GPU-a", reserved_mb=9000, computing=lambda: {1: None}),
    ],
)
async def test_where_the_driver_does_not_tell_who_uses_memory_ours_counts_as_declared(card: Card) -> None:
    [gpu] = await offered(card, shares=(Share([0], 6000, {1}),))
    assert gpu.foreign_mb == 3000


async def test_strangers_may_use_more_than_a_gpu_is_said_to_have() -> None:
    [gpu] = await offered(Card("GPU-a", vram_mb=1000, reserved_mb=1200))
    assert gpu.foreign_mb == 1200


async def test_a_gpu_that_is_lost_is_not_there_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeNvml(Card("GPU-a"), Card("GPU-b"), Card("GPU-c"))
    gpus = Gpus(fake)
    fake.cards[1].fault = LOST
    for _ in range(3):
        assert [gpu.id for gpu in await gpus.offered(())] == [0, 2]
    assert caplog.messages == ["GPU 1 is not used, its driver says: GPU is lost"]
    fake.cards[1].fault = None
    assert [gpu.id for gpu in await gpus.offered(())] == [0, 1, 2]
    assert caplog.messages[1:] == ["over: GPU 1 is not used, its driver says: GPU is lost"]


async def test_a_driver_that_fails_leaves_no_gpus_and_is_opened_anew(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeNvml(Card("GPU-a"))
    gpus = Gpus(fake)
    assert len(await gpus.offered(())) == 1
    fake.fault = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    assert await gpus.offered(()) == await gpus.offered(()) == ()
    assert caplog.messages == ["No GPU is used, its driver fails: Driver Not Loaded"]
    fake.fault, fake.inits = None, 0
    assert len(await gpus.offered(())) == 1


async def test_a_driver_that_hangs_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeNvml(Card("GPU-a"))
    gpus = Gpus(fake, answer_s=0.05)
    fake.answers.clear()
    assert await gpus.offered(()) == await gpus.offered(()) == ()
    assert caplog.messages == ["No GPU is used, its driver fails: no answer for 0.05 s"]
    fake.answers.set()
    async with asyncio.timeout(20):
        while not await gpus.offered(()):
            await asyncio.sleep(0.01)


async def test_a_gpu_that_is_gone_is_replaced_by_no_other() -> None:
    gpus = Gpus(FakeNvml(Card("GPU-a"), Card("GPU-b")))
    assert await gpus.uuids([1, 0]) == ("GPU-b", "GPU-a")
    assert await Gpus().uuids([]) == ()
    with pytest.raises(AttemptError, match="GPU 2, on which it was placed, is not on this worker") as caught:
        await gpus.uuids([2])
    assert caught.value.reason == "start_failed"


async def test_that_use_cannot_be_measured_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    gpus = Gpus(FakeNvml(Card("GPU-a", tells_processes=False)))
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        [device] = (await gpus.look()).devices
        gpus.note_silence(device)
    assert caplog.messages == ["GPU 0: the driver does not tell what each process uses; no run is held to it"]
