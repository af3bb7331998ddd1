"""The extraction recipe: rows arrive where they belong, whatever happens on the way."""

import contextlib
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
import pytest

from featcache import Clip, FeatureStore, Manifest
from featcache.errors import ConfigError, MediaAbsentError, MediaError, StoreError
from featcache.extractors import Extractor
from featcache.media import Nothing, Piece
from featcache.store import _format
from featcache.store import writer as store_writer
from featcache.store.check import problems
from featcache.windows import Pictures, Plan
from pipelines.cli import main
from pipelines.extraction import engine
from pipelines.extraction import extract as recipe
from pipelines.extraction.extractors import load_extractors
from tests.helpers.processes import command, stopped, wait_for


@dataclass(frozen=True)
class Params:
    scale: float = 1.0


class Count(Extractor):
    """Rows say which clip and window they are; media are not read (see `media`)."""

    name = "count"
    modality = "rgb"
    row_shape = (2,)
    batch = 3  # as many windows as a clip has
    window = Pictures(1, 1.0)

    def __call__(self, windows):
        return (windows * self.params.scale).astype(np.float32)


class Motion(Count):
    name = "motion"
    modality = "flow"


def clips(n):
    return Manifest("m", tuple(Clip(str(i), "d", "train", f"{i}.mp4") for i in range(n)))


@pytest.fixture
def media(monkeypatch):
    """A stand-in for decoding: clip i, window k -> (i, k); `calls` notes what was asked for, `broken` what fails."""

    class Media:
        calls: list = []  # noqa: RUF012
        broken: dict = {}  # noqa: RUF012

    def windows_of(path, clip, plan, extractors):
        Media.calls.append((clip.clip_id, [extractor.name for extractor in extractors]))
        for extractor in extractors:
            if clip.clip_id in Media.broken:
                yield Nothing(extractor.name, Media.broken[clip.clip_id])
                continue
            T = plan.count(0, 1)
            for k in range(T):
                yield Piece(extractor.name, k, T, np.array([float(clip.clip_id), k]), k, k + 1)

    Media.calls, Media.broken = [], {}
    monkeypatch.setattr(engine, "windows_of", windows_of)
    return Media


def extract(manifest, extractors, stores, **options):
    return recipe.extract(manifest, extractors, stores, plan=Plan("segments", 3), **options)


def test_every_row_is_its_clips(tmp_path, media):
    progress_calls = []
    outcome = extract(clips(50), [Count(Params())], tmp_path, workers=3, progress=lambda *at: progress_calls.append(at))
    features = outcome.stores["count"].features
    assert features.shape == (50, 3, 2)
    assert np.array_equal(features[..., 0], np.repeat(np.arange(50), 3).reshape(50, 3))
    assert np.array_equal(features[..., 1], np.tile(np.arange(3), (50, 1)))
    assert progress_calls == [(i, 50) for i in range(51)]
    assert Manifest.read(tmp_path / "m" / "manifest.csv").sha256 == clips(50).sha256


def test_a_clip_is_decoded_once_for_all_extractors_that_want_it(tmp_path, media):
    extract(clips(3), [Count(Params())], tmp_path)
    media.calls.clear()
    extract(clips(3), [Count(Params()), Motion(Params())], tmp_path)
    assert sorted(media.calls) == [("0", ["motion"]), ("1", ["motion"]), ("2", ["motion"])]
    media.calls.clear()
    extract(clips(3), [Count(Params()), Motion(Params())], tmp_path / "new")
    assert sorted(media.calls) == [(str(i), ["count", "motion"]) for i in range(3)]


def test_decoding_stays_a_few_windows_ahead(tmp_path, media, monkeypatch):
    """While the extractor stands still at its first batch, no more than the read-ahead is decoded."""
    monkeypatch.setattr(engine, "BOUND", 6)
    decoded, computed = [], []

    class Slow(Count):
        batch = 2

        def __call__(self, windows):
            if not computed:
                while len(decoded) < 8:
                    time.sleep(0.01)
                time.sleep(0.2)
                computed.append(len(decoded))
            return super().__call__(windows)

    original = engine.windows_of

    def counted(*job):
        for piece in original(*job):
            decoded.append(piece)
            yield piece

    monkeypatch.setattr(engine, "windows_of", counted)
    recipe.extract(clips(4), [Slow(Params())], tmp_path, plan=Plan("segments", 100), workers=2)
    assert len(decoded) == 400
    # 2 + 2 computed or stacked, 2 more that cannot be, 6 waiting, 2 in the hands of the threads
    assert computed[0] <= 14


