"""Files that declare more than they hold: one sentence with the number, the limit and the variable, and no memory."""

import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featcache import bridges, budget
from featcache.errors import ConfigError, FeatcacheError, FormatError, MediaError, StoreError
from featcache.media import images, numbers, probe, skeleton
from featcache.media.headers import declared
from featcache.store import FeatureStore, _compressed, digests
from featcache.store.archive import pack, unpack
from featcache.untrusted.parquet import check_pages
from featcache.weights import checkpoints
from featcache.windows import Plan
from tests.helpers.media import Listener, Watcher, clip, numbered, take, write_video
from tests.helpers.stores import manifest, write_store

SMALL, MANY = 1 << 20, 16 << 20  # bytes that any file may unpack to in the fast tests, and that these would unpack to


def png(path, width, height, bits=8, colour=2):
    """A PNG whose header declares this size; its pixels are missing but for a few."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def wav(path, rate, samples=4000):
    head = struct.pack("<IHHIIHH", 16, 1, 1, rate, rate, 1, 8)
    data = b"WAVEfmt " + head + b"data" + struct.pack("<I", samples) + bytes(range(200)) * (samples // 200)
    path.write_bytes(b"RIFF" + struct.pack("<I", len(data)) + data)


def npz(path, part=1):
    count = MANY // part
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        shape = (count // 1024, 1024)
        np.lib.format.write_array_header_1_0(file, {"descr": "|i1", "fortran_order": False, "shape": shape})
        for _ in range(count >> 20):
            file.write(bytes(1 << 20))


def npz_header(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as file:
        file.write(b"\x93NUMPY\x02\x00" + struct.pack("<I", 1 << 17) + b" " * (1 << 17))


def mat5(path):
    def element(kind, data):
        return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)

    shape = struct.pack("<ii", MANY >> 13, 1024)  # an eighth of the bytes: they become doubles
    array = element(6, struct.pack("<II", 6, 0)) + element(5, shape) + element(1, b"rgb") + element(2, bytes(MANY >> 3))
    packed = zlib.compress(element(14, array))
    head = b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM"
    path.write_bytes(head + struct.pack("<II", 15, len(packed)) + packed)


def hdf5(path, chunks=None, shape=(4, 4)):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("rgb", shape, "u1", maxshape=(None, None), chunks=chunks, compression="gzip")
        data[:4] = 0
        file["clip_id"] = [b"a", b"b", b"c", b"d"]


def shared_text(path):
    """All 300 ids are one text of a megabyte in the file."""
    with h5py.File(path, "w") as file:
        file["rgb"] = np.zeros((300, 4))
        ids = file.create_dataset("clip_id", (300,), h5py.string_dtype(), chunks=(300,), compression="gzip")
        ids[0] = "x" * 1_000_000
        first = zlib.decompress(ids.id.read_direct_chunk((0,))[1])[:16]
        ids.id.write_direct_chunk((0,), zlib.compress(first * 300))


def cells(path, make, count=3):
    """MATLAB 7.3: cells that all refer to one data set of the group of references."""
    with h5py.File(path, "w") as file:
        group = file.create_group("#refs#")
        data = make(file, group, path)
        rgb = file.create_dataset("rgb", (1, count), h5py.ref_dtype, compression="gzip", chunks=(1, count))
        rgb[:] = (file["#refs#/a"] if data is None else data).ref
        rgb.attrs["MATLAB_class"] = np.bytes_("cell")
        file["clip_id"] = np.arange(float(count))[None]


def virtual(file, group, path):
    with h5py.File(path.with_name("other.h5"), "w") as other:
        other["x"] = np.zeros((3, 4))
    layout = h5py.VirtualLayout((3, 4), "f8")
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "x", (3, 4))
    return group.create_virtual_dataset("a", layout)


def external(file, group, path):
    path.with_name("raw").write_bytes(bytes(96))
    return group.create_dataset("a", (3, 4), "f8", external=[(str(path.with_name("raw")), 0, 96)])


def large(file, group, path):
    return group.create_dataset("a", (1000, 1000), "f4", compression="gzip", data=np.zeros((1000, 1000), "f4"))


def parquet(path):
    count = MANY // 4
    values = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.array(np.zeros(count, np.float32)))
    pq.write_table(pa.table({"clip_id": ["a"], "rgb": values}), path)


def parquet_ids(path):
    count = MANY // 1_000_000
    ids = pa.array(["x" * 1_000_000]).take(pa.array([0] * count))
    pq.write_table(pa.table({"clip_id": ids, "rgb": pa.array([[[0.5]]] * count)}), path)


def bodies(path):
    """Each frame has another body, so that an array of all bodies and frames has a million places of 25 joints."""
    joint = "0 0 1\n"
    path.write_text("1000\n" + "".join(f"1\n{k}\n25\n{25 * joint}" for k in range(1000)))


def bridge(kind):
    return lambda path: [table.row(0) for table in bridges.load(kind).read(path, None).values()]


def pgm(path, header):
    path.write_bytes(header + b"\n255\n" + bytes(1000))


def radiance(path):
    """A line of the header that looks like its last one, but is smaller."""
    path.write_bytes(b"#?RADIANCE\nX=-Y 1 +X 1\nFORMAT=32-bit_rle_rgbe\n\n-Y 32000 +X 32000\n" + bytes(1000))


def pam(path):
    """A comment that looks like smaller sides."""
    lines = "WIDTH 32000\nHEIGHT 32000\nDEPTH 1\nMAXVAL 255\n# WIDTH 1\n# HEIGHT 1\nTUPLTYPE GRAYSCALE\nENDHDR\n"
    path.write_bytes(b"P7\n" + lines.encode() + bytes(1000))


def jpeg2000(path):
    """A box before the code stream holds a smaller one."""

    def stream(side):
        size = struct.pack(">HHIIII", 47, 0, side, side, 0, 0) + bytes(16) + struct.pack(">H", 3) + bytes(9)
        return b"\xff\x4f\xff\x51" + size

    data = cv2.imencode(".jp2", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    place = data.index(b"ftyp") - 4 + int.from_bytes(data[data.index(b"ftyp") - 4 :][:4], "big")
    box = bytes(16) + stream(10)
    box = struct.pack(">I", 8 + len(box)) + b"uuid" + box
    codes = data.index(b"\xff\x4f\xff\x51")
    path.write_bytes(data[:place] + box + data[place:codes] + stream(32000) + data[codes + len(stream(0)) :])


def row_groups(path):
    """The footer lists row groups of no bytes, many as dictionaries."""
    footer = b"\x49\xfc" + b"\x80\x80\x40" + bytes(1 << 20) + b"\0"
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")


def sound(path):
    return take(path, Listener())


HOSTILE = {  # name of the file -> how it is made, how it is read, and a word of the error
    "picture.png": (lambda path: png(path, 32000, 32000), images.read, "32000 x 32000.*FEATCACHE_MAX_PIXELS"),
    "comment.pgm": (lambda path: pgm(path, b"P5\n#\r32000 32000 255\n1 1"), images.read, "FEATCACHE_MAX_PIXELS"),
    "hash.pgm": (lambda path: pgm(path, b"P5 32000#32000\n1"), images.read, "32000 x 32000.*FEATCACHE_MAX_PIXELS"),
    "long.pgm": (
        lambda path: pgm(path, b"P5 #" + b" " * 4080 + b"\n32000 32000"),
        images.read,
        "32000 x 32000.*FEATCACHE_MAX_PIXELS",
    ),
    "header.hdr": (radiance, images.read, "32000 x 32000.*FEATCACHE_MAX_PIXELS"),
    "comment.pam": (pam, images.read, "32000 x 32000.*FEATCACHE_MAX_PIXELS"),
    "box.jp2": (jpeg2000, images.read, "32000 x 32000.*FEATCACHE_MAX_PIXELS"),
    "deep.png": (lambda path: png(path, 8192, 8192, 16, 6), images.read, "8192 x 8192.*FEATCACHE_MAX_PIXELS"),
    "slow.wav": (lambda path: wav(path, 1), sound, "1 samples.*limit of 50.*FEATCACHE_MIN_SAMPLE_RATE"),
    "fast.wav": (lambda path: wav(path, 999_999), sound, "999999 samples.*FEATCACHE_MAX_SAMPLE_RATE"),
    "odd.wav": (lambda path: wav(path, 383_999), sound, "383999.*383999 steps.*FEATCACHE_MAX_RESAMPLING=383999"),
    "weights.npz": (npz, checkpoints.read, "FEATCACHE_MAX_GROWTH"),
    "rows.npz": (npz, bridge("npz"), "FEATCACHE_MAX_GROWTH"),
    "table.npz": (npz, lambda path: numbers.read(path, clip()), "FEATCACHE_MAX_GROWTH"),
    "bytes.npz": (lambda path: npz(path, 16), lambda path: numbers.read(path, clip()), "FEATCACHE_MAX_GROWTH"),
    "header.npz": (npz_header, bridge("npz"), "header has 131072 bytes"),
    "five.mat": (mat5, bridge("mat"), "FEATCACHE_MAX_GROWTH"),
    "shape.h5": (lambda path: hdf5(path, (4, 4), (1 << 30, 4)), bridge("hdf5"), "FEATCACHE_MAX_GROWTH"),
    "chunk.h5": (lambda path: hdf5(path, (1 << 14, MANY >> 14)), bridge("hdf5"), "FEATCACHE_MAX_GROWTH"),
    "text.h5": (shared_text, bridge("hdf5"), "FEATCACHE_MAX_GROWTH"),
    "many.mat": (lambda path: cells(path, large, 60), bridge("mat"), "FEATCACHE_MAX_GROWTH"),
    "virtual.mat": (lambda path: cells(path, virtual), bridge("mat"), "rgb.1.*another file"),
    "external.mat": (lambda path: cells(path, external), bridge("mat"), "rgb.1.*another file"),
    "group.mat": (lambda path: cells(path, lambda file, group, _: group), bridge("mat"), "rgb.1.*refers to a group"),
    "count.mat": (lambda path: cells(path, large, 100_000), bridge("mat"), "100000 cells"),
    "one.parquet": (parquet, bridge("parquet"), "FEATCACHE_MAX_GROWTH"),
    "groups.parquet": (row_groups, lambda path: check_pages(path, {"rgb"}, budget.Allowance(1, "x")), "no columns"),
    "ids.parquet": (parquet_ids, bridge("parquet"), "FEATCACHE_MAX_GROWTH"),
    "bodies.skeleton": (bodies, lambda path: skeleton.read(path, clip()), "FEATCACHE_MAX_GROWTH"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_file_declares_is_refused_before_it_is_made(name, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "SMALL", SMALL)
    make, read, word = HOSTILE[name]
    make(tmp_path / name)
    with pytest.raises(FeatcacheError, match=rf"(?s){name}.*{word}"):
        read(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_refusing_costs_neither_memory_nor_time(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "MANY", 300 << 20)
    HOSTILE[name][0](tmp_path / name)
    code = f"""
