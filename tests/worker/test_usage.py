"""Reading cgroups of both versions, from files as kernels write them."""

from pathlib import Path

import pytest

from gyoza.worker.engines import usage

V2 = {
    "proc/7/cgroup": "0::/system.slice/docker-abc.scope\n",
    "cgroup/system.slice/docker-abc.scope/memory.current": "9000\n",
    "cgroup/system.slice/docker-abc.scope/memory.stat": "anon 5000\ninactive_file 3000\n",
    "cgroup/system.slice/docker-abc.scope/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
}
V1 = {
    "proc/7/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
    "cgroup/memory/docker/abc/memory.usage_in_bytes": "9000\n",
    "cgroup/memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 3000\n",
    "cgroup/cpuacct/docker/abc/cpuacct.usage": "2500000000\n",
}


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_a_container_is_read_and_a_stranger_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(usage, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(usage, "PROC", tmp_path / "proc")
    assert usage.read_cgroup(7, "abc") == (2.5, 6000)
    assert usage.read_cgroup(7, "another") is None
    assert usage.read_cgroup(8, "abc") is None


def test_the_most_that_was_seen_is_kept() -> None:
    seen = usage.Usage()
    assert (seen.cpu_s, seen.peak_ram_mb) == (None, None)
    seen.saw(1.0, 3 * usage.MB)
    seen.saw(2.0, usage.MB // 2)
    assert (seen.cpu_s, seen.peak_ram_mb) == (2.0, 3)
