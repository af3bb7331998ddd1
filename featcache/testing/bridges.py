"""The contract of a bridge file, as a class of tests."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from featcache.bridges import WORDS, External
from featcache.errors import FormatError

ODD_IDS = ("007", "a b", "é", "x/y", "a.b.c", "..", ".", "/x", "x/", " lead", "trail ", "%2F", "new\nline", "\r", "%")
FOREIGN = {
    "empty": b"",
    "zero byte": b"\0",
    "text": b"these are no features\n" * 40,
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(900),
    "empty zip": b"PK\x05\x06" + bytes(18),
}


def table(
    ids: Sequence[str] = ("c", "a", "b"),
    lengths: Sequence[int] | None = None,
    row: tuple[int, ...] = (4,),
    dtype: Any = np.float32,
    times: bool = False,
    recipe: dict[str, Any] | None = None,
    windows: int = 3,
    seed: int = 0,
) -> External:
    """Make clips of random rows, in an order that no sorting gives."""
    rng = np.random.default_rng(seed)
    lengths = lengths or [windows] * len(ids)
    rows = [rng.normal(size=(t, *row)).astype(dtype) for t in lengths]
    starts = [np.arange(t) / 3 for t in lengths]
    return External(ids, rows.__getitem__, (lambda k: (starts[k], starts[k] + 0.5)) if times else None, recipe or {})


def round_trip(bridge: Any, path: Path, tables: dict[str, External]) -> dict[str, External]:
    """Write tables and read them again."""
    bridge.write(path, tables)
    result: dict[str, External] = bridge.read(path, None)
    return result


def assert_rows(result: External, expected: External, dtype: Any = None, shape: tuple[int, ...] | None = None) -> None:
    """Check that ids are equal and in the same order, and rows equal to the last bit."""
    assert list(result.ids) == list(expected.ids), "ids are lost, changed or in another order"
    for k in range(len(expected.ids)):
        row, wanted = result.row(k), expected.row(k)
        wanted = wanted.astype(dtype or wanted.dtype).reshape((len(wanted), *shape) if shape else wanted.shape)
        assert (row.dtype, row.shape) == (wanted.dtype, wanted.shape)
        assert row.tobytes() == wanted.tobytes(), f"the rows of clip {expected.ids[k]!r} have changed"


def refused(bridge: Any, path: Path, tables: dict[str, External]) -> bool:
    """Return whether `write` refuses the tables as it should: with a FormatError, and without leaving a file."""
    try:
        bridge.write(path, tables)
    except FormatError:
        assert not path.exists(), "a refused write left a file behind"
        return True
    return False


def read_all(bridge: Any, path: Path) -> None:
    """Read everything that a file offers."""
    for result in bridge.read(path, None).values():
        for k in range(len(result.ids)):
            result.row(k)
            if result.times is not None:
                result.times(k)


def files_at(path: Path) -> list[Path]:
    """Return every file at a path, which is a file or a folder."""
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def content(path: Path) -> dict[str, bytes]:
    """Return the bytes of every file at a path."""
    return {str(p.relative_to(path.parent)): p.read_bytes() for p in files_at(path)}


def only_table(tables: dict[str, External]) -> External:
    """Return the single table of a file."""
    (result,) = tables.values()
    return result


def largest(files: Iterable[Path]) -> Path:
    """Return the largest of these files."""
    return max(files, key=lambda path: path.stat().st_size)


class BridgeTests:
    """The contract of a bridge: a file with `KEEPS`, `read` and `write`.

    Whatever KEEPS lists comes back as it was; the rest is refused or changed as `featcache.bridges` describes.
    """

    module: ClassVar[ModuleType]  #: the file under test

    @pytest.fixture
    def bridge(self) -> Any:
        """The file under test."""
        return self.module

    @pytest.fixture
    def plain(self, bridge: Any) -> dict[str, Any]:
        """Options of a table that the format can hold."""
        return {"windows": 3 if "windows" in bridge.KEEPS else 1}

    def test_file_describes_the_format_and_what_it_keeps(self, bridge: Any) -> None:
        """The docstring begins with a sentence, and KEEPS has words of WORDS only."""
        first = (bridge.__doc__ or "").split("\n\n")[0]
        assert first.endswith("."), "the docstring must begin with a sentence that describes the format"
        assert len(first) > 20
        assert frozenset(WORDS) >= bridge.KEEPS, f"KEEPS may hold {', '.join(WORDS)}"

    def test_one_key_comes_back_in_the_order_of_the_file(
        self, bridge: Any, plain: dict[str, Any], tmp_path: Path
    ) -> None:
        """Ids keep their order; nothing is sorted."""
        assert_rows(only_table(round_trip(bridge, tmp_path / "f", {"rgb": table(**plain)})), table(**plain))

    def test_several_keys(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """With "several" all keys come back in their order; without it they are refused."""
        tables = {"rgb": table(**plain), "flow": table(row=(6,), seed=1, **plain)}
        if "several" not in bridge.KEEPS:
            assert refused(bridge, tmp_path / "f", tables)
            return
        results = round_trip(bridge, tmp_path / "f", tables)
        assert list(results) == list(tables)
        for key in tables:
            assert_rows(results[key], tables[key])

    def test_keys_with_different_clips(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """Two stores of one manifest, of which one lacks a clip, are kept or refused, never mixed up."""
        tables = {"rgb": table(**plain), "flow": table(("c", "b"), seed=1, **plain)}
        if refused(bridge, tmp_path / "f", tables):
            return
        results = bridge.read(tmp_path / "f", None)
        for key in tables:
            assert_rows(results[key], tables[key])

    def test_windows(self, bridge: Any, tmp_path: Path) -> None:
        """With "windows" (T, D) comes back as (T, D); without it, as something else or not at all."""
        tables = {"rgb": table(windows=5)}
        if "windows" in bridge.KEEPS:
            assert_rows(only_table(round_trip(bridge, tmp_path / "f", tables)), tables["rgb"])
        elif not refused(bridge, tmp_path / "f", tables):
            assert only_table(bridge.read(tmp_path / "f", None)).row(0).shape != (5, 4), 'add "windows" to KEEPS'

    def test_ragged_clips(self, bridge: Any, tmp_path: Path) -> None:
        """With "ragged" clips keep their own number of windows; without it such clips are refused."""
        tables = {"rgb": table(lengths=[2, 1, 3])}
        if "ragged" in bridge.KEEPS:
            assert_rows(only_table(round_trip(bridge, tmp_path / "f", tables)), tables["rgb"])
        else:
            assert refused(bridge, tmp_path / "f", tables)

    @pytest.mark.parametrize("shape", [(2, 5), (3, 1, 2)])
    def test_shape_of_rows(self, bridge: Any, plain: dict[str, Any], tmp_path: Path, shape: tuple[int, ...]) -> None:
        """With "shape" rows keep their shape; without it they are flat, or refused."""
        tables = {"rgb": table(row=shape, **plain)}
        if "shape" in bridge.KEEPS:
            assert_rows(only_table(round_trip(bridge, tmp_path / "f", tables)), tables["rgb"])
        elif not refused(bridge, tmp_path / "f", tables):
            flat = (int(np.prod(shape)),)
            assert_rows(only_table(bridge.read(tmp_path / "f", None)), tables["rgb"], shape=flat)

    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_dtype(self, bridge: Any, plain: dict[str, Any], tmp_path: Path, dtype: str) -> None:
        """With "dtype" float16 stays float16; without it everything is float32."""
        tables = {"rgb": table(dtype=dtype, **plain)}
        kept = dtype if "dtype" in bridge.KEEPS else "float32"
        assert_rows(only_table(round_trip(bridge, tmp_path / "f", tables)), tables["rgb"], kept)

    def test_edges_of_the_dtypes(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """Subnormal and largest values, -0, infinity and NaN come back bit for bit."""
        info = np.finfo(np.float32)
        row = np.array([[info.max, info.tiny, info.smallest_subnormal, -0.0]] * plain["windows"], np.float32)
        nan = np.array([[np.nan, np.inf, -np.inf, 0.1]] * plain["windows"], np.float32)
        tables = {"rgb": External(["a", "b"], [row, nan].__getitem__)}
        assert_rows(only_table(round_trip(bridge, tmp_path / "f", tables)), tables["rgb"])

    def test_ids(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """With "ids" any id comes back; without it some are refused, and none is changed."""
        if "ids" in bridge.KEEPS:
            tables = {"rgb": table(ODD_IDS, **plain)}
            assert_rows(only_table(round_trip(bridge, tmp_path / "f", tables)), tables["rgb"])
            return
        accepted = []
        for number, clip_id in enumerate(ODD_IDS):
            tables = {"rgb": table(("plain", clip_id), **plain)}
            path = tmp_path / str(number) / "f"
            path.parent.mkdir()
            if not refused(bridge, path, tables):
                results: dict[str, External] = bridge.read(path, None)
                result = results["rgb" if "several" in bridge.KEEPS else next(iter(results))]
                assert sorted(result.ids) == sorted(tables["rgb"].ids)
                accepted.append(clip_id)
        assert {"007", "é"} <= set(accepted)
        assert len(accepted) < len(ODD_IDS), 'every id is kept: add "ids" to KEEPS'

    def test_times(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """With "times" each window's start and stop come back as float64; without it there are none."""
        tables = {"rgb": table(times=True, **plain)}
        result = only_table(round_trip(bridge, tmp_path / "f", tables))
        if "times" not in bridge.KEEPS:
            assert result.times is None, 'times come back: add "times" to KEEPS'
            return
        for k in range(3):
            assert_times(result, tables["rgb"], k)

    def test_times_of_ragged_clips(self, bridge: Any, tmp_path: Path) -> None:
        """Times follow the windows of each clip."""
        if not {"times", "ragged"} <= bridge.KEEPS:
            pytest.skip("ragged clips are refused, or times are not kept")
        tables = {"rgb": table(lengths=[2, 1, 3], times=True), "flow": table(lengths=[1, 1, 1], times=True)}
        tables = tables if "several" in bridge.KEEPS else {"rgb": tables["rgb"]}
        results = round_trip(bridge, tmp_path / "f", tables)
        for key, expected in tables.items():
            for k in range(3):
                assert_times(results[key] if "several" in bridge.KEEPS else only_table(results), expected, k)

    def test_recipe(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """With "recipe" it comes back whole; without it it is empty."""
        recipe = {"extractor": "hog", "params": {"size": 0.1, "name": "é"}, "list": [1, None]}
        result = only_table(round_trip(bridge, tmp_path / "f", {"rgb": table(recipe=recipe, **plain)}))
        assert result.recipe == (recipe if "recipe" in bridge.KEEPS else {})

    def test_equal_features_give_equal_files(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """No date, path or random name is in a file."""
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            bridge.write(tmp_path / folder / "f", {"rgb": table(**plain)})
        assert content(tmp_path / "a" / "f") == content(tmp_path / "b" / "f")

    def test_a_write_that_fails_leaves_what_was_there(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """After an error at the last row the older file is as it was, and no other file is there."""
        old, new = table(**plain), table(seed=1, **plain)
        calls, last = 0, 0

        def row(k: int) -> NDArray[Any]:
            nonlocal calls
            calls += 1
            if calls == last:
                raise OSError(28, "No space left on device")
            return new.row(k)

        bridge.write(tmp_path / "f", {"rgb": External(new.ids, row)})
        bridge.write(tmp_path / "f", {"rgb": old})
        before = content(tmp_path)
        last, calls = calls, 0
        with pytest.raises(OSError, match="No space"):
            bridge.write(tmp_path / "f", {"rgb": External(new.ids, row)})
        assert content(tmp_path) == before
        assert_rows(only_table(bridge.read(tmp_path / "f", None)), old)

    def test_a_second_write_replaces_the_first_whole(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """Nothing of an older, larger file is left."""
        bridge.write(tmp_path / "f", {"rgb": table(("c", "a", "b", "d"), **plain)})
        result = only_table(round_trip(bridge, tmp_path / "f", {"rgb": table(("e", "a"), seed=1, **plain)}))
        assert_rows(result, table(("e", "a"), seed=1, **plain))

    def test_two_writes_at_once_do_not_meet(
        self, bridge: Any, plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Another process replaces the file during a write: the file of the last write to end is there, whole."""
        this, other, path = table(**plain), table(("e", "a"), seed=1, **plain), tmp_path / "f"
        bridge.write(path, {"rgb": other})
        calls, last = 0, 0

        def row(k: int) -> NDArray[Any]:
            nonlocal calls
            calls += 1
            if calls == last:
                with monkeypatch.context() as patch:
                    patch.setattr("os.getpid", lambda: 1)
                    bridge.write(path, {"rgb": other})
                assert_rows(only_table(bridge.read(path, None)), other)
            return this.row(k)

        bridge.write(path, {"rgb": External(this.ids, row)})
        before = content(tmp_path)
        last, calls = calls, 0
        bridge.write(path, {"rgb": External(this.ids, row)})
        assert calls == last
        assert content(tmp_path) == before
        assert_rows(only_table(bridge.read(path, None)), this)

    @pytest.mark.parametrize("data", FOREIGN.values(), ids=FOREIGN)
    def test_foreign_files(self, bridge: Any, tmp_path: Path, data: bytes) -> None:
        """A file of another format is a FormatError that names the file."""
        path = tmp_path / "f"
        path.write_bytes(data)
        with pytest.raises(FormatError, match=re.escape(str(path))):
            read_all(bridge, path)

    def test_nothing_there(self, bridge: Any, tmp_path: Path) -> None:
        """A missing file or an empty folder is a FormatError that names its path."""
        (tmp_path / "folder").mkdir()
        for path in (tmp_path / "f", tmp_path / "folder"):
            with pytest.raises(FormatError, match=re.escape(str(path))):
                bridge.read(path, None)

    def test_truncated_files(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """A file that was cut is refused, unless only padding is gone. A text format may miss part of a line."""
        path, whole_table = tmp_path / "f", table(times=True, **plain)
        bridge.write(path, {"rgb": whole_table})
        victim = largest(files_at(path))
        whole, refusals = victim.read_bytes(), 0
        for size in sorted({len(whole) // 9 * part for part in range(9)} | {len(whole) // 2}):
            victim.unlink()
            victim.write_bytes(whole[:size])
            try:
                assert_rows(only_table(bridge.read(path, None)), whole_table)
                assert set(whole[size:]) == {0}, f"{len(whole) - size} bytes were not missed"
            except FormatError:
                refusals += 1
        assert refusals

    def test_damaged_files(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """A changed byte gives other numbers or a FormatError, no other exception."""
        path = tmp_path / "f"
        bridge.write(path, {"rgb": table(times=True, recipe={"extractor": "hog"}, **plain)})
        victim = largest(files_at(path))
        whole = victim.read_bytes()
        rng = np.random.default_rng(0)
        for place in rng.integers(len(whole), size=150):
            broken = bytearray(whole)
            broken[place] ^= int(rng.integers(1, 256))
            victim.unlink()  # a file that is still mapped keeps its bytes
            victim.write_bytes(broken)
            try:
                read_all(bridge, path)
            except FormatError:
                continue

    def test_an_id_that_is_given_twice_is_refused(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """Ids passed to `read` are unique, and the error names the one that is not."""
        path = tmp_path / "f"
        bridge.write(path, {"rgb": table(**plain)})
        with pytest.raises(FormatError, match=r"'a'.*twice"):
            bridge.read(path, ["a", "b", "a"])

    def test_given_ids_replace_those_of_the_file(self, bridge: Any, plain: dict[str, Any], tmp_path: Path) -> None:
        """Ids passed to `read` name the rows in the file's order; another number of ids is a FormatError with both."""
        path = tmp_path / "f"
        bridge.write(path, {"rgb": table(**plain)})
        result = only_table(bridge.read(path, ["x", "é/7", "z"]))
        assert list(result.ids) == ["x", "é/7", "z"]
        assert result.row(1).tobytes() == table(**plain).row(1).tobytes()
        with pytest.raises(FormatError, match=r"3\b.*2|2\b.*3"):
            bridge.read(path, ["x", "y"])

    @pytest.mark.parametrize("bad", ["", "a\0", "\ud800", "a" * 201], ids=["empty", "zero", "surrogate", "long"])
    def test_keys_and_ids_that_are_no_text_are_refused(
        self, bridge: Any, plain: dict[str, Any], tmp_path: Path, bad: str
    ) -> None:
        """Empty names, names with a zero or a lone surrogate, and names of more than 200 characters."""
        assert refused(bridge, tmp_path / "f", {"rgb": table(("a", bad), **plain)})
        assert refused(bridge, tmp_path / "f", {bad: table(**plain)})

    def test_nothing_is_written_without_clips(self, bridge: Any, tmp_path: Path) -> None:
        """A table of no clips is refused."""
        assert refused(bridge, tmp_path / "f", {"rgb": table(())})


def assert_times(result: External, expected: External, k: int) -> None:
    """Check that start and stop of a clip's windows are equal float64."""
    assert result.times is not None, "times are lost; remove them from KEEPS"
    assert expected.times is not None
    for time, wanted in zip(result.times(k), expected.times(k), strict=True):
        assert time.dtype == np.float64
        np.testing.assert_array_equal(time, wanted)