import sys, time
from pathlib import Path
from tests.featcache import test_budget as t
warm = Path(sys.argv[1]).with_name("warm.wav")  # libraries that are imported late do not count
t.wav(warm, 8000)
t.sound(warm)
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) >> 10
before, begun = peak(), time.monotonic()
try:
    t.HOSTILE[{name!r}][1](Path(sys.argv[1]))
except t.FeatcacheError:
    print(peak() - before, time.monotonic() - begun)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True, check=True, cwd=os.getcwd()
    )
    megabytes, seconds = map(float, done.stdout.split())
    assert megabytes < 250
    assert seconds < 20  # mostly the import of libraries, on a machine that is busy


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tif", "ppm", "pgm"])
def test_every_format_declares_its_size(ending, tmp_path, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    path = tmp_path / f"a.{ending}"
    cv2.imwrite(str(path), picture if ending != "pgm" else picture[..., 0])
    assert declared(path.read_bytes())[:2] == (60, 40)
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", "2400")
    assert images.read(path).shape == (40, 60, 3)
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", "2399")
    with pytest.raises(MediaError, match=r"60 x 40 .2400 pixels.*limit of 2399.*FEATCACHE_MAX_PIXELS=2400"):
        images.read(path)


def test_headers_that_lie_or_stop(tmp_path):
    for data in (b"", b"RIFF", b"II*\0", b"\xff\xd8\xff", b"P6 1", b"BM", b"\x89PNG", b"GIF8", b"\0\0\0\x0cjP  "):
        assert declared(data) is None
    assert declared(b"II+\0\x08\0\0\0" + b"\xff" * 8) is None  # a place beyond every file
    for fill in (b"\0", b"\xff"):
        assert declared(b"\xff\xd8" + fill * 100_000) is None
    tiff = b"II*\0\x08\0\0\0\x04\0" + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in ((256, 9), (257, 9), (322, 60000), (323, 50000))
    )
    assert declared(tiff)[:2] == (60000, 50000)  # a tile larger than its picture


