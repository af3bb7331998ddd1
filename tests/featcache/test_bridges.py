"""Every file of featcache/bridges keeps the contract of a bridge (featcache/testing/bridges.py)."""

from types import SimpleNamespace

import pytest

from featcache import bridges
from featcache.errors import ConfigError, FormatError
from featcache.testing import BridgeTests


class TestBridges(BridgeTests):
    @pytest.fixture(params=bridges.names())
    def bridge(self, request):
        if request.param == "parquet":
            pytest.importorskip("pyarrow")
        return bridges.load(request.param)


@pytest.mark.parametrize("message", ["no such file", "{path.name} is not there"])
def test_an_error_without_the_path_breaks_the_contract(tmp_path, message):
    def read(path, ids):
        raise FormatError(message.format(path=path))

    with pytest.raises(AssertionError, match="did not match"):
        BridgeTests().test_nothing_there(SimpleNamespace(read=read), tmp_path)


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(ConfigError, match="no format 'pkl'.*hdf5.*npz"):
        bridges.load("pkl")


def test_files_of_ids(tmp_path, monkeypatch):
    path = tmp_path / "ids.txt"
    for missing in (path, tmp_path / "none" / "ids.txt"):
        with pytest.raises(FormatError, match=f"no file of ids {missing}; .*one id per line"):
            bridges.read_ids(missing)
    with pytest.raises(FormatError, match=f"{tmp_path} is a folder; name a file"):
        bridges.read_ids(tmp_path)
    path.write_bytes("\ufeff007\r\né\n a\n".encode())
    assert bridges.read_ids(path) == ["007", "é", " a"]
    path.write_bytes(b"\xff")
    with pytest.raises(FormatError, match=f"{path} is not UTF-8"):
        bridges.read_ids(path)

    def fails(path):
        raise error

    monkeypatch.setattr(type(path), "read_bytes", fails)
    error = PermissionError(13, "Permission denied")
    with pytest.raises(FormatError, match=f"{path} cannot be read: permission denied"):
        bridges.read_ids(path)
    error = OSError(5, "Input/output error")  # the machine's fault, not the user's
    with pytest.raises(OSError, match="Input/output") as raised:
        bridges.read_ids(path)
    assert raised.value is error
