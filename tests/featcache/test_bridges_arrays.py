"""Array and table formats as other tools write them: each layout that the docstrings name, real files, hostile ones."""

import io
import itertools
import json
import sys
import tarfile
import zipfile
import zlib

import h5py
import numpy as np
import pytest
import scipy.io

from featcache.bridges import External, csv, hdf5, mat, mmaction2, npy, npz, parquet, webdataset
from featcache.errors import FormatError
from featcache.untrusted import mat5, reading

IDS = ["007", "é", "b"]
RNG = np.random.default_rng(0)
X_NTD = RNG.normal(size=(3, 2, 4)).astype(np.float16)
Y_ND = RNG.normal(size=(3, 5))
OFFSET = np.array([0, 2, 3, 7])
Z_FLAT = RNG.normal(size=(7, 6)).astype(np.float32)


def save_npz(path, arrays):
    with path.open("wb") as file:
        np.savez(file, **arrays)


def save_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array.astype(object) if array.dtype.kind == "U" else array


def save_mat(path, arrays):
    cells = {name: array.astype(object) if array.dtype.kind == "U" else array for name, array in arrays.items()}
    scipy.io.savemat(path, {name: c.astype(np.float32) if c.dtype == np.float16 else c for name, c in cells.items()})


BRIDGES = {npz: save_npz, hdf5: save_h5, mat: save_mat}


@pytest.fixture(params=BRIDGES, ids=lambda module: module.__name__.rpartition(".")[2])
def bridge(request):
    return request.param


@pytest.fixture
def save(bridge):
    return BRIDGES[bridge]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "f.mat"


def test_arrays_beside_ids(bridge, save, path):
    """(n, T, D) and (n, D) are keys, labels are not; any other array of numbers that does not fit is named."""
    save(path, {"rgb": X_NTD, "ids": np.array(IDS), "sound": Y_ND, "label": np.arange(3), "mean": np.ones(9)})
    found = bridge.read(path, None)
    assert sorted(found) == ["rgb", "sound"]
    for k in range(3):
        np.testing.assert_array_equal(found["rgb"].row(k), X_NTD[k].astype(found["rgb"].row(k).dtype))
        np.testing.assert_array_equal(found["sound"].row(k), Y_ND[None, k])
    assert list(found["rgb"].ids) == list(found["sound"].ids) == IDS
    assert found["sound"].row(0).dtype == np.float64
    path = path.with_name("other.mat")
    save(path, {"rgb": X_NTD, "ids": np.array(IDS), "flow": np.ones((9, 2))})
    with pytest.raises(FormatError, match=r"flow \(9, 2\) .*offset.*remove it"):
        bridge.read(path, None)


def test_arrays_over_clips_beside_an_offset_of_others(bridge, save, path):
    save(path, {"left": Z_FLAT, "offset": OFFSET, "rgb": X_NTD, "ids": np.array(IDS)})
    found = bridge.read(path, None)
    np.testing.assert_array_equal(found["left"].row(2), Z_FLAT[3:])
    np.testing.assert_array_equal(found["rgb"].row(2), X_NTD[2].astype(found["rgb"].row(2).dtype))
    path = path.with_name("other.mat")
    save(path, {"left": Z_FLAT, "offset": OFFSET, "rgb": X_NTD[:2], "ids": np.array(IDS)})
    with pytest.raises(FormatError, match=r"rgb \(2, 2, 4\) .*offset.*remove it"):
        bridge.read(path, None)


@pytest.mark.parametrize(
    ("start", "stop"),
    [
        (np.zeros((3, 1)), np.ones((3, 1))),
        (np.zeros((3, 2)), np.ones((3, 1))),
        (np.array([["a", "b"]] * 3), np.ones((3, 2))),
        (np.ones((3, 2)), np.zeros((3, 2))),
        (np.zeros((3, 2)), np.full((3, 2), np.inf)),
    ],
    ids=["size", "shapes", "text", "backwards", "infinite"],
)
def test_times_that_make_no_sense(bridge, save, path, start, stop):
    if bridge is hdf5 and start.dtype.kind == "U":
        start = np.array([[b"a", b"b"]] * 3)
    save(path, {"rgb": X_NTD, "ids": np.array(IDS), "window_start": start, "window_stop": stop})
    with pytest.raises(FormatError):
        bridge.read(path, None)