def test_bytes_between_the_segments_of_a_jpeg(tmp_path):
    """libjpeg passes over them, also over those that look like fill bytes or the beginning of a marker."""
    data = cv2.imencode(".jpg", np.zeros((40, 60, 3), np.uint8))[1].tobytes()
    end = 4 + int.from_bytes(data[4:6], "big")
    for stray in (b"\0\0", b"\xff\xff", b"x\xff\0y"):
        path = tmp_path / "a.jpg"
        path.write_bytes(data[:end] + stray + data[end:])
        assert images.read(path).shape == (40, 60, 3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "ffv1"])
def test_videos_with_too_many_pixels(codec, tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mkv", frames=4, codec=codec)
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", str(128 * 64))
    assert probe(path).width == 128
    os.utime(path, (0, 0))  # read again
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", str(128 * 64 - 1))
    with pytest.raises(MediaError, match=r"128 x 64 .8192 pixels.*limit of 8191.*FEATCACHE_MAX_PIXELS=8192"):
        probe(path)


def test_videos_that_grow_on_the_way(tmp_path, monkeypatch):
    """The header declares small pictures; those after the joint are larger than the limit."""
    for name, size in (("a", (128, 64)), ("b", (512, 256))):
        write_video(tmp_path / f"{name}.h264", pictures=[numbered(n, *size) for n in range(10)])
    path = tmp_path / "ab.h264"
    path.write_bytes((tmp_path / "a.h264").read_bytes() + (tmp_path / "b.h264").read_bytes())
    monkeypatch.setenv("FEATCACHE_MAX_PIXELS", str(128 * 64))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.width == 128
    with pytest.raises(MediaError):
        take(path, Watcher(), plan="segments:4")


def test_windows_of_a_clip(tmp_path, monkeypatch):
    for text in ("segments:999999", "uniform:20000", "inner:16385"):
        with pytest.raises(ConfigError, match=rf"{text}.*limit of 16384.*fewer or longer.*FEATCACHE_MAX_WINDOWS="):
            Plan.parse(text)
    assert Plan.parse("segments:16384").count(0, 1) == 16384
    assert Plan.parse("all:0.1").count(0, 3600) == 36_000
    with pytest.raises(ConfigError, match="3600000 windows.*limit of 360000"):
        Plan.parse("all:0.001").count(0, 3600)
    with pytest.raises(ConfigError, match=f"limit of {budget.MOST_WINDOWS}"):
        Plan.parse("all:0.1").count(0, 1e6)
    plan = Plan.parse("all:0.00001")
    with pytest.raises(ConfigError, match="all:1e-05.*of 2 s declares 200000 windows.*limit of 16384"):
        plan.count(0, 2)
    with pytest.raises(ConfigError, match="correct it"):
        plan.count(0, float("inf"))
    with pytest.raises(ConfigError, match="all:1e-05"):
        take(write_video(tmp_path / "a.mp4"), Watcher(), plan="all:0.00001")
    monkeypatch.setenv("FEATCACHE_MAX_WINDOWS", "200000")
    assert plan.count(0, 2) == 200000
    monkeypatch.setenv("FEATCACHE_MAX_WINDOWS", "many")
    with pytest.raises(ConfigError, match="FEATCACHE_MAX_WINDOWS is 'many'"):
        plan.count(0, 2)


def test_what_is_large_but_true_passes(tmp_path):
    budget.check_pixels(7680, 4320, "8K")
    budget.check_pixels(8192, 8192, "a large picture")
    budget.check_rate(192_000, "a studio's sound")
    for rate in (8000, 11025, 16000, 22050, 24000, 32000, 44056, 44100, 48000, 88200, 96000, 192_000, 384_000):
        assert max(Fraction(rate, 16000).as_integer_ratio()) <= budget.STEPS.value
    budget.check_growth(64 << 20, 0, "zeros")
    wav(tmp_path / "a.wav", 192_000, 96_000)
    assert take(tmp_path / "a.wav", Listener()).windows.shape == (1, 8000)
    np.savez_compressed(tmp_path / "zeros.npz", a=np.zeros((2000, 1024), np.float32))
    assert numbers.read(tmp_path / "zeros.npz", clip()).values.shape == (2000, 1024)


@pytest.mark.parametrize("bounds", [(0, 1e300, "seconds"), (None, 1e18, "frames"), (1e300, None, "seconds")])
@pytest.mark.parametrize("fps", [1e-300, 30.0, 1e300])
def test_bounds_and_rates_beyond_every_file(bounds, fps, tmp_path):
    """They end with the file, or the clip has no rows there."""
    np.save(tmp_path / "a.npy", np.ones((10, 3)))
    start, stop, unit = bounds
    row = clip(start, stop, unit, fps=fps)
    try:
        assert 1 <= len(numbers.read(tmp_path / "a.npy", row).values) <= 10
    except MediaError as error:
        assert "correct start and stop" in str(error)


def test_a_limit_is_raised_as_its_error_says(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "SMALL", SMALL)
    npz(tmp_path / "a.npz")
    with pytest.raises(FormatError) as refused:
        bridge("npz")(tmp_path / "a.npz")
    name, value = str(refused.value).rpartition("set ")[2].split("=")
    monkeypatch.setenv(name, value)
    assert [row.nbytes for row in bridge("npz")(tmp_path / "a.npz")] == [MANY]


def test_shards_that_declare_other_sizes(tmp_path):
    """A frame of zstd of another size than the chunk, and rows that few bytes cannot hold."""
    write_store(tmp_path, manifest(), "hog")
    store = tmp_path / "hog.zarr"
    pack(store, tmp_path / "a")
    shard = next((tmp_path / "a/features/c").rglob("*"))
    while shard.is_dir():
        shard = next(shard.iterdir())
    layout = FeatureStore.open(store).layout
    encoded = shard.read_bytes()
    assert _compressed.decode(encoded, 0, layout, "x")
    place = encoded.index(b"\x28\xb5\x2f\xfd")
    single = (encoded[place + 4] & 0x20) | 0xC0  # the same frame, with a size of eight bytes
    bomb = encoded[:place] + b"\x28\xb5\x2f\xfd" + bytes([single]) + b"\xff" * 8 + encoded[place + 13 :]
    with pytest.raises(StoreError, match="x has a chunk of"):
        _compressed.decode(bomb, 0, layout, "x")
    with pytest.raises(StoreError, match="x would grow.*FEATCACHE_MAX_GROWTH"):
        _compressed.decode(encoded, 0, replace(layout, row_shape=(1 << 28,)), "x")
    unpack(tmp_path / "a", tmp_path / "b")


def test_stores_that_declare_more_than_they_hold(tmp_path):
    write_store(tmp_path, manifest(), "hog")
    store = tmp_path / "hog.zarr"
    metadata = store / "features" / "zarr.json"
    whole = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**whole, "shape": [10**12, *whole["shape"][1:]]}))
    (store / "SHA256SUMS").write_bytes(digests.fixed_sums(store))
    with pytest.raises(StoreError, match="shape has 1000000000000 clips, more than rows.csv"):
        FeatureStore.open(store).counts()


def test_a_wrong_limit_is_not_called_a_damaged_file(tmp_path, monkeypatch):
    np.savez(tmp_path / "f.npz", clip_id=["a"], f=np.ones((1, 3), np.float32))
    monkeypatch.setenv("FEATCACHE_MAX_GROWTH", "abc")
    with pytest.raises(ConfigError, match="^FEATCACHE_MAX_GROWTH is 'abc'"):
        bridges.load("npz").read(tmp_path / "f.npz", None)


def test_a_member_of_a_tar_that_is_larger_than_the_file(tmp_path):
    member = tarfile.TarInfo("__featcache__/rgb.json")
    member.size = 1 << 50
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(FormatError, match="a.tar"):
        bridges.load("webdataset").read(tmp_path / "a.tar", None)
