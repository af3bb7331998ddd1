"""The formats that are folders, and torch files: what their own code writes and reads, and what is refused."""

import copy
import io
import os
import pickle
import resource
import zipfile

import numpy as np
import pytest
import torch

from featcache import files
from featcache.bridges import External, ta3n, video_features
from featcache.bridges._folders import MARK, replacing_folder
from featcache.errors import FormatError
from featcache.untrusted import tensors
from tests.helpers.formats import refused, rows
from tests.helpers.hostile import EVIL, torch_file, trap  # noqa: F401

pytestmark = pytest.mark.usefixtures("trap")
RGB = np.zeros((5, 4), np.float32)


def torch_bombs():
    storage = torch.zeros(300, dtype=torch.uint8)
    old = torch_file(storage, old=True)
    number = b"M,\x01"  # 300
    huge = b"\x8a\x05" + (2**33).to_bytes(5, "little")
    deflated = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(torch_file(storage))) as source, zipfile.ZipFile(deflated, "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    overlapping = io.BytesIO(torch_file(storage))
    with zipfile.ZipFile(overlapping, "a") as archive:
        (values,) = (entry for entry in archive.filelist if entry.filename.endswith("data/0"))
        for k in range(1, 100):  # names for one and the same part of the file
            archive.filelist.append(copy.copy(values))
            archive.filelist[-1].filename = f"archive/data/{k}"
        archive.writestr("archive/data/100", "x")
    return {
        "one part under many names": overlapping.getvalue(),
        "a storage of gigabytes": old.replace(number, huge),
        "a view of gigabytes": old[: old.rindex(number)] + huge + old[old.rindex(number) + len(number) :],
        "a compressed archive": deflated.getvalue(),
        "an expanded tensor": torch_file(torch.zeros(1).expand(2**33)),
        "no values": torch_file(torch.empty(2**33, device="meta")),
        "an old one cut off": old[:-100],
        "a new one cut off": torch_file(storage)[:-100],
        "a sparse tensor": torch_file(torch.zeros(3).to_sparse()),
        "a dict": torch_file({"a": torch.zeros(3)}),
        "a number": torch_file(3),
    }


TORCH_BOMBS = torch_bombs()


@pytest.mark.parametrize("name", TORCH_BOMBS)
def test_torch_files_that_claim_more_than_they_are(tmp_path, name):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = TORCH_BOMBS[name]
    with pytest.raises(FormatError, match="the file"):
        tensors.array(tensors.load(data, "the file"), len(data), "the file")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def frame(folder, name, value, old=False):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(torch_file(value, old))


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
def test_ta3n_frames_in_the_order_of_their_numbers(tmp_path, old):
    x = torch.arange(36.0).reshape(12, 3)
    for number in range(12, 0, -1):
        frame(tmp_path / "RGB-Feature" / "cartwheel" / "v1", f"img_{number}.t7", x[number - 1].clone(), old)
    for number in (1, 2, 10):
        frame(tmp_path / "Flow-feature_resnet101" / "v2", f"img_{number:05d}.pt", x[number].half(), old)
    (tmp_path / "RGB" / "v1").mkdir(parents=True)
    (tmp_path / "RGB" / "v1" / "img_00001.jpg").touch()
    found = ta3n.read(tmp_path, None)
    assert {key: list(table.ids) for key, table in found.items()} == {"RGB": ["cartwheel/v1"], "Flow_resnet101": ["v2"]}
    np.testing.assert_array_equal(found["RGB"].row(0), x.numpy())
    np.testing.assert_array_equal(found["Flow_resnet101"].row(0), x[[1, 2, 10]].half().numpy())
    assert found["Flow_resnet101"].row(0).dtype == np.float16


def test_ta3n_the_folder_of_one_modality(tmp_path):
    frame(tmp_path / "RGB-Feature" / "v", "img_00001.t7", torch.ones(3))
    assert list(ta3n.read(tmp_path / "RGB-Feature", None)) == ["RGB"]
    frame(tmp_path / "any" / "v", "img_00001.t7", torch.ones(3))
    assert list(ta3n.read(tmp_path / "any", None)) == ["features"]


def test_ta3n_is_read_by_its_own_code(tmp_path):
    ta3n.write(tmp_path / "f", {"RGB": External(["a/v1"], rows(2).__getitem__)})
    file = os.path.join(tmp_path, "f", "RGB-Feature", "a/v1", "img_00002.t7")
    assert torch.equal(torch.load(file), torch.from_numpy(rows(2)[0][1]))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"v/img_00001.t7": b"\x04\x00\x00\x00\x01\x00\x00\x00\x03\x00\x00\x00V 1"}, "Torch7.*torchfile"),
        ({"v/img_00001.t7": b"4\n1\n3\nV 1\n"}, "Torch7.*torchfile"),
        ({"v/img_00001.t7": b""}, "torch.save"),
        ({"v/img_00001.t7": pickle.dumps(EVIL["os.system"]())}, "img_00001.t7 cannot be read"),
        ({"v/img_00001.t7": torch_file(EVIL["os.system"]())}, r"posix.system; nothing was run"),
        ({"v/img_00001.t7": torch_file(EVIL["eval"](), old=True)}, r"requires eval; nothing was run"),
        ({"v/img_00001.t7": torch_file([1])}, "holds a list"),
        ({"v/img_00001.t7": torch_file(torch.tensor(1.0))}, r"tensor \(\); \(D,\)"),
        ({"v/img_00001.t7": torch_file(torch.ones(0))}, r"tensor \(0,\)"),
        ({"v/img_00001.t7": torch_file(torch.ones(2, dtype=torch.complex64))}, "complex64; features are"),
        ({"v/img_1.t7": torch_file(torch.ones(2)), "v/img_2.t7": torch_file(torch.ones(3))}, r"img_2.t7 is \(3,\)"),
        ({"v/img_1.t7": torch_file(torch.ones(2)), "v/img_01.pt": b""}, "img_01.pt and img_1.t7; one file per frame"),
        ({"v/a_00001.t7": b"", "v/b_00002.t7": b""}, "a_00001.t7 and b_00002.t7; one file per frame"),
        ({"v/img_00001.t7": b"", "v/notes.txt": b""}, "v has frames and notes.txt"),
        ({"v/frame.npy": b""}, "no folder with frames"),
        ({"X-Feature/v/1.t7": b"", "X-feature/v/1.t7": b""}, "X-Feature and X-feature.* X; rename"),
        ({}, "no folder with frames"),
    ],
)
def test_ta3n_malformed(tmp_path, files, words):
    (tmp_path / "f").mkdir()
    for name, data in files.items():
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_bytes(data)
    refused(ta3n, tmp_path / "f", words)