def test_a_broken_clip_is_recorded_and_the_rest_is_finished(tmp_path, media):
    media.broken["1"] = MediaError("1.mp4 is truncated")
    outcome = extract(clips(4), [Count(Params())], tmp_path)
    assert outcome.stores["count"].counts() == {"not tried": 0, "done": 3, "failed": 1, "absent": 0}
    assert outcome.reasons("count", "failed") == {"1.mp4 is truncated": ["1"]}
    assert outcome.unusable() == ["count"]
    media.broken.clear()
    again = extract(clips(4), [Count(Params())], tmp_path)
    assert again.reasons("count", "failed") == {"1.mp4 is truncated": ["1"]}  # remembered, not tried again unasked
    mended = extract(clips(4), [Count(Params())], tmp_path, retry_failed=True)
    assert mended.unusable() == []
    assert np.array_equal(mended.stores["count"].features[1, :, 0], [1, 1, 1])


def test_rows_that_cannot_be_kept_are_failures(tmp_path, media):
    """One clip's values must not stop the others, whether they are no numbers or beyond half precision."""
    with np.errstate(invalid="ignore"):
        outcome = extract(clips(2), [Count(Params(np.inf))], tmp_path)  # 0 * inf
    assert outcome.reasons("count", "failed") == {"count gave a row that has values that are not finite": ["0", "1"]}
    outcome = extract(clips(5), [Count(Params(2e4))], tmp_path / "narrow", dtype="float16")
    assert outcome.stores["count"].state.tolist() == [1, 1, 1, 1, 2]
    (reason,) = outcome.reasons("count", "failed")
    assert "reaches 8e+04, beyond float16" in reason
    assert "--dtype float32" in reason
    outcome = extract(clips(5), [Count(Params(2e4))], tmp_path / "wide", dtype="float32")
    assert outcome.stores["count"].features[4, 0, 0] == np.float32(8e4)


def test_a_row_beyond_float16_makes_the_store_one_of_float32(tmp_path, media):
    """And says so. The other extractor's store is not touched, and a resume keeps to what the store has."""
    many = [Motion(Params()), Count(Params(2e4))]
    outcome = extract(clips(5), many, tmp_path)
    assert outcome.notes == ["count: clip '4' reaches 8e+04, beyond float16; the store is made again in float32"]
    assert {name: store.layout.dtype for name, store in outcome.stores.items()} == {
        "motion": "float16",
        "count": "float32",
    }
    assert outcome.stores["count"].features[:, 0, 0].tolist() == [0, 2e4, 4e4, 6e4, 8e4]
    assert [call for call in media.calls if "motion" in call[1]][5:] == []
    media.calls.clear()
    again = extract(clips(6), many, tmp_path)
    assert again.notes == []
    assert again.stores["count"].features[5, 0, 0] == np.float32(1e5)
    assert media.calls == [("5", ["motion", "count"])]
    at_once = extract(clips(6), [Count(Params(2e4))], tmp_path / "at_once", dtype="float32")
    assert content(at_once.stores["count"].path) == content(again.stores["count"].path)


def test_clips_that_a_manifest_gained_are_appended(tmp_path, media):
    extract(clips(3), [Count(Params()), Motion(Params())], tmp_path)
    media.calls.clear()
    extract(clips(5), [Count(Params())], tmp_path)
    assert [call[0] for call in sorted(media.calls)] == ["3", "4"]
    assert len(Manifest.read(tmp_path / "m" / "manifest.csv")) == 5
    with pytest.raises(StoreError, match="lacks the last 2 clips of manifest 'm'; `featcache extract` with that"):
        FeatureStore.open(tmp_path / "m" / "motion.zarr").check_rows(clips(5))
    outcome = extract(clips(5), [Count(Params()), Motion(Params())], tmp_path)
    whole = extract(clips(5), [Count(Params()), Motion(Params())], tmp_path / "whole")
    for name in ("count", "motion"):
        assert content(outcome.stores[name].path) == content(whole.stores[name].path)


