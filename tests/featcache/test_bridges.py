"""Every bridge keeps what it says it keeps and loses what it says it loses, and answers bad files with one error."""

import importlib
import shutil

import numpy as np
import pytest

from featcache import bridges
from featcache.bridges import WORDS, External
from featcache.errors import ConfigError, FormatError

ODD_IDS = ("007", "a b", "é", "x/y", "a.b.c", "..", ".", "/x", "x/", " lead", "trail ", "%2F", "new\nline", "\r", "%")
NAMES = bridges.names()


def load(name):
    if name == "parquet":
        pytest.importorskip("pyarrow")
    return bridges.load(name)


def table(ids=("c", "a", "b"), lengths=None, row=(4,), dtype=np.float32, times=False, recipe=None, windows=3, seed=0):
    """Clips of random rows, in an order that no sorting gives."""
    rng = np.random.default_rng(seed)
    lengths = lengths or [windows] * len(ids)
    rows = [rng.normal(size=(t, *row)).astype(dtype) for t in lengths]
    starts = [np.arange(t) / 3 for t in lengths]
    return External(ids, rows.__getitem__, (lambda k: (starts[k], starts[k] + 0.5)) if times else None, recipe or {})


def back(bridge, path, tables):
    bridge.write(path, tables)
    return bridge.read(path, None)


def assert_rows(found, expected, dtype=None, shape=None):
    """Equal ids in equal order, equal rows to the last bit."""
    assert list(found.ids) == list(expected.ids)
    for k in range(len(expected.ids)):
        row, wanted = found.row(k), expected.row(k)
        wanted = wanted.astype(dtype or wanted.dtype).reshape((len(wanted), *shape) if shape else wanted.shape)
        assert (row.dtype, row.shape) == (wanted.dtype, wanted.shape)
        assert row.tobytes() == wanted.tobytes()


def refused(bridge, path, tables):
    """Whether writing is refused as it should be: by a FormatError, and nothing is there."""
    try:
        bridge.write(path, tables)
    except FormatError:
        assert not path.exists()
        return True
    return False


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def bridge(name):
    return load(name)


@pytest.fixture
def plain(bridge):
    """Options of a table that every format can hold."""
    return {"windows": 3 if "windows" in bridge.KEEPS else 1}


def test_a_bridge_says_what_it_is_and_keeps(name):
    module = importlib.import_module(f"featcache.bridges.{name}")
    first = module.__doc__.split("\n\n")[0]
    assert first.endswith(".")
    assert len(first) > 20
    assert frozenset(WORDS) >= module.KEEPS


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


def test_one_key_comes_back_in_the_order_of_the_file(bridge, plain, tmp_path):
    (found,) = back(bridge, tmp_path / "f", {"rgb": table(**plain)}).values()
    assert_rows(found, table(**plain))


def test_several_keys(bridge, plain, tmp_path):
    tables = {"rgb": table(**plain), "flow": table(row=(6,), seed=1, **plain)}
    if "several" not in bridge.KEEPS:
        assert refused(bridge, tmp_path / "f", tables)
        return
    found = back(bridge, tmp_path / "f", tables)
    assert list(found) == list(tables)
    for key in tables:
        assert_rows(found[key], tables[key])


def test_keys_with_different_clips(bridge, plain, tmp_path):
    """As in two stores of one manifest, of which one lacks a clip: kept or refused, never mixed up."""
    tables = {"rgb": table(**plain), "flow": table(("c", "b"), seed=1, **plain)}
    if refused(bridge, tmp_path / "f", tables):
        return
    found = bridge.read(tmp_path / "f", None)
    for key in tables:
        assert_rows(found[key], tables[key])


def test_windows(bridge, tmp_path):
    tables = {"rgb": table(windows=5)}
    if "windows" in bridge.KEEPS:
        assert_rows(back(bridge, tmp_path / "f", tables).popitem()[1], tables["rgb"])
    elif not refused(bridge, tmp_path / "f", tables):
        assert bridge.read(tmp_path / "f", None).popitem()[1].row(0).shape != (5, 4)


def test_ragged_clips(bridge, tmp_path):
    tables = {"rgb": table(lengths=[2, 1, 3])}
    if "ragged" in bridge.KEEPS:
        assert_rows(back(bridge, tmp_path / "f", tables).popitem()[1], tables["rgb"])
    else:
        assert refused(bridge, tmp_path / "f", tables)


@pytest.mark.parametrize("shape", [(2, 5), (3, 1, 2)])
def test_shape_of_rows(bridge, plain, tmp_path, shape):
    tables = {"rgb": table(row=shape, **plain)}
    if "shape" in bridge.KEEPS:
        assert_rows(back(bridge, tmp_path / "f", tables).popitem()[1], tables["rgb"])
    elif not refused(bridge, tmp_path / "f", tables):
        flat = (int(np.prod(shape)),)
        assert_rows(bridge.read(tmp_path / "f", None).popitem()[1], tables["rgb"], shape=flat)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_dtype(bridge, plain, tmp_path, dtype):
    tables = {"rgb": table(dtype=dtype, **plain)}
    kept = dtype if "dtype" in bridge.KEEPS else "float32"
    assert_rows(back(bridge, tmp_path / "f", tables).popitem()[1], tables["rgb"], kept)