def test_ta3n_frames_that_are_no_files(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "img_00001.t7").symlink_to("/dev/null")
    refused(ta3n, tmp_path, "img_00001.t7 is (not|a device)")


def save(folder, arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", np.asarray(array))
    return folder


def test_video_features_streams(tmp_path):
    """Stems may hold underscores and the names of streams; a video that is too short has an empty array."""
    a, b, c = rows(2, 3, 1, dtype=np.float64)
    arrays = {"my_video_rgb": a, "my_video_flow": b, "clip_rgb_rgb": c, "short_rgb": np.array([])}
    found = video_features.read(save(tmp_path / "f", arrays), None)
    assert {key: list(table.ids) for key, table in found.items()} == {
        "flow": ["my_video"],
        "rgb": ["clip_rgb", "my_video"],
    }
    np.testing.assert_array_equal(found["rgb"].row(1), a)
    assert found["rgb"].times is None


def test_video_features_stems_are_known_from_the_files_that_say_when(tmp_path):
    arrays = {"a_b_ViT-B_32": rows(2)[0], "a_b_fps": 25.0, "c_ViT-B_32": rows(2)[0], "c_timestamps_ms": [0.0, 40.0]}
    assert list(video_features.read(save(tmp_path / "f", arrays), None)) == ["ViT-B_32"]


def test_video_features_without_a_stream(tmp_path):
    path = save(tmp_path / "f", {"P01_1": rows(2)[0], "P01_2": rows(2)[0][0]})
    (table,) = video_features.read(path, None).values()
    assert list(table.ids) == ["P01_1", "P01_2"]
    assert table.row(1).shape == (1, 3)


NAN = [np.nan, np.nan]


@pytest.mark.parametrize(
    ("marks", "fps", "start", "stop"),
    [
        ([640.0, 1280.0], 25.0, [0, 0.64], [0.64, 1.28]),  # stacks of 16 frames, end to end
        ([640.0, 960.0], 25.0, [0, 0.32], [0.64, 0.96]),  # a step of 8
        ([640.0, 1280.0], None, NAN, [0.64, 1.28]),
        ([0.0, 40.0], 25.0, [0, 0.04], [0.04, 0.08]),  # frame by frame
        ([0.0, 40.0], None, [0, 0.04], NAN),
        ([0.0, 40.0, 80.0], 25.0, NAN, NAN),  # one more than rows, as for RAFT
    ],
)
def test_video_features_timestamps(tmp_path, marks, fps, start, stop):
    arrays = {"v_rgb": rows(2)[0], "v_timestamps_ms": marks} | ({"v_fps": fps} if fps else {})
    table = video_features.read(save(tmp_path / "f", arrays), None)["rgb"]
    np.testing.assert_allclose(table.times(0), [start, stop], rtol=1e-12)


@pytest.mark.realdata
def test_video_features_real_timestamps(realdata, tmp_path):
    """Its own reference outputs: stacks of I3D follow on each other, frames of CLIP are 0.2 s apart."""
    path = realdata / "sample_videos" / "v_GGSY1Qvo990_reference_features.npz"
    with np.load(path, allow_pickle=False) as reference:
        for prefix, stack in (("i3d__None_raft_24_24_25_", 24 / 25), ("i3d__None_raft_None_None_None_", 64 / 19.62)):
            names = [name for name in reference if name.startswith(prefix)]
            arrays = {f"v_{name.removeprefix(prefix).removesuffix('.data')}": reference[name] for name in names}
            found = video_features.read(save(tmp_path / prefix, arrays), None)
            assert set(found) == {"rgb", "flow"}
            start, stop = found["rgb"].times(0)
            assert len(start) == len(found["flow"].row(0))
            np.testing.assert_allclose(stop - start, stack, rtol=1e-6)
            np.testing.assert_allclose(start[1:], stop[:-1], rtol=1e-6, atol=1e-9)
        prefix = "clip__ViT-B_32_1_5_"
        names = [name for name in reference if name.startswith(prefix)]
        arrays = {f"v_{name.removeprefix(prefix).removesuffix('.data')}": reference[name] for name in names}
        start, stop = video_features.read(save(tmp_path / "clip", arrays), None)["clip"].times(0)
        np.testing.assert_allclose(start, np.arange(90) / 5)
        np.testing.assert_allclose(stop - start, 1 / 5)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a_rgb": RGB, "b": RGB}, "a_rgb.npy.* b.npy.*rgb, flow, .*folders"),
        ({"a_rgb": np.array(["x"])}, "<U1; features are floats"),
        ({"a_rgb": np.array(3.0)}, r"shape \(\)"),
        ({"a_fps": 25.0, "a_timestamps_ms": [1.0]}, "no features"),
        ({"a_rgb": np.array([])}, "no features"),
        ({}, "no features"),
    ],
)
def test_video_features_malformed(tmp_path, arrays, words):
    refused(video_features, save(tmp_path / "f", arrays), words)


