import json
import os

import pytest

from avat3r_ros.files import whole_file, write_bytes, write_json, write_text


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "scores.json"
    write_json(path, {"psnr": 20.0})
    with whole_file(path) as partial:
        partial.write_text('{"psnr"')
        assert json.loads(path.read_text()) == {"psnr": 20.0}
        partial.write_text('{"psnr": 21.0}')
    assert json.loads(path.read_text()) == {"psnr": 21.0}
    assert os.listdir(tmp_path) == ["scores.json"]


def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "me.avat3r"
    write_bytes(path, b"last good state")
    with pytest.raises(OSError, match="disk full"), whole_file(path) as partial:
        partial.write_bytes(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"last good state"
    assert os.listdir(tmp_path) == ["me.avat3r"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "empty"):
        pass
    assert not os.listdir(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere to write a\.txt into"):
        write_text(tmp_path / "nowhere" / "a.txt", "x")


def test_a_new_file_has_the_permissions_of_any_other(tmp_path):
    write_text(tmp_path / "ours", "ü")
    (tmp_path / "plain").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "ours").read_text(encoding="utf-8") == "ü"
