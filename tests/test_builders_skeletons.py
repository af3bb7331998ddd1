"""Builders of skeleton data sets, on small files in their layouts and, where they are, on the real ones."""

import shutil
import warnings

import numpy as np
import pytest

from featcache import Manifest, builders
from featcache.errors import ManifestError
from featcache.extractors.skeleton import Params, Skeletons
from featcache.media import skeleton
from tests.conftest import ROOT

FILES = {"utk": "utkinect", "msr": "msraction3d", "florence": "florence3d"}


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def build(name, folder):
    """The manifest; numbers of clips that are too small are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builders.load(name).build(folder)


def row(manifest, clip, **params):
    return Skeletons(Params(**params)).prepare(skeleton.read(manifest.path(clip), clip))


def kinect_actions(folder):
    """In each data set a clip of 2 frames of the first subject, one of 3 of the second; frame t is at x = t."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, joints in (("utkinect", 20), ("msraction3d", 20), ("florence3d", 15)):
        frames = np.random.default_rng(0).uniform(1, 2, (5, joints, 3)).astype(np.float32)
        frames[..., 0] = np.arange(5)[:, None]
        np.savez(
            folder / f"{name}.npz",
            frames=frames,
            offset=np.array([0, 2, 5]),
            label=np.array([1, 0]),
            subject=np.array([1, 2]),
            trial=np.array([1, 1]),
            class_names=np.array(["walk", "sit down"]),
        )


WRITERS = {"kinect_actions": kinect_actions}


@pytest.mark.parametrize("name", WRITERS)
def test_the_manifest_is_written_and_read_back(name, tmp_path):
    WRITERS[name](tmp_path)
    calls = []
    with pytest.warns(UserWarning, match=f"^{name}: ") as said:
        built = builders.load(name).build(tmp_path, progress=lambda *call: calls.append(call))
    assert all(str(w.message).startswith(f"{name}: ") for w in said)
    assert Manifest.read(tmp_path / f"{name}.csv").clips == built.clips
    assert calls == [(len(built), len(built))]
    assert {clip.split for clip in built} == {"train", "test"}
    for clip in built:
        assert built.path(clip).is_file()
        prefix, colon, _ = clip.labels["label"].partition(":")
        assert colon
        assert prefix in clip.domain  # classes of a domain are its own
    card = (ROOT / "data_manifests" / f"{name}.md").read_text()
    assert f"featcache manifest build {name} " in card
    assert all(f"`{domain}`" in card for domain in built.domains)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_without_any_file_is_an_error(name, tmp_path):
    with pytest.raises(ManifestError, match=str(tmp_path)):
        build(name, tmp_path)


# UTKinect, MSR-Action3D, Florence3D


def test_clips_of_the_three_are_intervals_with_classes_of_their_own(tmp_path):
    kinect_actions(tmp_path)
    built = build("kinect_actions", tmp_path)
    assert built.domains == ("florence", "msr", "utk")
    first, second = built.select(domain="florence").clips
    assert (first.clip_id, first.split, first.labels) == (
        "florence/s01_a01_t1",
        "train",
        {"label": "florence:sit down"},
    )
    assert (second.start, second.stop, second.unit, second.split) == (2, 5, "frames", "test")
    for clip in built:
        found = row(built, clip, layout="kinect-15", resize=False, rotate=False)
        metres = 0.001 if clip.domain == "florence" else 1
        expected = np.arange(clip.start, clip.stop) * metres
        np.testing.assert_allclose(found[0, : len(expected), :, 0], np.repeat(expected[:, None], 15, 1), rtol=1e-6)


def test_some_of_the_three_are_enough(tmp_path):
    kinect_actions(tmp_path)
    (tmp_path / "florence3d.npz").unlink()
    with pytest.warns(UserWarning, match="^kinect_actions: ") as said:
        built = builders.load("kinect_actions").build(tmp_path)
    assert "kinect_actions: florence train has 0 clips, published are 109" in [str(w.message) for w in said]
    assert built.domains == ("msr", "utk")
    assert row(built, built.clips[0], layout="kinect-20").shape == (3, 50, 20, 2)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("frames", np.zeros((4, 20, 3)), "frames are 4, but the last offset says 5"),
        ("label", np.zeros(3, int), "must be equally long, and offset by one longer"),
        ("label", np.full(2, 2), "label must be from 0 to 1"),
        ("trial", None, "has no array trial"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(tmp_path, name, value, said):
    kinect_actions(tmp_path)
    path = tmp_path / "utkinect.npz"
    with np.load(path) as file:
        arrays = dict(file) | {name: value}
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(ManifestError, match=said):
        build("kinect_actions", tmp_path)
    path.write_text("no archive")
    with pytest.raises(ManifestError, match=r"utkinect.npz is no .npz file of plain arrays"):
        build("kinect_actions", tmp_path)


@pytest.mark.realdata
def test_the_real_three_have_their_numbers_and_people(realdata, tmp_path):
    for name in FILES.values():
        shutil.copy(realdata / "skeleton_kinect" / f"{name}.npz", tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = builders.load("kinect_actions").build(tmp_path)
    assert {domain: len(built.rows(domain=domain)) for domain in FILES} == {"utk": 199, "msr": 557, "florence": 215}
    classes = {domain: len(built.select(domain=domain).classes["label"]) for domain in FILES}
    assert classes == {"utk": 10, "msr": 20, "florence": 9}
    place = {name: k for k, name in enumerate(Skeletons(Params(layout="kinect-15")).layout.names)}
    for domain, name in FILES.items():
        some = built.select(domain=domain).clips[:40:8]
        x, y, z = np.concatenate([row(built, clip, layout="kinect-15")[..., 0] for clip in some], axis=1)  # (50 n, 15)
        shoulders = x[:, place["right shoulder"]] - x[:, place["left shoulder"]]
        assert 0.2 < np.median(shoulders) < 0.5  # metres
        height = {joint: np.median(y[:, k]) for joint, k in place.items()}
        assert height["head"] > height["shoulder centre"] > height["spine"] > height["left hip"] > height["left ankle"]
        assert 1 < np.median(z) < 5  # from the camera
        if domain != "florence":
            with np.load(tmp_path / f"{name}.npz") as file:
                frames = file["frames"][int(some[1].start) : int(some[1].stop)]
            found = row(built, some[1], layout="kinect-20", resize=False, rotate=False, frames=len(frames), bodies=1)
            np.testing.assert_array_equal(found[..., 0].transpose(1, 2, 0), frames)