def test_an_append_that_was_killed_is_finished_by_the_same_command(tmp_path, media, monkeypatch):
    extract(clips(2), [Count(Params())], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(store_writer, "finish_extension", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extract(clips(3), [Count(Params())], tmp_path)
    patch = tmp_path / "m" / "count.zarr" / "extension"
    patch.mkdir(exist_ok=True)  # as a kill leaves it
    assert extract(clips(3), [Count(Params())], tmp_path).unusable() == []


def test_a_finished_store_stays_until_its_successor_is_finished(tmp_path, media):
    """The last clip does not fit into float16, and the extraction is killed while the store is made again."""
    narrow = extract(clips(4), [Count(Params(2e4))], tmp_path).stores["count"]
    before, features = content(narrow.path), narrow.features

    class Killed(Count):
        left = 7  # five of the first pass, two of the second

        def __call__(self, windows):
            Killed.left -= 1
            if Killed.left < 0:
                raise KeyboardInterrupt
            return super().__call__(windows)

    with pytest.raises(KeyboardInterrupt):
        extract(clips(9), [Killed(Params(2e4))], tmp_path)
    aside = tmp_path / "m" / ".count.zarr.aside"
    assert np.array_equal(FeatureStore.open(aside).features[:4], features)
    assert before.keys() <= content(aside).keys()
    outcome = extract(clips(9), [Count(Params(2e4))], tmp_path)
    assert outcome.stores["count"].layout.dtype == "float32"
    assert outcome.unusable() == []
    assert not aside.exists()


def test_another_extractors_broken_store_is_not_in_the_way(tmp_path, media):
    extract(clips(2), [Motion(Params())], tmp_path)
    (tmp_path / "m" / "motion.zarr" / "zarr.json").write_text("{")
    assert extract(clips(2), [Count(Params())], tmp_path).unusable() == []


def test_two_extractions_share_the_blocks(tmp_path, media, monkeypatch):
    """While one is at a block, another one takes the next; what is left to others is said."""
    monkeypatch.setattr(_format.Layout, "block_rows", 4)
    monkeypatch.setattr(_format.Layout, "chunk_rows", 2)
    others = []

    class Meanwhile(Count):
        """Starts the second extraction when its own first row is asked for."""

        def __call__(self, windows):
            if not others:
                others.append(None)
                others[0] = extract(clips(9), [Count(Params())], tmp_path, workers=1)
            return super().__call__(windows)

    outcome = extract(clips(9), [Meanwhile(Params())], tmp_path, workers=1)
    assert sorted(call[0] for call in media.calls) == [str(i) for i in range(9)]  # nobody decoded a clip twice
    assert others[0].clips == 5
    assert others[0].unusable() == ["count"]  # unfinished as yet
    (note,) = others[0].notes
    assert note.startswith("4 clips of count ")
    assert note.endswith("run this again")
    assert outcome.clips == 4
    assert outcome.notes == []
    assert problems(outcome.stores["count"].path) == []


def test_nothing_is_left_for_a_second_extraction(tmp_path, media):
    outcomes = []

    class Meanwhile(Count):
        def __call__(self, windows):
            try:
                extract(clips(2), [Count(Params())], tmp_path)
            except StoreError as error:
                outcomes.append(str(error))
            return super().__call__(windows)

    assert extract(clips(2), [Meanwhile(Params())], tmp_path).unusable() == []
    assert "2 clips of count are being written by another process" in outcomes[0]
    assert outcomes[0].endswith("wait for it")


def test_an_extractor_that_stops_is_a_failure_of_that_clip(tmp_path, media):
    class Moody(Count):
        def __call__(self, windows):
            if windows[0, 0] == 1:
                raise RuntimeError("shapes cannot be multiplied")
            return super().__call__(windows)

    outcome = extract(clips(3), [Moody(Params())], tmp_path)
    assert outcome.reasons("count", "failed") == {"count stopped with RuntimeError: shapes cannot be multiplied": ["1"]}
    assert outcome.stores["count"].state.tolist() == [1, 2, 1]


def test_other_parameters_plans_and_clips_are_refused_before_any_work(tmp_path, media):
    extract(clips(2), [Count(Params())], tmp_path)
    media.calls.clear()
    with pytest.raises(StoreError, match=r"params.scale: 1.0 in the store, 2.0 requested"):
        extract(clips(2), [Count(Params(2.0))], tmp_path)
    with pytest.raises(StoreError, match="plan: 'segments:3' in the store, 'segments:4' requested"):
        recipe.extract(clips(2), [Count(Params())], tmp_path, plan=Plan("segments", 4))
    with pytest.raises(StoreError, match="removed: '1'"):
        extract(clips(1), [Motion(Params())], tmp_path)  # another extractor, but the folder's rows are fixed
    assert media.calls == []
    assert not (tmp_path / "m" / "motion.zarr").exists()


@pytest.mark.parametrize("second", ["another", "equal", "moved", "linked"])
def test_rows_of_other_files_of_the_same_names_are_not_taken(second, tmp_path, media):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0.mp4").write_bytes(b"a film")
    if second == "another":
        (tmp_path / "b" / "0.mp4").write_bytes(b"b film")
    one, other = (dataclasses.replace(clips(1), root=tmp_path / folder) for folder in "ab")
    extract(one, [Count(Params())], tmp_path / "stores")
    if second == "moved":
        (tmp_path / "a" / "0.mp4").unlink()
    elif second == "linked":
        (tmp_path / "b" / "0.mp4").unlink()
        (tmp_path / "b" / "0.mp4").symlink_to(tmp_path / "a" / "0.mp4")
    media.calls.clear()
    if second == "another":
        for extractors in ([Count(Params())], [Motion(Params())]):
            with pytest.raises(StoreError, match=r"a/0.mp4.*b/0.mp4.*--stores"):
                extract(other, extractors, tmp_path / "stores")
        assert Manifest.read(tmp_path / "stores" / "m" / "manifest.csv").clips[0].source.endswith("a/0.mp4")
    else:
        extract(other, [Count(Params())], tmp_path / "stores")
    assert media.calls == []


def test_the_summary_counts_what_is_not_done(tmp_path, media):
    media.broken.update({"1": MediaError("moov atom not found"), "2": MediaAbsentError("no sound")})
    assert extract(clips(4), [Count(Params())], tmp_path).summary().startswith("4 clips in")
    again = extract(clips(4), [Count(Params())], tmp_path).summary()
    assert re.search("^nothing to do: .*2 done, 1 failed, 1 absent.*--retry-failed", again)
    media.broken.clear()
    extract(clips(4), [Count(Params())], tmp_path, retry_failed=True)
    assert "failed" not in extract(clips(4), [Count(Params())], tmp_path).summary()


def interrupted(after):
    class Interrupted(Count):
        left = after

        def __call__(self, windows):
            Interrupted.left -= 1
            if Interrupted.left < 0:
                raise KeyboardInterrupt
            return super().__call__(windows)

    return Interrupted(Params())


@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_a_store_of_another_version_is_made_again_if_no_row_is_done(tmp_path, media, monkeypatch, done, whole):
    """Rows that an interrupted extraction left in a journal count as well."""
    media.broken.update({str(row): MediaError("this version cannot") for row in range(done, 3)})
    if whole:
        extract(clips(3), [Count(Params())], tmp_path)
    else:
        with pytest.raises(KeyboardInterrupt):
            extract(clips(4), [interrupted(done)], tmp_path)
    media.broken.clear()
    monkeypatch.setattr(recipe, "version", lambda name: "another")
    with pytest.raises(StoreError, match="decoders.av: .* 'another' requested"):
        extract(clips(4 - whole), [Count(Params())], tmp_path)
    if done:
        with pytest.raises(StoreError, match="decoders.av: .* 'another' requested"):
            extract(clips(4 - whole), [Count(Params())], tmp_path, retry_failed=True)
    else:
        outcome = extract(clips(4 - whole), [Count(Params())], tmp_path, retry_failed=True)
        assert outcome.unusable() == []
        assert outcome.stores["count"].recipe["decoders"]["av"] == "another"
        assert any("count" in note and "made again" in note for note in outcome.notes)
        assert [path.name for path in (tmp_path / "m").glob("*.zarr")] == ["count.zarr"]
        assert not list((tmp_path / "m").glob(".*.aside"))


def test_an_interrupted_extraction_goes_on(tmp_path, media):
    with pytest.raises(KeyboardInterrupt):
        extract(clips(9), [interrupted(5)], tmp_path)
    media.calls.clear()
    extract(clips(9), [Count(Params())], tmp_path)
    assert sorted(clip_id for clip_id, _ in media.calls) == ["5", "6", "7", "8"]
    assert problems(tmp_path / "m" / "count.zarr") == []


def test_parameters_from_the_command_line_are_typed():
    (hof,) = load_extractors(["hof"], ["hof.flow=tvl1"])
    assert hof.params.flow == "tvl1"
    with pytest.raises(ConfigError, match="no extractor 'hogg'"):
        load_extractors(["hogg"])
    with pytest.raises(ConfigError, match="named twice"):
        load_extractors(["hog", "hog"])
    with pytest.raises(ConfigError, match="write EXTRACTOR.NAME=VALUE"):
        load_extractors(["hog"], ["flow=dis"])
    with pytest.raises(ConfigError, match="flwo"):
        load_extractors(["hof"], ["hof.flwo=dis"])


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory):
    """Stores of real videos that were never interrupted."""
    stores = tmp_path_factory.mktemp("whole")
    extractors = load_extractors(["hog", "hof", "logmel"])
    recipe.extract(Manifest.read(videos / "kitchens.csv"), extractors, stores, plan=Plan())
    return stores / "kitchens"


EXTRACT = [sys.executable, "-m", "pipelines.cli", "extract", "--stores"]


def content(stores):
    return {str(path.relative_to(stores)): path.read_bytes() for path in sorted(stores.rglob("*")) if path.is_file()}


def journalled(stores):
    """Bytes of rows that are kept but not committed."""
    total = 0
    for path in stores.glob("kitchens/*.zarr/journal/*.shard"):
        with contextlib.suppress(FileNotFoundError):  # committed in this very moment
            total += path.stat().st_size
    return total


@pytest.mark.parametrize(
    ("hits", "within", "names"),
    [(1, 0.02, ["hog", "logmel"]), pytest.param(20, 0.2, ["hog", "hof", "logmel"], marks=pytest.mark.slow)],
)
def test_killed_at_random_moments_the_store_ends_with_the_same_bytes(videos, whole, tmp_path, hits, within, names):
    """Killed while clips are decoded, computed and kept, until so many kills have hit a store in the making."""
    random, amid, kill = np.random.default_rng(0), 0, 0
    while amid < hits:
        assert kill < 2 * hits
        stores = tmp_path / str(kill // 4)  # every store is killed four times, at its beginning and in resumptions
        command = [*EXTRACT, str(stores), str(videos / "kitchens.csv"), *names]
        before = journalled(stores)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and journalled(stores) == before:  # until its first row is kept
            time.sleep(0.01)
        time.sleep(random.uniform(0, within))
        process.send_signal(signal.SIGKILL)
        process.wait()
        amid += before < journalled(stores)
        kill += 1
    for stores in tmp_path.iterdir():
        main(["extract", "--stores", str(stores), str(videos / "kitchens.csv"), *names], standalone_mode=False)
        for name in names:
            assert content(stores / "kitchens" / f"{name}.zarr") == content(whole / f"{name}.zarr")
            assert problems(stores / "kitchens" / f"{name}.zarr") == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"), [("SIGINT to all", 130), pytest.param("SIGTERM", 143, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_and_the_same_command_goes_on(videos, whole, tmp_path, how, code):
    process = command("extract", "--stores", tmp_path, videos / "kitchens.csv", "hog", "logmel")
    assert wait_for(lambda: journalled(tmp_path))
    returncode, seconds, stderr = stopped(process, how)
    assert (returncode, "Traceback" in stderr) == (code, False)
    assert re.search(r"Stopped by \S+ after \d of 8 clips; finished work is kept, .*same command", stderr)
    assert seconds < 10  # on a busy machine; 0.2 s on an idle one
    extractors = load_extractors(["hog", "logmel"])
    recipe.extract(Manifest.read(videos / "kitchens.csv"), extractors, tmp_path, plan=Plan())
    for name in ("hog", "logmel"):
        assert content(tmp_path / "kitchens" / f"{name}.zarr") == content(whole / f"{name}.zarr")


@pytest.mark.slow
def test_the_stores_do_not_depend_on_threads(videos, whole, tmp_path):
    manifest = Manifest.read(videos / "kitchens.csv")
    recipe.extract(manifest, load_extractors(["hog", "hof", "logmel"]), tmp_path, plan=Plan(), workers=5)
    for name in ("hog", "hof", "logmel"):
        assert content(tmp_path / "kitchens" / f"{name}.zarr") == content(whole / f"{name}.zarr")


def test_rows_of_real_clips_are_plausible(whole):
    for name in ("hog", "hof", "logmel"):
        store = FeatureStore.open(whole / f"{name}.zarr")
        features = store.features.astype(np.float32)
        assert np.isfinite(features).all()
        assert (features.std(0) > 0).mean() > 0.9  # clips differ in nearly every value
        assert (np.diff(store.window_start, axis=1) >= 0).all()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder(tmp_path, media):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        extract(clips(1), [Count(Params())], tmp_path / "closed")
