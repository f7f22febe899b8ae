"""Removing what a killed worker was in the midst of."""

from pathlib import Path

import pytest

from gyoza.worker.engines.cleanup import remove_folder
from gyoza.worker.sweep import remove_unfinished, sweep

from .cluster import Cluster


def test_downloads_and_builds_that_were_broken_off_go_and_bundles_stay(tmp_path: Path) -> None:
    build = tmp_path / "build-x7"
    (build / "bundle").mkdir(parents=True)
    for file in (tmp_path / "b.tar.gz", tmp_path / ".b.tar.gz.01.part", build / "context.tar"):
        file.touch()
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "b.tar.gz"]


async def test_a_folder_that_cannot_go_holds_up_no_other_and_no_start(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [cluster.place.attempts / f"{name}-1" for name in ("first", "second", "third")]
    for folder in folders:
        folder.mkdir(parents=True)

    def remove(folder: Path) -> None:
        if folder == folders[1]:
            raise PermissionError("not mine")
        remove_folder(folder)

    monkeypatch.setattr("gyoza.worker.sweep.remove_folder", remove)
    await sweep(cluster.place, lambda name: False)
    assert [folder.exists() for folder in folders] == [False, True, False]


def test_a_worker_that_had_no_bundle_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_unfinished(tmp_path / "bundles")