def test_times_in_attributes_and_members_that_make_no_sense(path):
    one = np.ones((2, 4), np.float32)
    for stop in ([0.0, np.inf], [-1.0, 2.0], [1.0]):
        with h5py.File(path, "w") as file:
            file["rgb/a"] = one
            file["rgb/a"].attrs["window_start"], file["rgb/a"].attrs["window_stop"] = [0.0, 1.0], stop
        with pytest.raises(FormatError, match="window_st"):
            next(iter(hdf5.read(path, None).values())).times(0)
    for times in (np.ones((3, 2)), np.array([[1.0, 1], [0, 2]]), np.float64(1)):
        with tarfile.open(path, "w") as shard:
            add(shard, "a.rgb.npy", npy_bytes(one))
            add(shard, "a.rgb.times.npy", npy_bytes(times))
        with pytest.raises(FormatError, match=r"times|window_st"):
            webdataset.read(path, None)["rgb"].times(0)


def test_given_ids_replace_ids_that_are_no_good(bridge, save, path):
    save(path, {"rgb": X_NTD, "uid": np.array(["a", "a", "b"])})
    assert list(bridge.read(path, IDS)["rgb"].ids) == IDS


@pytest.mark.parametrize("module", [npz, hdf5, mat, webdataset], ids=lambda module: module.__name__.rpartition(".")[2])
def test_given_ids_go_to_the_clip_not_the_place(module, path):
    """Keys of different clips, in another order: what was b is y in both."""
    rows = {name: np.full((1, 2), k, np.float32) for k, name in enumerate("abc")}
    keys = {"one": ["a", "b", "c"], "two": ["c", "b"]}
    module.write(path, {key: External(ids, lambda k, ids=ids: rows[ids[k]]) for key, ids in keys.items()})
    read = module.read(path, None)
    order = list(dict.fromkeys(clip_id for table in read.values() for clip_id in table.ids))
    given = [clip_id.upper() for clip_id in order]
    for key, table in module.read(path, given).items():
        assert sorted(table.ids) == sorted(name.upper() for name in keys[key])
        for k, clip_id in enumerate(table.ids):
            np.testing.assert_array_equal(table.row(k), rows[clip_id.lower()])
    with pytest.raises(FormatError, match="3 clips.* 2 ids"):
        module.read(path, given[:2])


@pytest.mark.slow
def test_files_that_grow_beyond_reason(tmp_path):
    big = np.zeros((3, 1 << 23), np.float32)  # 96 MiB of zeros in less than one
    np.savez_compressed(tmp_path / "a.npz", rgb=big, ids=IDS)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", (1 << 20, 1 << 20), "f4", chunks=(1, 64))[0, :64] = 1
    element = zlib.compress(bytes(big.nbytes))
    head = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + np.array([15, len(element)], "<u4").tobytes()
    (tmp_path / "a.mat").write_bytes(head + element)
    for module, name in ((npz, "a.npz"), (hdf5, "a.h5"), (mat, "a.mat")):
        with pytest.raises(FormatError, match="would grow"):
            module.read(tmp_path / name, None)


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")], ids=repr)
def test_faults_of_the_machine_are_not_the_files(tmp_path, error):
    with pytest.raises(type(error)), reading(tmp_path, "npz"):
        raise error


@pytest.mark.parametrize("module", [npy, mmaction2], ids=["npy", "mmaction2"])
def test_ids_stand_beside_their_own_file(module, tmp_path, monkeypatch):
    path = tmp_path / "rgb.npy"
    module.write(path, {"x": External(IDS, lambda k: X_NTD[k])})
    assert module.companions(path) == [tmp_path / "rgb.npy.ids.txt"]
    assert sorted(tmp_path.iterdir()) == [path, *module.companions(path)]
    before = [file.read_bytes() for file in sorted(tmp_path.iterdir())]

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        module.write(path, {"x": External(["u", "v"], lambda k: X_NTD[k])})
    assert [file.read_bytes() for file in sorted(tmp_path.iterdir())] == before
    with pytest.raises(FormatError, match="line break"):
        module.write(path, {"x": External(["u\n"], lambda k: X_NTD[k])})


