"""Reasons of failed clips name the source as the manifest does, so that a store does not depend on the folder."""

import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from featcache import Clip, FeatureStore, Manifest
from featcache.importing import import_features
from featcache.windows import Plan
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors
from tests.helpers.media import numbered, write_video

EXTRACTORS = ["hog", "logmel", "vector", "skeleton"]


def broken_media(folder):
    """A source for every kind of reason: missing, empty, text, cut off, silent, out of bounds, damaged arrays, ..."""
    (folder / "sub dir").mkdir(parents=True)
    write_video(folder / "good.mp4", frames=5)
    whole = (folder / "good.mp4").read_bytes()
    contents = {
        "empty.mp4": b"",
        "text.mp4": b"not a video\n" * 50,
        "cut.mp4": whole[: len(whole) // 2],
        "sub dir/it's  \u00e9.mkv": whole[:900],
        "damaged.wav": b"RIFF\x00\x00\x00\x00WAVEfmt ",
        "bad.png": b"\x89PNG\r\n\x1a\n" + bytes(40),
        "bad.npy": b"\x93NUMPY\x01\x00junk",
        "bad.h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "bad.npz": b"PK\x03\x04" + bytes(30),
        "bad.json": b"{",
        "bad.csv": b"a,b\n1\n",
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / "frames").mkdir()
    cv2.imwrite(str(folder / "frames" / "0.png"), numbered(0))
    (folder / "frames" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with h5py.File(folder / "other.h5", "w") as file:
        file["words"] = [b"a"]
    (folder / "link.mp4").symlink_to("text.mp4")
    names = [*contents, "frames", "other.h5", "link.mp4", "missing.mp4", "GOOD.mp4", "sub dir/missing.npy"]
    clips = [Clip(name, "d", "train", name, fps=25 if name == "frames" else None) for name in names]
    clips.append(Clip("late", "d", "train", "good.mp4", start=9, stop=10))
    clips.append(Clip("outside", "d", "train", str(folder.parent / "elsewhere.mp4")))
    Manifest("m", tuple(clips), folder).write(folder / "m.csv")


def content(store):
    return {str(file.relative_to(store)): file.read_bytes() for file in sorted(store.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media") / "a place"
    broken_media(folder)
    return folder


def test_the_folder_in_which_a_command_runs_changes_no_byte_of_a_store(media, tmp_path, monkeypatch):
    moved = shutil.copytree(media, tmp_path / "other" / "disk", symlinks=True)
    (tmp_path / "link").symlink_to(moved)
    inside, extractors = moved / "sub dir", load_extractors(EXTRACTORS, ["vector.dims=4"])
    places = [(tmp_path, media), (moved, "."), (inside, ".."), (tmp_path, "link"), (tmp_path, "other/disk")]
    made, prints = [], []
    for number, (folder, typed) in enumerate(places):
        monkeypatch.chdir(folder)
        stores = [tmp_path / str(number) / "m" / f"{extractor.store}.zarr" for extractor in extractors]
        manifest = Manifest.read(os.path.join(typed, "m.csv"))
        extract(manifest, extractors, tmp_path / str(number), plan=Plan("segments", 1))
        made.append([content(store) for store in stores])
        prints.append([FeatureStore.open(store).fingerprint for store in stores])
    assert all(one == made[0] for one in made)
    assert all(one == prints[0] for one in prints)
    reasons = [reason for store in stores for reason in FeatureStore.open(store).failures.values()]
    assert len(set(reasons)) > 30
    assert [reason for reason in reasons if str(tmp_path) in reason or "other/disk" in reason or "0x" in reason] == []
    for clip in Manifest.read(media / "m.csv"):
        assert any(clip.source in reason for reason in reasons), clip.source


def test_the_reasons_of_an_import_name_files_without_folders(tmp_path, monkeypatch):
    folder = tmp_path / "features"
    folder.mkdir()
    np.save(folder / "a_rgb.npy", np.ones((2, 3), np.float32))
    (folder / "b_rgb.npy").write_bytes(b"\x93NUMPY\x01\x00" + bytes(200))
    manifest = Manifest("m", tuple(Clip(name, "d", "train", f"{name}.mp4") for name in "ab"), tmp_path)
    stores = []
    for number, (place, typed) in enumerate([(tmp_path, folder), (tmp_path, "features"), (folder, "../features")]):
        monkeypatch.chdir(place)
        (report,) = import_features([Path(typed)], "video_features", manifest, tmp_path / str(number))
        ((_, reason),) = report.failed
        assert reason.startswith("features/b_rgb.npy")
        stores.append(FeatureStore.open(report.path).fingerprint)
    assert len(set(stores)) == 1