def test_edges_of_the_dtypes(bridge, plain, tmp_path):
    """Subnormal and largest values, -0 and NaN come back bit for bit."""
    info = np.finfo(np.float32)
    row = np.array([[info.max, info.tiny, info.smallest_subnormal, -0.0]] * plain["windows"], np.float32)
    nan = np.array([[np.nan, np.inf, -np.inf, 0.1]] * plain["windows"], np.float32)
    rows = [row, nan]
    tables = {"rgb": External(["a", "b"], rows.__getitem__)}
    assert_rows(back(bridge, tmp_path / "f", tables).popitem()[1], tables["rgb"])


def test_ids(bridge, plain, tmp_path):
    if "ids" in bridge.KEEPS:
        tables = {"rgb": table(ODD_IDS, **plain)}
        assert_rows(back(bridge, tmp_path / "f", tables).popitem()[1], tables["rgb"])
        return
    accepted = []
    for number, clip_id in enumerate(ODD_IDS):
        tables = {"rgb": table(("plain", clip_id), **plain)}
        path = tmp_path / str(number) / "f"
        path.parent.mkdir()
        if not refused(bridge, path, tables):
            found = bridge.read(path, None)["rgb" if "several" in bridge.KEEPS else next(iter(bridge.read(path, None)))]
            assert sorted(found.ids) == sorted(tables["rgb"].ids)
            accepted.append(clip_id)
    assert {"007", "é"} <= set(accepted)
    assert len(accepted) < len(ODD_IDS), "every id is kept: say so in KEEPS"


def test_times(bridge, plain, tmp_path):
    tables = {"rgb": table(times=True, **plain)}
    (found,) = back(bridge, tmp_path / "f", tables).values()
    if "times" not in bridge.KEEPS:
        assert found.times is None
        return
    for k in range(3):
        for mine, theirs in zip(found.times(k), tables["rgb"].times(k), strict=True):
            assert mine.dtype == np.float64
            np.testing.assert_array_equal(mine, theirs)


def test_times_of_ragged_clips(bridge, tmp_path):
    if not {"times", "ragged"} <= bridge.KEEPS:
        pytest.skip("refused, or not kept")
    tables = {"rgb": table(lengths=[2, 1, 3], times=True), "flow": table(lengths=[1, 1, 1], times=True)}
    tables = tables if "several" in bridge.KEEPS else {"rgb": tables["rgb"]}
    found = back(bridge, tmp_path / "f", tables)
    for key, expected in tables.items():
        for k in range(3):
            np.testing.assert_array_equal(found[key].times(k), expected.times(k))


def test_recipe(bridge, plain, tmp_path):
    recipe = {"extractor": "hog", "params": {"size": 0.1, "name": "é"}, "list": [1, None]}
    tables = {"rgb": table(recipe=recipe, **plain)}
    (found,) = back(bridge, tmp_path / "f", tables).values()
    assert found.recipe == (recipe if "recipe" in bridge.KEEPS else {})