def test_parquet_with_a_pyarrow_that_runs_code(path, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("pyarrow"), "__version__", "14.0.0")
    with pytest.raises(FormatError, match=r"14\.0\.1 or later, not 14\.0\.0.*pip install -U pyarrow"):
        parquet.read(path, None)


def test_clips_end_to_end(bridge, save, path):
    save(
        path, {"left": Z_FLAT, "right": -Z_FLAT, "offset": OFFSET, "uid": np.array([9, 8, 10]), "time": np.arange(7.0)}
    )
    found = bridge.read(path, None)
    assert sorted(found) == ["left", "right"]
    assert list(found["left"].ids) == ["9", "8", "10"]
    for k, (start, stop) in enumerate(itertools.pairwise(OFFSET)):
        np.testing.assert_array_equal(found["left"].row(k), Z_FLAT[start:stop])
        np.testing.assert_array_equal(found["right"].row(k), -Z_FLAT[start:stop])


@pytest.mark.parametrize(
    "offset", [[0, 3, 2, 7], [1, 2, 3, 7], [0, 2, 2, 7], [0.0, 2.5, 3, 7], [-1, 2, 3, 7], [7]], ids=str
)
def test_offsets_that_make_no_sense(bridge, save, path, offset):
    save(path, {"left": Z_FLAT, "offset": np.array(offset), "ids": np.array(IDS)})
    with pytest.raises(FormatError, match="offset must .*whole numbers"):
        bridge.read(path, None)


def test_ids_can_be_given(bridge, save, path):
    save(path, {"left": Z_FLAT, "offset": OFFSET})
    with pytest.raises(FormatError, match=r"no clip ids \(looked for clip_id, .*one per line"):
        bridge.read(path, None)
    assert bridge.read(path, IDS)["left"].ids == IDS
    with pytest.raises(FormatError, match="3 clips.* 2 ids"):
        bridge.read(path, IDS[:2])


def test_given_ids_are_not_guessed_at(bridge, save, path):
    """Three arrays of three rows, three ids: clips of three windows, or keys of three clips?"""
    arrays = {name: Y_ND + k for k, name in enumerate(("x", "y", "z"))}
    save(path, arrays)
    with pytest.raises(FormatError, match="3 arrays of 3 rows.*; add an array clip_id"):
        bridge.read(path, IDS)
    save(path, arrays | {"clip_id": np.array(IDS)})
    assert set(bridge.read(path, IDS)) == set(arrays)


def test_ids_that_fit_no_array(bridge, save, path):
    save(path, {"rgb": X_NTD, "uid": np.array([1, 2])})
    with pytest.raises(FormatError, match=r"no array.*ids?\b.*rgb \(3, 2, 4\)"):
        bridge.read(path, None)


@pytest.mark.parametrize("ids", [["a", "b", "a"], [1, 1, 2]], ids=str)
def test_an_id_that_stands_twice_is_named(bridge, save, path, ids):
    save(path, {"rgb": X_NTD, "uid": np.array(ids)})
    with pytest.raises(FormatError, match=f"clip id '{ids[0]}'.* twice, in rows"):
        bridge.read(path, None)


def test_one_array_per_clip(bridge, save, path):
    save(path, {"v_1": X_NTD[0], "v_2": X_NTD[1, :1], "fps": np.array(25.0)})
    (found,) = bridge.read(path, None).values()
    assert sorted(found.ids) == sorted(["v_1", "v_2"] + ["fps"] * (bridge is mat))  # MATLAB has no scalars but (1, 1)
    np.testing.assert_array_equal(found.row(list(found.ids).index("v_2")), X_NTD[1, :1].astype(found.row(0).dtype))


