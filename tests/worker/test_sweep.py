"""Removing what a killed worker was in the midst of."""

from pathlib import Path

from gyoza.worker.sweep import remove_unfinished


def test_downloads_and_builds_that_were_broken_off_go_and_bundles_stay(tmp_path: Path) -> None:
    build = tmp_path / "build-x7"
    (build / "bundle").mkdir(parents=True)
    for file in (tmp_path / "b.tar.gz", tmp_path / ".b.tar.gz.01.part", build / "context.tar"):
        file.touch()
    remove_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "b.tar.gz"]


def test_a_worker_that_had_no_bundle_has_nothing_to_remove(tmp_path: Path) -> None:
    remove_unfinished(tmp_path / "bundles")
