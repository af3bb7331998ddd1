"""Five real videos and a sound file through media reading and all three descriptors."""

import numpy as np
import pytest

from featcache import FeatureStore, extractors
from featcache.errors import MediaAbsentError
from featcache.media import Take, probe, read_clip
from featcache.scanning import scan
from featcache.windows import Plan
from pipelines.extraction.extract import extract
from tests.helpers.media import clip

pytestmark = pytest.mark.realdata

#: name: (frames, frames per second, width, height, seconds, has sound)
VIDEOS = {
    "mmaction2_S001C001P001R001A001_rgb.avi": (103, 30, 1920, 1080, 3.433, False),
    "mmaction2_demo.mp4": (280, 28, 340, 256, 10.0, False),
    "mmaction2_test.mp4": (300, 30, 340, 256, 10.0, False),
    "v_GGSY1Qvo990.mp4": (355, 19.62, 320, 240, 18.094, True),
    "v_ZNVhz7ctTq0.mp4": (420, 30, 480, 360, 14.0, True),
}


@pytest.fixture(scope="module")
def frozen():
    return [extractors.load(name) for name in ("hog", "hof", "logmel")]


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_are_described_rightly(realdata, name):
    info = probe(realdata / "sample_videos" / name)
    frames, fps, width, height, seconds, has_audio = VIDEOS[name]
    assert (info.kind, info.frames, info.width, info.height, info.has_audio) == (
        "video",
        frames,
        width,
        height,
        has_audio,
    )
    assert info.fps == pytest.approx(fps, abs=0.01)
    assert info.duration == pytest.approx(seconds, abs=0.001)


@pytest.mark.parametrize("name", VIDEOS)
def test_videos_give_finite_plausible_rows(realdata, frozen, name):
    taken = read_clip(realdata / "sample_videos" / name, clip(), Plan("segments", 3), frozen)
    norms = {}
    for extractor in frozen:
        found = taken[extractor.name]
        if extractor.name == "logmel" and not VIDEOS[name][-1]:
            assert isinstance(found, MediaAbsentError)
            continue
        assert isinstance(found, Take), found
        rows = extractor(found.windows)
        assert rows.shape == (3, *extractor.row_shape)
        assert np.isfinite(rows).all()
        assert (found.start >= 0).all()
        assert (found.stop <= VIDEOS[name][4] + 0.1).all()
        norms[extractor.name] = np.linalg.norm(rows, axis=1).mean()
    assert norms["hog"] > 2 * norms["hof"]  # the modalities differ in norm, as those of real networks do
    assert norms["hof"] > 1


def test_the_sound_file_has_sound_and_no_pictures(realdata, frozen):
    path = realdata / "sample_videos" / "mmaction2_test.wav"
    taken = read_clip(path, clip(), Plan("segments", 3), frozen)
    assert isinstance(taken["hog"], MediaAbsentError)
    rows = frozen[2](taken["logmel"].windows)
    assert np.isfinite(rows).all()
    assert rows.std() > 0.1
    info = probe(path)
    assert (info.kind, info.audio_rate, info.duration) == ("sound", 16000, pytest.approx(6.5568, abs=1e-3))


def test_a_folder_of_them_goes_through_scan_and_extract_into_stores(realdata, frozen, tmp_path):
    """Scanned, decoded, described, stored and read back, as a user would."""
    found = scan(realdata / "sample_videos", "{clip_id}")
    assert not found.unmatched
    names = {clip.source: row for row, clip in enumerate(found.manifest.clips)}
    sound = "mmaction2_test.wav"
    assert set(names) == {*VIDEOS, sound}

    extract(found.manifest, frozen, tmp_path, plan=Plan("segments", 3))
    stores = {e.name: FeatureStore.open(tmp_path / found.manifest.name / f"{e.name}.zarr") for e in frozen}
    norms = {}
    for name, store in stores.items():
        store.check_rows(found.manifest)
        assert store.clip_ids == [clip.clip_id for clip in found.manifest.clips]
        absent = {video for video, facts in VIDEOS.items() if not facts[-1]} if name == "logmel" else {sound}
        assert store.counts() == {"not tried": 0, "done": 6 - len(absent), "failed": 0, "absent": len(absent)}
        done = [row for source, row in names.items() if source not in absent]
        rows = store.features[done]
        assert rows.shape == (len(done), 3, *store.row_shape)
        assert np.isfinite(rows).all()
        assert 0.01 < np.abs(rows).mean() < 5
        assert rows.std(axis=0).mean() > 0.01  # clips differ
        seconds = np.array([VIDEOS[source][4] if source in VIDEOS else 6.557 for source in names])[done, None]
        assert (store.window_start[done] >= 0).all()
        assert (store.window_stop[done] <= seconds + 0.1).all()
        assert (store.window_start[done] < store.window_stop[done]).all()
        norms[name] = np.linalg.norm(rows.astype(np.float32), axis=-1).mean()
    assert norms["hog"] > 2 * norms["hof"]  # the modalities differ in norm, as those of real networks do
    assert norms["hof"] > 1


def test_a_clip_inside_a_real_video_is_the_same_by_seconds_and_by_frames(realdata, frozen):
    path = realdata / "sample_videos" / "v_GGSY1Qvo990.mp4"  # 19.62 frames per second
    by_frames = read_clip(path, clip(100, 160, "frames"), Plan(), frozen)
    by_seconds = read_clip(path, clip(100 * 50 / 981, 160 * 50 / 981), Plan(), frozen)
    for extractor in frozen:
        np.testing.assert_array_equal(by_frames[extractor.name].windows, by_seconds[extractor.name].windows)