def test_objects_in_npz_and_npy_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return exec, ("raise SystemExit('executed')",)

    bad = np.empty(3, object)
    bad[:] = [Bomb()] * 3
    np.savez(tmp_path / "a.npz", ids=bad, rgb=X_NTD)
    np.savez(tmp_path / "b.npz", rgb=bad)
    np.savez(tmp_path / "c.npz", ids=IDS, rgb=bad)
    np.save(tmp_path / "a.npy", bad)
    for bridge, name, ids in ((npz, "a.npz", None), (npz, "b.npz", IDS), (npz, "c.npz", None), (npy, "a.npy", IDS)):
        with pytest.raises(FormatError, match="Python objects"):
            bridge.read(tmp_path / name, ids)
    np.savez(tmp_path / "d.npz", notes=bad, rgb=X_NTD, ids=IDS)
    for name, ids in (("d.npz", None), ("a.npz", IDS)):  # not needed, never loaded
        np.testing.assert_array_equal(npz.read(tmp_path / name, ids)["rgb"].row(1), X_NTD[1])


def test_npz_sizes_are_checked_before_memory_is_asked_for(path):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 2)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rgb.npy", stream.getvalue())
    with pytest.raises(FormatError, match="do not fit"):
        npz.read(path, None)


def test_npz_is_what_numpy_reads(path):
    """Written files are plain: numpy.load gives the arrays, also compressed ones of numpy are read."""
    rows = {"c": X_NTD[0], "a": X_NTD[1]}
    npz.write(path, {"rgb": External(list(rows), list(rows.values()).__getitem__, recipe={"k": 1})})
    with np.load(path, allow_pickle=False) as file:
        assert set(file.files) == {"rgb", "clip_id", "rgb.recipe"}
        np.testing.assert_array_equal(file["rgb"], X_NTD[:2])
        assert file["clip_id"].tolist() == ["c", "a"]
        assert json.loads(str(file["rgb.recipe"])) == {"k": 1}
    with path.open("wb") as stream:
        np.savez_compressed(stream, rgb=X_NTD, ids=IDS)
    np.testing.assert_array_equal(npz.read(path, None)["rgb"].row(2), X_NTD[2])


def test_npy_needs_ids_of_its_length(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, Y_ND)
    with pytest.raises(FormatError, match=r"no file x\.npy\.ids\.txt.*--ids"):
        npy.read(path, None)
    (tmp_path / "x.npy.ids.txt").write_bytes("a\r\né x\r\n007".encode())
    (found,) = npy.read(path, None).values()
    assert found.ids == ["a", "é x", "007"]
    np.testing.assert_array_equal(found.row(1), Y_ND[None, 1])
    (tmp_path / "x.npy.ids.txt").write_text("a\nb\n")
    with pytest.raises(FormatError, match="3 clips.* 2 ids"):
        npy.read(path, None)
    np.save(path, np.arange(3.0))
    with pytest.raises(FormatError, match=r"shape \(3,\); \(n, D\) or \(n, T, ...\)"):
        npy.read(path, IDS)


def test_hdf5_groups(tmp_path):
    """Groups with common clips are keys; else the path is the id."""
    with h5py.File(tmp_path / "keys.h5", "w") as file:
        for key, clips in {"rgb": ["P01/P01_1", "P01/P01_2"], "flow": ["P01/P01_2"]}.items():
            for number, clip in enumerate(clips):
                file[f"{key}/{clip}"] = np.full((2, 3), number, np.float32)
    found = hdf5.read(tmp_path / "keys.h5", None)
    assert {key: list(table.ids) for key, table in found.items()} == {
        "rgb": ["P01/P01_1", "P01/P01_2"],
        "flow": ["P01/P01_2"],
    }
    with h5py.File(tmp_path / "ids.h5", "w") as file:
        for clip in ("P01/P01_1", "P02/P02_1", "loose"):
            file[clip] = np.ones(3)
    (table,) = hdf5.read(tmp_path / "ids.h5", None).values()
    assert sorted(table.ids) == ["P01/P01_1", "P02/P02_1", "loose"]
    assert table.row(0).shape == (1, 3)


