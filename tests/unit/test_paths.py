from pathlib import Path

from gyoza.models.paths import data_dir

HOME = Path("/home/ann/.local/share/gyoza")


def test_the_data_folder_that_is_named_wins_for_everyone():
    assert (
        data_dir({"GYOZA_DATA_DIR": "/data"}, 0, HOME)
        == data_dir({"GYOZA_DATA_DIR": "/data"}, 1, HOME)
        == Path("/data")
    )
    for euid in (0, 1000):
        assert data_dir({"GYOZA_DATA_DIR": "/data"}, euid, HOME) == Path("/data")
    assert data_dir({"GYOZA_DATA_DIR": "here"}, 1, HOME) == Path.cwd() / "here"


def test_root_s_data_lies_where_another_account_can_read_it_and_a_user_s_at_home():
    assert data_dir({}, 0, HOME) == Path("/var/lib/gyoza")
    assert data_dir({"GYOZA_DATA_DIR": ""}, 1000, HOME) == HOME
