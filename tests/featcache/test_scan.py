import os

import pytest

from featcache.errors import ArgumentsError, ManifestError
from featcache.scanning import scan, unlabelled, whole_files


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def test_paths_become_clips(tmp_path):
    touch(tmp_path, "a/train/cut/1.mp4", "a/test/cut/2.MP4", "b/train/pour/3.avi", "b/notes.txt", "b/.hidden.mp4")
    found = scan(tmp_path, "{domain}/{split}/{label}/{clip_id}")
    assert [(c.clip_id, c.domain, c.split, c.labels["label"], c.source) for c in found.manifest] == [
        ("2", "a", "test", "cut", "a/test/cut/2.MP4"),
        ("1", "a", "train", "cut", "a/train/cut/1.mp4"),
        ("3", "b", "train", "pour", "b/train/pour/3.avi"),
    ]
    assert found.unmatched == []
    assert not found.renamed


def test_files_that_do_not_fit_are_listed(tmp_path):
    touch(tmp_path, "a/cut/1.mp4", "stray.mp4")
    assert scan(tmp_path, "{domain}/{label}/{clip_id}").unmatched == ["stray.mp4"]


CAMCORDERS = ["1.MTS", "2.m2ts", "3.VOB", "4.asf", "5.mxf", "6.wma", "7.aiff", "8.oga", "9.aif", "a.3g2", "b.dv"]


def test_media_of_camcorders_and_players_are_clips(tmp_path):
    touch(tmp_path, *(f"cut/{name}" for name in CAMCORDERS))
    found = scan(tmp_path, "{label}/{clip_id}")
    assert [clip.source for clip in found.manifest] == [f"cut/{name}" for name in CAMCORDERS]
    assert found.left_out == {}


def test_all_other_files_are_counted_by_their_ending(tmp_path):
    """But hidden ones, stores, and the manifest of an earlier scan, which is replaced."""
    touch(tmp_path, "1.mp4", "b/1.XYZ", "b/2.xyz", "notes.txt", "b/README", "1.npz", ".x.xyz", "s/hog.zarr/zarr.json")
    touch(tmp_path, "mine.csv", "b/mine.csv")
    found = scan(tmp_path, "{clip_id}", name="mine")
    assert [clip.source for clip in found.manifest] == ["1.mp4"]
    assert found.left_out == {".csv": 1, ".npz": 1, ".txt": 1, ".xyz": 2, "without an ending": 1}


def test_a_folder_of_other_files_alone_names_their_endings(tmp_path):
    touch(tmp_path, "1.xyz", "2.xyz")
    with pytest.raises(ManifestError, match=f"under {tmp_path}.*2 .xyz"):
        scan(tmp_path, "{clip_id}")


def test_arrays_beside_other_media_are_not_clips(tmp_path):
    """Somebody's features beside the videos; alone, they are what there is."""
    touch(tmp_path, "a/1.npz", "a/2.npy", "a/3.h5")
    assert len(scan(tmp_path, "{domain}/{clip_id}").manifest) == 3
    touch(tmp_path, "a/4.mp4", "a/5.skeleton", "b/6.npz")
    found = scan(tmp_path, "{domain}/{clip_id}")
    assert [clip.source for clip in found.manifest] == ["a/4.mp4", "a/5.skeleton"]


def test_equal_names_become_paths(tmp_path):
    touch(tmp_path, "a/1.mp4", "b/1.mp4", "b/1.wav")
    found = scan(tmp_path, "{domain}/{clip_id}")
    assert found.renamed
    assert [clip.clip_id for clip in found.manifest] == ["a/1.mp4", "b/1.mp4", "b/1.wav"]


def test_parts_of_a_name(tmp_path):
    touch(tmp_path, "P01_cut_7.mp4")
    (clip,) = scan(tmp_path, "{domain}_{label}_{clip_id}").manifest
    assert (clip.domain, clip.labels, clip.clip_id) == ("P01", {"label": "cut"}, "7")


def test_split_is_stratified_seeded_and_never_empties_a_side(tmp_path):
    touch(
        tmp_path,
        *(f"{d}/{label}/{d}{label}{i}.mp4" for d in "ab" for label, n in (("x", 10), ("y", 2)) for i in range(n)),
    )
    layout = "{domain}/{label}/{clip_id}"
    first, again, other = (scan(tmp_path, layout, seed=seed).manifest for seed in (0, 0, 1))
    assert first == again
    assert first != other
    for domain in "ab":
        test = [first.clips[row].labels["label"] for row in first.rows(domain=domain, split="test")]
        assert sorted(test) == ["x", "x", "x", "y"]


def test_frame_folders(tmp_path):
    touch(tmp_path, "a/cut/v1/img_1.jpg", "a/cut/v1/img_2.jpg", "a/cut/v2/img_1.jpg")
    folders = scan(tmp_path, "{domain}/{label}/{clip_id}", fps=30.0).manifest
    assert [(c.clip_id, c.source, c.fps) for c in folders] == [("v1", "a/cut/v1", 30.0), ("v2", "a/cut/v2", 30.0)]
    images = scan(tmp_path, "{domain}/{label}/v1/{clip_id}")
    assert [c.clip_id for c in images.manifest] == ["img_1", "img_2"]


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    touch(tmp_path, "real/cut/1.mp4", "elsewhere/2.mp4")
    (tmp_path / "videos" / "b").mkdir(parents=True)
    (tmp_path / "videos" / "a").symlink_to("../real")
    (tmp_path / "videos" / "b" / "pour").symlink_to("../../elsewhere")
    (tmp_path / "real" / "cut" / "self").symlink_to(".")
    (tmp_path / "elsewhere" / "up").symlink_to("../videos")
    (tmp_path / "elsewhere" / "nowhere").symlink_to("gone")
    found = scan(tmp_path / "videos", "{domain}/{label}/{clip_id}")
    assert [clip.source for clip in found.manifest] == ["a/cut/1.mp4", "b/pour/2.mp4"]
    assert found.unmatched == []