def content(path):
    """Every file at a path, which is a file or a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files}


def test_equal_features_give_equal_files(bridge, plain, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        bridge.write(tmp_path / folder / "f", {"rgb": table(**plain)})
    assert content(tmp_path / "a" / "f") == content(tmp_path / "b" / "f")


def test_a_write_that_fails_leaves_what_was_there(bridge, plain, tmp_path):
    old, new = table(**plain), table(seed=1, **plain)
    calls = 0

    def row(k):
        nonlocal calls
        calls += 1
        if calls == most:
            raise OSError(28, "No space left on device")
        return new.row(k)

    most = None
    bridge.write(tmp_path / "f", {"rgb": External(new.ids, row)})
    bridge.write(tmp_path / "f", {"rgb": old})
    before = content(tmp_path)
    most, calls = calls, 0  # the last row that is asked for
    with pytest.raises(OSError, match="No space"):
        bridge.write(tmp_path / "f", {"rgb": External(new.ids, row)})
    assert content(tmp_path) == before
    (found,) = bridge.read(tmp_path / "f", None).values()
    assert_rows(found, old)


def test_a_second_write_replaces_the_first_whole(bridge, plain, tmp_path):
    bridge.write(tmp_path / "f", {"rgb": table(("c", "a", "b", "d"), **plain)})
    (found,) = back(bridge, tmp_path / "f", {"rgb": table(("e", "a"), seed=1, **plain)}).values()
    assert_rows(found, table(("e", "a"), seed=1, **plain))


def test_two_writes_at_once_do_not_meet(bridge, plain, tmp_path, monkeypatch):
    """Another process replaces the file while this one is about to: the last to end stands there, whole."""
    mine, theirs, path = table(**plain), table(("e", "a"), seed=1, **plain), tmp_path / "f"
    bridge.write(path, {"rgb": theirs})
    calls = 0

    def row(k):
        nonlocal calls
        calls += 1
        if calls == most:
            with monkeypatch.context() as patch:
                patch.setattr("os.getpid", lambda: 1)
                bridge.write(path, {"rgb": theirs})
            (found,) = bridge.read(path, None).values()
            assert_rows(found, theirs)
        return mine.row(k)

    most = None
    bridge.write(path, {"rgb": External(mine.ids, row)})
    before = content(tmp_path)
    most, calls = calls, 0  # the last row that is asked for
    bridge.write(path, {"rgb": External(mine.ids, row)})
    assert calls == most
    assert content(tmp_path) == before
    (found,) = bridge.read(path, None).values()
    assert_rows(found, mine)


def all_of(bridge, path):
    """Read everything that a file offers."""
    for found in bridge.read(path, None).values():
        for k in range(len(found.ids)):
            found.row(k)
            if found.times is not None:
                found.times(k)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"these are no features\n" * 40, b"\x89PNG\r\n\x1a\n" + bytes(900), b"PK\x05\x06" + bytes(18)],
    ids=["empty", "zero byte", "text", "picture", "empty zip"],
)
def test_foreign_files(bridge, tmp_path, data):
    path = tmp_path / "f"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=str(path)):
        all_of(bridge, path)


def test_nothing_there(bridge, tmp_path):
    with pytest.raises(FormatError, match="f"):
        bridge.read(tmp_path / "f", None)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FormatError, match="folder"):
        bridge.read(tmp_path / "folder", None)


def test_truncated_files(bridge, plain, tmp_path):
    """Cut anywhere, a file is refused, unless only padding fell off; text notices it at least within a line."""
    path, whole_table = tmp_path / "f", table(times=True, **plain)
    bridge.write(path, {"rgb": whole_table})
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    victim = max(files, key=lambda p: p.stat().st_size)
    whole, refusals = victim.read_bytes(), 0
    for size in sorted({len(whole) // 9 * part for part in range(9)} | {len(whole) // 2}):
        victim.unlink()
        victim.write_bytes(whole[:size])
        try:
            (found,) = bridge.read(path, None).values()
            assert_rows(found, whole_table)
            assert set(whole[size:]) == {0}, f"{len(whole) - size} bytes were not missed"
        except FormatError:
            refusals += 1
    assert refusals


def test_damaged_files(bridge, plain, tmp_path):
    """A changed byte gives other numbers or a FormatError, never anything else."""
    path = tmp_path / "f"
    bridge.write(path, {"rgb": table(times=True, recipe={"extractor": "hog"}, **plain)})
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    victim = max(files, key=lambda p: p.stat().st_size)
    whole = victim.read_bytes()
    rng = np.random.default_rng(0)
    answers = set()
    for place in rng.integers(len(whole), size=150):
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        victim.unlink()  # a file that is still mapped keeps its bytes
        victim.write_bytes(broken)
        try:
            all_of(bridge, path)
            answers.add("read")
        except FormatError:
            answers.add("refused")
    assert answers <= {"read", "refused"}
    assert answers


def test_two_of_one_id_are_refused(bridge, plain, tmp_path):
    """By whoever notices first: some formats cannot even express it."""
    path = tmp_path / "f"
    bridge.write(path, {"rgb": table(**plain)})
    with pytest.raises(FormatError, match="'a'.*twice"):
        bridge.read(path, ["a", "b", "a"])


def test_given_ids_replace_those_of_the_file(bridge, plain, tmp_path):
    path = tmp_path / "f"
    bridge.write(path, {"rgb": table(**plain)})
    (found,) = bridge.read(path, ["x", "é/7", "z"]).values()
    assert list(found.ids) == ["x", "é/7", "z"]
    assert found.row(1).tobytes() == table(**plain).row(1).tobytes()
    with pytest.raises(FormatError, match=r"3\b.*2|2\b.*3"):
        bridge.read(path, ["x", "y"])


@pytest.mark.parametrize("bad", ["", "a\0", "\ud800", "a" * 201], ids=["empty", "zero", "surrogate", "long"])
def test_keys_and_ids_that_are_no_text_are_refused(bridge, plain, tmp_path, bad):
    assert refused(bridge, tmp_path / "f", {"rgb": table(("a", bad), **plain)})
    assert refused(bridge, tmp_path / "f", {bad: table(**plain)})


def test_nothing_is_written_without_clips(bridge, tmp_path):
    assert refused(bridge, tmp_path / "f", {"rgb": table(())})
    shutil.rmtree(tmp_path)
