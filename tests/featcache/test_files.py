"""A file is there whole or not at all, and what stood there stays until then."""

import os

import pytest

from featcache.errors import FormatError
from featcache.files import replacing, write_file


@pytest.mark.parametrize("shared", [True, False])
def test_a_file_in_the_making_has_another_name(tmp_path, shared):
    """Its name is the process's own where another one may write the same file."""
    path = tmp_path / "new" / "f"
    with replacing(path, shared=shared) as scratch:
        scratch.write_bytes(b"content")
        assert [file.name for file in path.parent.iterdir()] == [scratch.name]
        assert (str(os.getpid()) in scratch.name) == shared
    assert [file.name for file in path.parent.iterdir()] == ["f"]
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("begun", [True, False])
def test_what_fails_leaves_what_was_there(tmp_path, error, begun):
    path = tmp_path / "f"
    write_file(path, b"old")

    def write(scratch):
        if begun:
            scratch.write_bytes(b"ne")
        raise error

    with pytest.raises(type(error)), replacing(path) as scratch:
        write(scratch)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"old"}


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    write_file(tmp_path / "f", b"old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "f"):
        pass
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_folder_is_not_replaced(tmp_path):
    with pytest.raises(FormatError, match="is a folder; name a file"):
        write_file(tmp_path, b"content")
    assert list(tmp_path.iterdir()) == []
    assert not list(tmp_path.parent.glob(".*.partial"))


def test_leftovers_of_a_kill_are_written_over(tmp_path):
    (tmp_path / ".f.partial").write_bytes(b"a longer one that a kill has left behind")
    write_file(tmp_path / "f", b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"f": b"new"}
