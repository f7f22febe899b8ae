"""Reading cgroups of both versions, from files as kernels write them."""

from pathlib import Path

import pytest

from gyoza.worker.engines import usage

V2 = {
    "proc/7/cgroup": "0::/system.slice/docker-abc.scope\n",
    "cgroup/system.slice/docker-abc.scope/memory.current": "9000\n",
    "cgroup/system.slice/docker-abc.scope/memory.stat": "anon 5000\ninactive_file 3000\n",
    "cgroup/system.slice/docker-abc.scope/memory.events": "oom 3\noom_kill 2\noom_group_kill 0\n",
    "cgroup/system.slice/docker-abc.scope/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
}
V1 = {
    "proc/7/cgroup": "5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/docker/abc\n",
    "cgroup/memory/docker/abc/memory.usage_in_bytes": "9000\n",
    "cgroup/memory/docker/abc/memory.stat": "inactive_file 1\ntotal_inactive_file 3000\n",
    "cgroup/memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
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
    assert (usage.read_cgroup(7, "abc"), usage.read_oom_kills(7, "abc")) == ((2.5, 6000), 2)
    for pid, container in ((7, "another"), (8, "abc")):
        assert (usage.read_cgroup(pid, container), usage.read_oom_kills(pid, container)) == (None, 0)


def test_a_container_that_is_only_half_in_its_cgroups_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what the whole machine has computed would be told of it, and all processes taken for its own."""
    for name, text in (V1 | {"cgroup/cpuacct/cpuacct.usage": "9000000000\n", "cgroup/cgroup.procs": "1\n"}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(usage, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(usage, "PROC", tmp_path / "proc")
    for half in ("5:memory:/docker/abc\n3:cpu,cpuacct:/\n0::/\n", "5:memory:/\n3:cpu,cpuacct:/docker/abc\n0::/\n"):
        (tmp_path / "proc/7/cgroup").write_text(half)
        assert usage.read_cgroup(7, "abc") is None


def test_the_most_that_was_seen_is_kept() -> None:
    seen = usage.Usage()
    assert (seen.cpu_s, seen.peak_ram_mb) == (None, None)
    seen.saw(1.0, 3 * usage.MB)
    seen.saw(2.0, usage.MB // 2)
    assert (seen.cpu_s, seen.peak_ram_mb) == (2.0, 3)
