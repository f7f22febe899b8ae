from datetime import timedelta

import pytest

from gyoza.policy.liveness import Liveness, Pace, liveness

from .builders import NOW

PACE = Pace(heartbeat_s=5, lease_s=20)


@pytest.mark.parametrize(
    ("silence_s", "expected"),
    [(-1, "alive"), (0, "alive"), (10, "alive"), (10.001, "late"), (20, "late"), (20.001, "lost"), (86_400, "lost")],
)
def test_a_worker_is_late_after_two_beats_and_lost_when_its_lease_is_over(silence_s: float, expected: str):
    assert liveness(NOW - timedelta(seconds=silence_s), NOW, PACE) is Liveness(expected)


def test_a_lease_outlives_several_heartbeats_by_default():
    assert Pace().lease_s > 3 * Pace().heartbeat_s