def test_hdf5_stays_in_its_file(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(64))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.ones((4, 4))
    layout = h5py.VirtualLayout((4, 4), "f8")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (4, 4))
    makers = {
        "link": lambda file: file.__setitem__("a", h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")),
        "soft": lambda file: file.__setitem__("a", h5py.SoftLink("/x")),
        "raw": lambda file: file.create_dataset("a", (2, 4), "f8", external=[(str(tmp_path / "secret"), 0, 64)]),
        "virtual": lambda file: file.create_virtual_dataset("a", layout),
        "cycle": lambda file: file.create_group("g").__setitem__("g", file["g"]),
        "unwritten": lambda file: file.create_dataset("a", (1 << 20, 1 << 20), "f4"),
        "type": lambda file: file.__setitem__("a", np.dtype("f8")),
    }
    for name, make in makers.items():
        for ours in (False, True):
            path = tmp_path / f"{name}{ours}.h5"
            with h5py.File(path, "w") as file:
                if ours:
                    file.attrs["featcache"] = 1
                make(file)
            with pytest.raises(FormatError, match=r"link|another file|itself|never written|neither"):
                hdf5.read(path, None)


def test_hdf5_without_data(path):
    for marked in (False, True):
        with h5py.File(path, "w") as file:
            if marked:
                file.attrs["featcache"] = 1
        with pytest.raises(FormatError, match="no array of numbers; it has: nothing"):
            hdf5.read(path, None)


def test_hdf5_times_of_very_many_windows(path):
    times = np.arange(20000.0)
    row = np.ones((20000, 1), np.float16)
    hdf5.write(path, {"rgb": External(["a"], lambda k: row, lambda k: (times, times + 1))})
    np.testing.assert_array_equal(hdf5.read(path, None)["rgb"].times(0)[1], times + 1)


def cells(values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


def test_mat_cells_are_clips_of_different_length(path):
    rows = [Z_FLAT[:2], Z_FLAT[2:3], Z_FLAT[3:]]
    extra = {"class_names": cells(["stir", "chop"]), "note": "text", "s": {"a": 1}, "e": np.empty((0, 0)), "c": 1j}
    for compress in (False, True):
        scipy.io.savemat(path, {"rgb": cells(rows), "clip_id": cells(IDS), **extra}, do_compression=compress)
        found = mat.read(path, None)
        assert list(found) == ["rgb"]
        assert list(found["rgb"].ids) == IDS
        for k in range(3):
            np.testing.assert_array_equal(found["rgb"].row(k), rows[k])
    scipy.io.savemat(path, {"rgb": cells([Z_FLAT, Z_FLAT[:, :2]]), "clip_id": cells(IDS[:2])})
    with pytest.raises(FormatError, match=r"rgb\{2\} .*\(7, 2\).*rgb\{1\} .*\(7, 6\)"):
        mat.read(path, None)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        np.float32([[1.5]]),
        Z_FLAT.T,
        np.array([[True, False]]),
        np.int64([[-(2**40)]]),
        np.zeros((0, 3)),
        np.arange(5.0),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_mat5_reads_what_scipy_reads(path, value, order):
    """Our reader against SciPy's, on SciPy's files; it writes no big-endian ones, so their bytes are swapped here."""
    scipy.io.savemat(path, {"x": value})
    data = path.read_bytes() if order == "<" else swapped(path.read_bytes())
    path.write_bytes(data)
    mine, theirs = mat5.variables(data, "f")["x"], scipy.io.loadmat(path)["x"]
    assert mine.shape == theirs.shape
    np.testing.assert_array_equal(mine, theirs)


def swapped(data):
    """A little-endian file with one numeric variable as a big-endian one."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}

    def swap(body):
        out, at = b"", 0
        while at < len(body):
            kind, size = np.frombuffer(body[at : at + 8], "<u4")
            small = kind >> 16
            head = [int(small) << 16 | int(kind) & 0xFFFF] if small else [int(kind), int(size)]
            kind, size = (int(kind) & 0xFFFF, int(small)) if small else (int(kind), int(size))
            begin = at + (4 if small else 8)
            part, end = body[begin : begin + size], at + 8 if small else begin + size + -size % 8
            part = swap(part) if kind == 14 else np.frombuffer(part, f"<u{sizes[kind]}").byteswap().tobytes()
            out += np.array(head, ">u4").tobytes() + part + bytes(end - begin - size)
            at = end
        return out

    return data[:124] + b"\x01\x00MI" + swap(data[128:])


def test_mat_ids_as_a_table_of_characters(path):
    scipy.io.savemat(path, {"rgb": Y_ND, "video_id": np.array(["P01", "P022", "é"])})
    assert list(mat.read(path, None)["rgb"].ids) == ["P01", "P022", "é"]


def test_mat_of_version_7_3(path):
    """As MATLAB writes it: axes reversed, text as numbers, cells as references; 512 bytes of MATLAB's own in front."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(name, array, kind):
            file[name] = array
            file[name].attrs["MATLAB_class"] = np.bytes_(kind)
            return file[name].ref

        def text(name, value):
            return put(name, np.frombuffer(value.encode("utf-16-le"), np.uint16)[:, None], "char")

        put("rgb", X_NTD.astype(np.float32).T, "single")
        ids = [text(f"#refs#/{k}", clip_id) for k, clip_id in enumerate(IDS)]
        put("clip_id", np.array([ids], h5py.ref_dtype).T, "cell")
        rows = [put(f"#refs#/r{k}", Z_FLAT[k : k + k + 1].T, "single") for k in range(3)]
        put("flow", np.array([rows], h5py.ref_dtype), "cell")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    found = mat.read(path, None)
    assert sorted(found) == ["flow", "rgb"]
    for k in range(3):
        assert found["rgb"].ids[k] == found["flow"].ids[k] == IDS[k]
        np.testing.assert_array_equal(found["rgb"].row(k), X_NTD[k].astype(np.float32))
        np.testing.assert_array_equal(found["flow"].row(k), Z_FLAT[k : k + k + 1])


def test_mat_is_what_scipy_reads(path):
    mat.write(path, {"rgb": External(IDS, lambda k: X_NTD[k])})
    found = scipy.io.loadmat(path)
    np.testing.assert_array_equal(found["rgb"], X_NTD.astype(np.float32))
    assert [str(cell[0]) for cell in found["clip_id"].ravel()] == IDS
    with pytest.raises(FormatError, match="'7 rgb' .*MATLAB variable.*letters, digits and _"):
        mat.write(path, {"7 rgb": External(IDS, lambda k: X_NTD[k])})


def test_csv_of_others(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('uid,f0,f1\r\n007,1,2.5\r\n"a,b",-1e-3,4\r\n007,5,6\r\n', newline="")
    (found,) = csv.read(path, None).values()
    assert list(found.ids) == ["007", "a,b"]
    np.testing.assert_array_equal(found.row(0), np.float32([[1, 2.5], [5, 6]]))
    for text in ("clip_id,window,f0\na,2,5\na,0,1\na,1,3\n", "f0,window,video_id,id\n5,2,a,7\n1,0,a,8\n3,1,a,9\n"):
        path.write_text(text)
        (found,) = csv.read(path, None).values()
        assert list(found.ids) == ["a"]
        np.testing.assert_array_equal(found.row(0), np.float32([[1], [3], [5]]))
    path.write_text("file,f0\na.mp4,1\n")
    assert list(csv.read(path, None)["features"].ids) == ["a.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.5,-1e3\n1,2\n", "line 1: .*'0.5'.*column.*clip_id"),
        ("clip_id,uid\na,1\n", "line 1: .*no columns of numbers"),
        ("clip_id\na\n", "line 1: .*no columns of numbers"),
        ("clip_id,window\na,1\n", "line 1: .*no columns of numbers"),
        ("clip_id,f0\n", "has columns but no clips"),
        ("clip_id,f0\na,1,2\n", "line 2: 3 cells for 2 columns"),
        ("clip_id,f0\na,1\nb,x\n", "line 3: .*'x'"),
        ("clip_id,f0\na,1_0\n", "line 2: .*cell.*number"),
        ("clip_id,f0\na,٥\n", "line 2: .*cell.*number"),
        ("clip_id,f0\na,\n", "line 2"),
        ("clip_id,f0\n,1\n", "'' is .*clip id"),
        ("clip_id,window,f0\na,0,1\na,0,1\n", "line 3: window 0 of clip 'a'"),
        ("clip_id,window,f0\na,0.5,1\n", "line 2: window '0.5' .*whole number"),
        ("clip_id,f0\na,1.2", "last line.*cut off"),
        ("clip_id;f0\r\na;1\r\n", "line 1: .*separated by ';'; separate them by commas"),
        ("clip_id;f0;f1\na;0,25;1,5\n", "line 1: .*separated by ';'; .* decimals with points"),
        ("clip_id\tf0\na\t1\n", r"line 1: .*separated by '\\t'"),
        ("sep=;\nclip_id;f0\na;1\n", "line 1: .*separated by ';'"),
        ("clip_id,f0,f1,\na,.1,.2,\n", "line 1: the last cell is empty; remove the comma at the end"),
        ("clip_id,f0\na,1,\n", "line 2: 3 cells for 2 columns; the last cell is empty; remove the comma"),
        ('clip_id,f0,f1\na,1,"0,25"\n', "line 2: .*'0,25' has a decimal comma; write '0.25'"),
    ],
)
def test_csv_that_is_wrong(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(FormatError, match=message):
        csv.read(tmp_path / "a.csv", None)


@pytest.mark.slow
def test_csv_gives_back_every_float16_and_any_float32(tmp_path):
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    singles = RNG.integers(1 << 32, size=20_000, dtype=np.uint32).view(np.float32)
    for values in (halves, singles):
        row = values[None, np.isfinite(values)]
        csv.write(tmp_path / "a.csv", {"x": External(["a"], lambda k, row=row: row)})
        found = csv.read(tmp_path / "a.csv", None)["features"].row(0)
        assert found.tobytes() == row.astype(np.float32).tobytes()


def test_csv_is_what_people_read(tmp_path):
    csv.write(tmp_path / "a.csv", {"rgb": External(["007"], lambda k: np.float32([[0.1, 2], [1e-8, -3]]))})
    lines = ["clip_id,window,rgb_0,rgb_1", '"007",0,0.1,2.0', '"007",1,1e-08,-3.0']
    assert (tmp_path / "a.csv").read_text().splitlines() == lines


def add(shard, name, data=b"", kind=tarfile.REGTYPE, link=""):
    member = tarfile.TarInfo(name)
    member.size, member.type, member.linkname = len(data), kind, link
    shard.addfile(member, io.BytesIO(data))


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_webdataset_of_others(path):
    with tarfile.open(path, "w") as shard:
        add(shard, "train", kind=tarfile.DIRTYPE)
        for k in range(2):
            add(shard, f"train/{k}.jpg", b"picture")
            add(shard, f"train/{k}.rgb.npy", npy_bytes(X_NTD[k]))
            add(shard, f"train/{k}.cls", b"1")
    (found,) = webdataset.read(path, None).values()
    assert list(found.ids) == ["train/0", "train/1"]
    np.testing.assert_array_equal(found.row(1), X_NTD[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda shard: add(shard, "a.rgb.npy", kind=tarfile.SYMTYPE, link="/etc/passwd"), "a link or device"),
        (lambda shard: add(shard, "a.rgb.npy", kind=tarfile.LNKTYPE, link="b"), "a link or device"),
        (lambda shard: add(shard, "a.rgb.npy", kind=tarfile.CHRTYPE), "a link or device"),
        (lambda shard: [add(shard, "a.rgb.npy", npy_bytes(X_NTD[0])) for _ in range(2)], "twice"),
        (lambda shard: add(shard, "a.jpg"), "no member CLIP.KEY.npy"),
        (lambda shard: add(shard, "a.rgb.npy", npy_bytes(X_NTD[0])[:-1]), "do not fit"),
        (lambda shard: add(shard, "a.rgb.npy", npy_bytes(np.array([{}]))), "Python objects"),
    ],
)
def test_webdataset_that_is_wrong(path, make, message):
    with tarfile.open(path, "w") as shard:
        make(shard)
    with pytest.raises(FormatError, match=message):
        [found.row(0) for found in webdataset.read(path, None).values()]


def test_webdataset_package_reads_our_shards(path):
    package = pytest.importorskip("webdataset")
    tables = {
        "rgb": External(IDS, X_NTD.__getitem__, lambda k: (np.zeros(2), np.ones(2)), {"extractor": "i3d"}),
        "flow": External(["007", "b"], lambda k: Z_FLAT[k : k + 2]),
    }
    webdataset.write(path, tables)
    samples = list(package.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == IDS
    for k, sample in enumerate(samples):
        np.testing.assert_array_equal(sample["rgb.npy"], X_NTD[k])
        assert ("flow.npy" in sample) == (IDS[k] in ("007", "b"))


def test_parquet_without_pyarrow_says_what_to_install(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (lambda: parquet.read(path, None), lambda: parquet.write(path, {})):
        with pytest.raises(FormatError, match="pip install pyarrow"):
            use()


def test_parquet_of_others(path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    lists = {
        "vector": pa.array([list(row) for row in Y_ND]),
        "windows": pa.array([[[1.0, 2], [3, 4]], None, [[5.0, 6]]]),
        "label": pa.array([1, 2, 3]),
    }
    pq.write_table(pa.table({"uid": [7, 8, 9], **lists}), path, row_group_size=2)
    found = parquet.read(path, None)
    assert list(found) == ["vector", "windows"]
    assert list(found["vector"].ids) == ["7", "8", "9"]
    assert list(found["windows"].ids) == ["7", "9"]
    np.testing.assert_array_equal(found["windows"].row(1), [[5, 6]])
    for k in range(3):
        np.testing.assert_array_equal(found["vector"].row(k), Y_ND[None, k])
    pq.write_table(pa.table({"uid": [7, 8], "x": [[[1.0], [2.0, 3.0]], [[None]]]}), path)
    for k, message in enumerate(("different lengths", "empty value")):
        with pytest.raises(FormatError, match=message):
            parquet.read(path, None)["x"].row(k)


@pytest.mark.realdata
def test_real_npz_files(realdata):
    paired = npz.read(realdata / "actionsense_emg" / "s04_paired_rgb_i3d_emg_test81.npz", None)
    assert {key: table.row(80).shape for key, table in paired.items()} == {"rgb": (5, 1024), "emg": (100, 16)}
    assert list(paired["rgb"].ids[:2]) == ["249", "204"]
    assert (paired["rgb"].row(0).dtype, paired["emg"].row(0).dtype) == (np.float16, np.float32)
    for name, joints, clips in (("utkinect", 20, 199), ("florence3d", 15, 215)):
        found = npz.read(realdata / "skeleton_kinect" / f"{name}.npz", [str(k) for k in range(clips)])
        assert list(found) == ["frames"]
        rows = [found["frames"].row(k) for k in range(clips)]
        with np.load(realdata / "skeleton_kinect" / f"{name}.npz") as file:
            assert rows[0].shape[1:] == (joints, 3)
            np.testing.assert_array_equal(np.concatenate(rows), file["frames"])


@pytest.mark.realdata
def test_real_reference_features_are_one_array_per_extractor(realdata):
    """This file is of one video: its arrays are taken for clips, whose rows differ in shape."""
    (found,) = npz.read(realdata / "sample_videos" / "v_GGSY1Qvo990_reference_features.npz", None).values()
    assert found.row(list(found.ids).index("vggish__vggish.data")).shape == (18, 128)
    assert not any("fps" in clip_id or "timestamps" in clip_id for clip_id in found.ids)