def test_video_features_hostile(tmp_path):
    path = save(tmp_path / "f", {"a_rgb": RGB})
    np.save(path / "b_rgb.npy", np.array([EVIL["os.system"]()] * 40, object), allow_pickle=True)
    refused(video_features, path, "b_rgb.npy holds Python objects")
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**20)}
    with (path / "b_rgb.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(bytes(100))
    refused(video_features, path, "do not fit")
    (path / "b_rgb.npy").unlink()
    (path / "b_rgb.npy").symlink_to("/dev/zero")
    refused(video_features, path, "b_rgb.npy is (not|a device)")


def test_a_folder_of_folders_says_which_there_are(tmp_path):
    (tmp_path / "i3d").mkdir()
    refused(video_features, tmp_path, r"in one of its folders \(i3d\)")


@pytest.mark.parametrize(
    ("bridge", "ids", "key"),
    [
        (video_features, ["a/b"], "rgb"),
        (video_features, [".a"], "rgb"),
        (video_features, ["a" * 250], "rgb"),
        (video_features, ["a"], "r/b"),
        (video_features, ["a"], "fps"),
        (ta3n, ["a/../b"], "rgb"),
        (ta3n, ["/a"], "rgb"),
        (ta3n, ["a/"], "rgb"),
        (ta3n, ["a/img_00001.t7"], "rgb"),
        (ta3n, ["a" * 300], "rgb"),
        (ta3n, ["a"], "../rgb"),
    ],
)
def test_ids_that_no_file_can_be_called(tmp_path, bridge, ids, key):
    with pytest.raises(FormatError, match=r"clip id|key|read back"):
        bridge.write(tmp_path / "f", {key: External(ids, rows(1).__getitem__)})
    assert list(tmp_path.iterdir()) == []


def test_video_features_names_that_could_mean_two_things(tmp_path):
    one = External(["a"], rows(1).__getitem__)
    with pytest.raises(FormatError, match=r"'b_c'.* a_b_c.npy; rename"):
        video_features.write(tmp_path / "f", {"b_c": one, "c": External(["a_b"], rows(1).__getitem__)})
    with pytest.raises(FormatError, match=r"a_b_c.npy .*; rename"):
        video_features.write(tmp_path / "f", {"b_c": one, "d": External(["a_b"], rows(1).__getitem__)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bridge", [ta3n, video_features])
def test_a_folder_of_someone_else_is_not_replaced(tmp_path, bridge):
    table = {"rgb": External(["a"], rows(1).__getitem__)}
    (tmp_path / "f").mkdir()
    bridge.write(tmp_path / "f", table)  # an empty one is
    (tmp_path / "f" / MARK).unlink()
    with pytest.raises(FormatError, match="featcache did not write.*new folder"):
        bridge.write(tmp_path / "f", table)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f"]
    (found,) = bridge.read(tmp_path / "f", None).values()
    assert list(found.ids) == ["a"]
    (tmp_path / "g").touch()
    with pytest.raises(FormatError, match="g is a file"):
        bridge.write(tmp_path / "g", table)


def test_a_file_that_someone_added_is_not_removed(tmp_path):
    table = {"rgb": External(["a"], rows(1).__getitem__)}
    video_features.write(tmp_path / "f", table)
    video_features.write(tmp_path / "f", table)
    (tmp_path / "f" / "sub").mkdir()
    (tmp_path / "f" / "sub" / "notes.txt").touch()
    with pytest.raises(FormatError, match="sub/notes.txt.*featcache did not write"):
        video_features.write(tmp_path / "f", table)
    assert (tmp_path / "f" / "sub" / "notes.txt").exists()


def test_a_kill_between_two_renames_loses_no_folder(tmp_path):
    table = {"rgb": External(["a"], rows(1).__getitem__)}
    video_features.write(tmp_path / "f", table)
    left = tmp_path / ".f.7-0a.partial"
    left.mkdir()
    os.replace(tmp_path / "f", left / files.OLD)
    with pytest.raises(OSError, match="full"), replacing_folder(tmp_path / "f", table):
        raise OSError("full")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    assert list(video_features.read(tmp_path / "f", None)) == ["rgb"]


@pytest.mark.parametrize("mark", ["", "[]", "{}", '{"keys": 3, "ids": []}', '{"keys": [], "ids": [["a"]]}', "[" * 9999])
def test_a_mark_that_is_damaged(tmp_path, mark):
    video_features.write(tmp_path / "f", {"rgb": External(["a"], rows(1).__getitem__)})
    (tmp_path / "f" / MARK).write_text(mark)
    with pytest.raises(FormatError, match=f"{MARK}.*remove it, or export"):
        video_features.read(tmp_path / "f", None)