def test_names_that_a_manifest_cannot_hold(tmp_path):
    touch(tmp_path, "a/ .mp4")
    with pytest.raises(ManifestError, match=r"'a/ .mp4': its clip_id is blank; rename"):
        scan(tmp_path, "{domain}/{clip_id}")
    (tmp_path / "a" / " .mp4").unlink()
    (tmp_path / "a" / os.fsdecode(b"k\xfcche.mp4")).write_bytes(b"")
    with pytest.raises(ManifestError, match=r"a/k\\xfcche.mp4' is not UTF-8.*; rename"):
        scan(tmp_path, "{domain}/{clip_id}")


def test_files_that_a_manifest_cannot_hold_are_left_out_of_clips_to_predict(tmp_path):
    odd = {" .mp4": "blank", os.fsdecode(b"k\xfcche.mp4"): "not UTF-8"}
    for name in odd:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ManifestError, match="rename"):
        unlabelled(tmp_path, "d")
    touch(tmp_path, "good.mp4")
    manifest, refused = unlabelled(tmp_path, "d")
    assert [clip.source for clip in manifest] == ["good.mp4"]
    assert [*refused] == [" .mp4", r"k\xfcche.mp4"]
    assert all(reason in text for reason, text in zip(odd.values(), refused.values(), strict=True))
    assert len(whole_files("m", sorted(tmp_path.iterdir()), "d")[1]) == 2


@pytest.mark.parametrize("fps", [0.0, -3.0, float("nan"), float("inf")])
def test_frame_rates_are_positive(tmp_path, fps):
    touch(tmp_path, "a/1.png")
    with pytest.raises(ManifestError, match="fps .* not a frame rate"):
        scan(tmp_path, "{clip_id}", fps=fps)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("{domain}/{clip}", "no part {clip}"),
        ("{domain}", "no {clip_id}"),
        ("{clip_id}/{clip_id}", "{clip_id} .*twice"),
        ("{domain}/{clip_id}.mp4", "ending .mp4; write '{domain}/{clip_id}'"),
    ],
)
def test_bad_layouts(tmp_path, layout, message):
    touch(tmp_path, "a/1.mp4")
    with pytest.raises(ManifestError, match=message):
        scan(tmp_path, layout)


def test_bad_folders(tmp_path):
    with pytest.raises(ManifestError, match="no folder"):
        scan(tmp_path / "none", "{clip_id}")
    with pytest.raises(ManifestError, match="no videos"):
        scan(tmp_path, "{clip_id}")
    touch(tmp_path, "a/1.mp4")
    with pytest.raises(ManifestError, match="none of 1 files fits"):
        scan(tmp_path, "{domain}/{label}/{clip_id}")
    touch(tmp_path, "d/dev/1.mp4")
    with pytest.raises(ManifestError, match="split 'dev'"):
        scan(tmp_path, "{domain}/{split}/{clip_id}")
    with pytest.raises(ManifestError, match="test share 1.5"):
        scan(tmp_path, "{domain}/{clip_id}", test_share=1.5)


def described(found):
    return {clip.source: (clip.domain, clip.labels) for clip in found.manifest}


def test_a_folder_of_one_domain_needs_no_layout(tmp_path):
    touch(tmp_path, "source/cut/1.mp4", "source/pour/2.mp4", "target/3.mp4", "target/4.mp4", "deep/a/b/5.mp4")
    found = scan(tmp_path / "source", domain="A")
    assert described(found) == {"cut/1.mp4": ("A", {"label": "cut"}), "pour/2.mp4": ("A", {"label": "pour"})}
    assert described(scan(tmp_path / "target", domain="B")) == {"3.mp4": ("B", {}), "4.mp4": ("B", {})}
    unlabelled = scan(tmp_path / "source", domain="B", labelled=False)
    assert described(unlabelled) == {"cut/1.mp4": ("B", {}), "pour/2.mp4": ("B", {})}
    assert {clip.split for clip in unlabelled.manifest} == {"train", "test"}
    assert described(scan(tmp_path / "deep", domain="B", labelled=False)) == {"a/b/5.mp4": ("B", {})}
    assert described(scan(tmp_path / "deep", labelled=False)) == {"a/b/5.mp4": ("deep", {})}


def test_the_first_layout_that_fits_describes_a_path(tmp_path):
    """One folder may hold a labelled domain and one without class folders."""
    touch(tmp_path, "a/test/cut/1.mp4", "b/2.mp4", "b/3.mp4", "stray.mp4")
    found = scan(tmp_path, ["{domain}/{split}/{label}/{clip_id}", "{domain}/{clip_id}"])
    assert described(found) == {"a/test/cut/1.mp4": ("a", {"label": "cut"}), "b/2.mp4": ("b", {}), "b/3.mp4": ("b", {})}
    assert found.unmatched == ["stray.mp4"]
    assert next(clip.split for clip in found.manifest) == "test"
    assert {clip.split for clip in found.manifest if clip.domain == "b"} == {"train", "test"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "neither a layout nor a domain"),
        ({"domain": " "}, "domain is blank"),
        ({"domain": "B", "layout": "{domain}/{clip_id}"}, "{domain}.*'B'"),
        ({"labelled": False, "layout": "{label}/{clip_id}"}, "{label}.*without labels"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, complaint):
    touch(tmp_path, "1.mp4")
    with pytest.raises(ArgumentsError, match=complaint):
        scan(tmp_path, **options)
