"""Whole units: what is asked for, what is counted, what is left."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gyoza.models.resources import Constraints, Free, Gpu, Resources, Room, cpu_from_wire, cpu_to_wire


@pytest.mark.parametrize(
    ("cpu_m", "wire"),
    [(None, None), (0, 0), (1, 0.001), (500, 0.5), (1000, 1), (1500, 1.5), (64_000, 64), (125, 0.125)],
)
def test_cpu_goes_out_in_cores_and_whole_ones_as_whole_numbers(cpu_m: int | None, wire: float | None):
    assert cpu_to_wire(cpu_m) == wire
    assert type(cpu_to_wire(cpu_m)) is type(wire)


@given(st.integers(0, 10_000_000))
def test_cpu_survives_the_wire_exactly(cpu_m: int):
    wire = cpu_to_wire(cpu_m)
    assert cpu_from_wire(wire) == cpu_m
    assert len(str(wire).partition(".")[2]) <= 3


def test_a_whole_cpu_may_come_as_a_float():
    assert cpu_from_wire(2.0) == 2000


@pytest.mark.parametrize("cpu", [0.0005, 1.2345, 0.9999])
def test_cpu_with_more_than_three_decimals_is_refused(cpu: float):
    with pytest.raises(ValueError, match="more than three decimals"):
        cpu_from_wire(cpu)


def test_what_is_not_declared_is_not_free():
    assert Constraints().counted == Room(cpu_m=1000, ram_mb=256, vram_mb=0)


def test_what_is_declared_counts_also_when_it_is_nothing():
    assert Constraints(cpu_m=0, ram_mb=0, vram_mb=0).counted == Room(0, 0, 0)
    assert Constraints(cpu_m=500, ram_mb=64, vram_mb=100).counted == Room(500, 64, 100)


def test_the_wire_keeps_null_where_nothing_was_declared():
    assert Constraints().to_dict() == {"cpu": None, "ram_mb": None, "vram_mb": None}
    assert Constraints.from_dict(None) == Constraints.from_dict({}) == Constraints()


def test_vram_in_use_by_strangers_is_not_ours_to_give():
    gpus = (Gpu(0, "u0", "A", 16_000, foreign_mb=6_000), Gpu(1, "u1", "A", 16_000))
    assert Resources(4000, 8192, 8, gpus).free == Free(4000, 8192, 8, {0: 10_000, 1: 16_000})


FREE = Free(cpu_m=2000, ram_mb=1024, slots=1, vram_mb={0: 4000, 1: 6000})


@pytest.mark.parametrize(
    ("change", "room", "lacks"),
    [
        ({}, Room(2000, 1024, 6000), ()),
        ({}, Room(2001, 1024), ("cpu",)),
        ({}, Room(2000, 1025), ("ram",)),
        ({"slots": 0}, Room(0, 0), ("slots",)),
        ({}, Room(0, 0, 6001), ("vram",)),
        ({"vram_mb": {}}, Room(0, 0, 1), ("vram",)),
        ({"cpu_m": -1, "slots": -1}, Room(0, 2000, 7000), ("cpu", "ram", "slots", "vram")),
    ],
)
def test_room_fits_or_it_is_named_what_is_too_little(change: dict[str, Any], room: Room, lacks: tuple[str, ...]):
    free = Free(**{**vars(FREE), **change})
    assert free.lacks(room) == lacks
    assert free.fits(room) is (not lacks)


def test_vram_is_taken_from_the_fullest_gpu_on_which_it_fits():
    assert FREE.gpu_for(Room(0, 0, 3000)) == 0
    assert FREE.gpu_for(Room(0, 0, 5000)) == 1
    assert FREE.gpu_for(Room(0, 0, 7000)) is None
    assert FREE.gpu_for(Room(0, 0)) is None


def test_of_two_gpus_alike_the_first_is_taken():
    assert Free(0, 0, 1, {3: 4000, 2: 4000}).gpu_for(Room(0, 0, 1)) == 2


def test_what_is_taken_is_gone_and_the_rest_stays():
    assert FREE.minus(Room(500, 24, 1000), (1,)) == Free(1500, 1000, 0, {0: 4000, 1: 5000})
    assert FREE.minus(Room(500, 24)) == Free(1500, 1000, 0, {0: 4000, 1: 6000})
