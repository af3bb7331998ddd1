"""Parts by jobs without a connection to each other, and the whole stores that are made of them."""

import errno
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
from featcache import Clip, Manifest
from featcache.errors import ArgumentsError, StoreError
from featcache.store import StoreWriter, _lease, copying
from featcache.store.provenance import Record
from pipelines.cli import main
from pipelines.extraction.shards import Shard
from tests.conftest import ROOT
from tests.helpers.folders import content
from tests.helpers.media import write_sound
from tests.helpers.stores import small_blocks

N, OF = 23, 4
KILLED = 9


@pytest.fixture(autouse=True)
def blocks():
    """Blocks of 4 rows, so that parts and whole stores have several."""
    with small_blocks():
        yield


def sources(folder, numbers=range(N), broken=(), values=None):
    """The manifest `m` of clips with a file each; a broken one has no file."""
    folder.mkdir(exist_ok=True)
    for i in numbers:
        if i not in broken and not (folder / f"{i}.npy").exists():
            np.save(folder / f"{i}.npy", (values or {}).get(i, 1.0) * np.arange(i, i + 3.0))
    return Manifest("m", tuple(Clip(f"c{i}", "d", "train", f"{i}.npy") for i in numbers), folder)


def extract(manifest, stores, shards=None, **options):
    return featcache.extract(manifest, "vector", stores, workers=1, shards=shards, **options)


def extract_all(manifest, stores, order=None, of=OF, **options):
    return [extract(manifest, stores, f"{i}/{of}", **options) for i in order or range(of)]


def merge(manifest, stores, **options):
    return featcache.merge(manifest, "vector", stores, **options).stores["vector"]


def part(stores, number, of=OF):
    return stores / "m" / ".shards" / f"{number}-of-{of}" / "vector.zarr"


def whole(manifest, stores, **options):
    """What one process writes."""
    extract(manifest, stores, **options)
    return content(stores / "m")


def dies(action):
    """Run an action in a process that ends in the middle of it, without any cleaning up, as by SIGKILL."""
    pid = os.fork()
    if not pid:
        try:
            action()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == KILLED


def dying(after):
    """A progress that ends the process once so many clips are done."""
    return lambda done, total: os._exit(KILLED) if done >= after else None


# ------------------------------------------------------------------------------------------------------ the same bytes


def test_parts_in_any_order_one_of_them_killed_make_the_store_of_one_process(tmp_path):
    manifest = sources(tmp_path / "media", broken=(3, 17))
    expected = whole(manifest, tmp_path / "one")
    manifest.write(tmp_path / "media" / "m.csv")
    code = (
        "import os, featcache\n"
        "from featcache.store import _format\n"
        "_format.Layout.block_rows, _format.Layout.chunk_rows = 4, 1\n"
        f"kill = lambda done, total: done >= 2 and os.kill(os.getpid(), {KILLED})\n"
        f"featcache.extract({str(tmp_path / 'media' / 'm.csv')!r}, 'vector', {str(tmp_path / 'parts')!r}, "
        "workers=1, shards='3/4', progress=kill)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -KILLED
    extract_all(manifest, tmp_path / "parts", (2, 0, 1))
    clips = sum(crc32(f"c{i}".encode()) % OF == 3 for i in range(N))
    with pytest.raises(
        StoreError, match=rf"vector: part 3/4 is unfinished.* {clips - 2} of {clips} of 3/4; .*--shards 3/4"
    ):
        merge(manifest, tmp_path / "parts")
    assert "vector.zarr" not in os.listdir(tmp_path / "parts" / "m")
    extract(manifest, tmp_path / "parts", "3/4")
    store = merge(manifest, tmp_path / "parts")
    assert content(tmp_path / "parts" / "m") == expected
    assert store.counts() == {"not tried": 0, "done": N - 2, "failed": 2, "absent": 0}
    assert all(f"{row}.npy" in reason for row, reason in store.failures.items())


def test_reasons_notes_and_lengths_travel(tmp_path):
    """Rows of every state, with fewer windows than there is room for, without times, and with a note."""
    manifest = Manifest("m", tuple(Clip(f"c{i}", "d", "train", f"{i}.npy") for i in range(N)))
    recipe = {"extractor": "vector", "modality": "rgb", "weights_sha256": "none", "dtype": "float16"}

    def fill(path, clips):
        with StoreWriter.open(path, clips, recipe, row_shape=(2,), windows=3, facts={}) as writer:
            for row, clip in enumerate(clips):
                i = int(clip.clip_id[1:])
                if i % 5 == 0:
                    writer.failed(row, f"{i} is broken")
                elif i % 5 == 1:
                    writer.absent(row, f"{i} has none")
                else:
                    t = 1 + i % 3
                    times = np.full(t, np.nan) if i % 2 else np.arange(t) + 0.5
                    writer.done(
                        row, np.full((t, 2), i, np.float32), times, times + 1, "the second of two" * (i % 7 == 0)
                    )

    fill(tmp_path / "one" / "m" / "vector.zarr", manifest)
    manifest.write(tmp_path / "one" / "m" / "manifest.csv")
    for i in range(OF):
        fill(part(tmp_path / "parts", i), Shard(i, OF).clips(manifest))
    merge(manifest, tmp_path / "parts")
    merged = content(tmp_path / "parts" / "m")
    assert not any(merged.pop(".vector.zarr.files").values())  # `fill` records no files
    assert merged == content(tmp_path / "one" / "m")


@pytest.mark.parametrize(
    "moments",
    [(1, N // 2, N), pytest.param(range(N + 1), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_a_merge_that_is_killed_at_any_row_is_continued(tmp_path, monkeypatch, moments):
    manifest = sources(tmp_path / "media", broken=(5,))
    expected = whole(manifest, tmp_path / "one")
    extract_all(manifest, tmp_path / "parts")
    monkeypatch.setattr(copying, "PIECE", 1)  # the progress of each row
    for after in moments:
        shutil.rmtree(tmp_path / "parts" / "m" / "vector.zarr", ignore_errors=True)
        assert dies(lambda after=after: merge(manifest, tmp_path / "parts", progress=dying(after)))
        merge(manifest, tmp_path / "parts")
        assert content(tmp_path / "parts" / "m") == expected


@pytest.mark.slow
def test_a_merge_of_appended_and_mended_clips_that_is_killed_at_any_row_is_continued(tmp_path, monkeypatch):
    """Blocks that were committed before are written again."""
    manifest, longer = (
        sources(tmp_path / "media", broken=(5, 14)),
        sources(tmp_path / "media", range(N + 9), broken=(14,)),
    )
    (tmp_path / "media" / "5.npy").rename(tmp_path / "5.npy")
    extract_all(manifest, tmp_path / "parts")
    merge(manifest, tmp_path / "parts")
    shutil.copytree(tmp_path / "parts" / "m" / "vector.zarr", tmp_path / "before")
    (tmp_path / "5.npy").rename(tmp_path / "media" / "5.npy")
    extract_all(longer, tmp_path / "parts", retry_failed=True)
    expected = whole(longer, tmp_path / "one")
    monkeypatch.setattr(copying, "PIECE", 1)
    store = tmp_path / "parts" / "m" / "vector.zarr"
    for after in range(11):
        shutil.rmtree(store)
        shutil.copytree(tmp_path / "before", store)
        assert dies(lambda after=after: merge(longer, tmp_path / "parts", progress=dying(N - 1 + after)))
        merge(longer, tmp_path / "parts")
        assert content(tmp_path / "parts" / "m") == expected


def test_clips_of_several_stores_are_counted_once(tmp_path):
    manifest = sources(tmp_path / "media")
    for i in range(OF):
        extract(manifest, tmp_path / "parts", f"{i}/{OF}")
        shutil.copytree(part(tmp_path / "parts", i), part(tmp_path / "parts", i).with_name("other.zarr"))
    outcome = featcache.merge(manifest, (), tmp_path / "parts")
    assert outcome.stores.keys() == {"vector", "other"}
    assert outcome.clips == N


def test_a_repeated_merge_writes_nothing(tmp_path):
    manifest = sources(tmp_path / "media", broken=(5,))
    extract_all(manifest, tmp_path / "parts")
    merge(manifest, tmp_path / "parts")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts" / "m" / "vector.zarr").rglob("*") if p.is_file()}
    assert featcache.merge(manifest, (), tmp_path / "parts").clips == 0
    assert times == {p: p.stat().st_mtime_ns for p in times}


def test_clips_that_are_appended_are_extracted_alone(tmp_path):
    """Each clip stays in its shard, so no row is computed twice, with parts and without."""
    manifest, longer = sources(tmp_path / "media", range(N)), sources(tmp_path / "media", range(N + 9))
    extract_all(manifest, tmp_path / "parts")
    merge(manifest, tmp_path / "parts")
    shutil.copytree(tmp_path / "parts", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "m" / ".shards")
    whole(manifest, tmp_path / "one")
    expected = whole(longer, tmp_path / "one")
    with pytest.raises(StoreError, match=r"vector: parts .*without clips.*appended.*--shards 0/4, 1/4"):
        merge(longer, tmp_path / "parts")
    for stores in (tmp_path / "parts", tmp_path / "moved"):
        assert sum(outcome.clips for outcome in extract_all(longer, stores)) == 9
        assert featcache.merge(longer, "vector", stores).clips == 9
        assert content(stores / "m") == expected


def test_failed_clips_are_tried_again_in_their_part(tmp_path):
    manifest = sources(tmp_path / "media", broken=(3, 17))
    extract_all(manifest, tmp_path / "parts")
    merge(manifest, tmp_path / "parts")
    sources(tmp_path / "media", broken=(17,))
    assert sum(outcome.clips for outcome in extract_all(manifest, tmp_path / "parts", retry_failed=True)) == 2
    assert featcache.merge(manifest, "vector", tmp_path / "parts").clips == 1
    assert content(tmp_path / "parts" / "m") == whole(manifest, tmp_path / "one")


def recorded(path):
    """Row -> state and digest of its file, as the record of a store has them."""
    return {row: state for row, state in Record(path).files().items() if state}


def test_parts_of_replaced_files_are_made_and_merged_again(tmp_path):
    """The rows of replaced files alone; no row of the whole store is then of a file that is gone."""
    manifest, stores = sources(tmp_path / "media", broken=(3,)), tmp_path / "parts"
    extract_all(manifest, stores)
    merge(manifest, stores)
    replaced = {5: 7.0, 14: 8.0}
    for i in replaced:
        (tmp_path / "media" / f"{i}.npy").unlink()
    sources(tmp_path / "media", broken=(3,), values=replaced)
    notes = [note for outcome in extract_all(manifest, stores) for note in outcome.notes if "--renew" in note]
    assert sorted(re.findall(r"'(c\d+)'", " ".join(notes))) == ["c14", "c5"]
    outcome = featcache.merge(manifest, "vector", stores)
    assert outcome.clips == 0  # the parts have the old features, too
    (note,) = [note for note in outcome.notes if "replaced" in note]
    assert re.findall(r"'(c\d+)'", note) == ["c5", "c14"], outcome.notes
    assert re.search("--renew .*--shards .*merge", note)
    assert sum(outcome.clips for outcome in extract_all(manifest, stores, renew=True)) == 2
    outcome = featcache.merge(manifest, "vector", stores)
    assert outcome.clips == 2
    assert not [note for note in outcome.notes if "replaced" in note]
    assert content(stores / "m") == whole(manifest, tmp_path / "one")
    assert extract(manifest, stores).notes == []
    assert featcache.merge(manifest, "vector", stores).clips == 0


def test_one_part_of_two_is_made_again(tmp_path):
    """The other replaced file is named until its part is made again, too, also after a merge."""
    manifest, stores = sources(tmp_path / "media"), tmp_path / "parts"
    extract_all(manifest, stores)
    merge(manifest, stores)
    shard = Shard(crc32(b"c0") % OF, OF)
    one, other = 0, next(i for i in range(N) if not shard.has(f"c{i}"))
    for i in (one, other):
        (tmp_path / "media" / f"{i}.npy").unlink()
    sources(tmp_path / "media", values={one: 7.0, other: 8.0})
    extract(manifest, stores, str(shard), renew=True)
    assert featcache.merge(manifest, "vector", stores).clips == 1
    (note,) = extract(manifest, stores).notes
    assert re.findall(r"'(c\d+)'", note) == [f"c{other}"]
    extract_all(manifest, stores, renew=True)
    merge(manifest, stores)
    assert content(stores / "m") == whole(manifest, tmp_path / "one")


@pytest.mark.parametrize("without", [False, True])
def test_the_record_of_files_goes_with_the_rows(tmp_path, without):
    """From the whole store into a part that takes its rows over, and from the parts into the whole store.

    A store of earlier versions is without a record; what is found out about its rows is recorded in the part. No job
    of a part writes anything of the whole store, because others may do so at the same time.
    """
    manifest, stores = sources(tmp_path / "media"), tmp_path / "parts"
    time.sleep(0.05)
    extract(manifest, stores)
    made = recorded(stores / "m" / "vector.zarr")
    assert len(made) == N
    if without:
        (stores / "m" / ".vector.zarr.files").unlink()
        made = {row: state.rpartition(" ")[0] for row, state in made.items() if row != 4}
    before = {name: value for name, value in content(stores / "m").items() if ".shards" not in str(name)}
    (tmp_path / "media" / "4.npy").unlink()
    sources(tmp_path / "media", values={4: 7.0})
    outcomes = extract_all(manifest, stores)
    assert sum(outcome.clips for outcome in outcomes) == 0
    assert [note for outcome in outcomes for note in outcome.notes if "'c4'" in note]
    assert {name: value for name, value in content(stores / "m").items() if ".shards" not in str(name)} == before
    for i in range(OF):
        ids = [row for row in range(N) if Shard(i, OF).has(f"c{row}")]
        assert recorded(part(stores, i)) == {k: made[row] for k, row in enumerate(ids) if row in made}
    shutil.rmtree(stores / "m" / "vector.zarr")
    (stores / "m" / ".vector.zarr.files").unlink(missing_ok=True)
    merge(manifest, stores)
    assert recorded(stores / "m" / "vector.zarr") == made
    assert "'c4'" in " ".join(extract(manifest, stores).notes)


def test_a_value_beyond_float16_in_one_part_makes_all_of_them_float32(tmp_path):
    manifest = sources(tmp_path / "media", values={11: 1e6})
    wide = int(crc32(b"c11") % OF)
    order = sorted(range(OF), key=lambda i: i == wide)
    extract_all(manifest, tmp_path / "parts", order)
    halves = [i for i in range(OF) if i != wide]
    with pytest.raises(StoreError, match=rf"3 of 4 parts.*float16.*{wide}/4 needs float32.*{halves[0]}/4, {halves[1]}"):
        merge(manifest, tmp_path / "parts")
    again = extract_all(manifest, tmp_path / "parts", order)
    assert [outcome.clips == 0 for outcome in again] == [i == wide for i in order]
    merge(manifest, tmp_path / "parts")
    assert content(tmp_path / "parts" / "m") == whole(manifest, tmp_path / "one")


def test_an_appended_value_beyond_float16_makes_the_merged_store_float32(tmp_path):
    manifest = sources(tmp_path / "media")
    longer = sources(tmp_path / "media", range(N + 1), values={N: 1e6})
    extract_all(manifest, tmp_path / "parts")
    assert merge(manifest, tmp_path / "parts").layout.dtype == "float16"
    for _ in range(2):
        extract_all(longer, tmp_path / "parts")
    merge(longer, tmp_path / "parts")
    assert content(tmp_path / "parts" / "m") == whole(longer, tmp_path / "one")
    assert not [*(tmp_path / "parts" / "m").glob(".*aside*")]


def test_parts_of_shorter_clips_have_room_for_fewer_windows(tmp_path):
    """The whole store has that of the longest clip, and a part whose new clip needs more of it gets as much."""

    def sounds(seconds):
        (tmp_path / "media").mkdir(exist_ok=True)
        for i, length in enumerate(seconds):
            if not (tmp_path / "media" / f"{i}.wav").exists():
                write_sound(tmp_path / "media" / f"{i}.wav", np.sin(np.arange(int(8000 * length)) * (i + 1) / 9), 8000)
        clips = tuple(Clip(f"c{i}", "d", "train", f"{i}.wav") for i in range(len(seconds)))
        return Manifest("m", clips, tmp_path / "media")

    def run(manifest, stores, shards=None):
        return featcache.extract(manifest, "logmel", stores, windows="all:0.4", workers=1, shards=shards)

    shard_of = [crc32(f"c{i}".encode()) % 2 for i in range(6)]
    long = 1 - shard_of[5]  # the shard of the longest clip of the first manifest: the other one than that of c5
    first = [1.7 if shard == long and i == shard_of.index(long) else 0.5 for i, shard in enumerate(shard_of[:5])]
    for seconds in (first, [*first, 1.3]):
        manifest = sounds(seconds)
        run(manifest, tmp_path / "one")
        for i in range(2):
            run(manifest, tmp_path / "parts", f"{i}/2")
        store = featcache.merge(manifest, (), tmp_path / "parts").stores["logmel"]
        assert store.windows == 4
        assert content(tmp_path / "parts" / "m") == content(tmp_path / "one" / "m")


def test_a_shard_without_clips_needs_no_part(tmp_path):
    manifest = sources(tmp_path / "media", range(3))
    of = 16
    full = {crc32(f"c{i}".encode()) % of for i in range(3)}
    outcomes = extract_all(manifest, tmp_path / "parts", of=of)
    assert {i for i, outcome in enumerate(outcomes) if outcome.stores} == full
    assert all("has none of the clips" in outcome.notes[0] for outcome in outcomes if not outcome.stores)
    assert {outcome.summary() for outcome in outcomes if not outcome.stores} == {"nothing to do"}
    merge(manifest, tmp_path / "parts")
    assert content(tmp_path / "parts" / "m") == whole(manifest, tmp_path / "one")


# ------------------------------------------------------------------------------------------------ parts that do not fit


@pytest.mark.parametrize(
    "text", ["", "4/4", "0/0", "1", "-1/4", "a/b", "1/4/2", "1/", "0/999999", "١/4", " 1/4", "5/4"]
)
def test_shards_are_counted_from_zero(tmp_path, text):
    with pytest.raises(ArgumentsError, match=f"--shards {re.escape(text)}[: ]"):
        extract(sources(tmp_path / "media"), tmp_path / "s", text)
    assert not (tmp_path / "s").exists()


def test_one_more_than_the_last_shard_names_the_numbers_of_slurm():
    with pytest.raises(ArgumentsError, match=r"counted from 0.*0/4 to 3/4.*--array=0-3`"):
        Shard.parse("4/4")
    assert [Shard.parse(f"{i}/4") for i in range(4)] == [(i, 4) for i in range(4)]


def _without(stores, manifest):
    shutil.rmtree(part(stores, 2).parent)


def _doubled(stores, manifest):
    extract(manifest, stores, "1/8")


def _recipe(stores, manifest):
    shutil.rmtree(part(stores, 2))
    extract(manifest, stores, "2/4", set="vector.reduce=mean")


def _other_clips(stores, manifest):
    shutil.rmtree(part(stores, 2).parent)
    extract(replace(manifest, clips=tuple(replace(clip, stop=2.0, fps=1.0) for clip in manifest)), stores, "2/4")


def _copied(stores, manifest):
    shutil.rmtree(part(stores, 2).parent)
    shutil.copytree(part(stores, 1).parent, part(stores, 2).parent)


def _renamed(stores, manifest):
    for a, b in ((2, 9), (1, 2), (9, 1)):
        os.rename(part(stores, a).parent, part(stores, b).parent)


def _damaged(stores, manifest):
    shard = next((part(stores, 2) / "features" / "c" / "0").rglob("0"))
    data = bytearray(next(p for p in [shard, *shard.rglob("*")] if p.is_file()).read_bytes())
    data[0] ^= 1
    next(p for p in [shard, *shard.rglob("*")] if p.is_file()).write_bytes(data)


def _damaged_times(stores, manifest):
    path = part(stores, 2) / "window_start" / "c" / "0" / "0"
    path.write_bytes(b"\1" + path.read_bytes()[1:])


def _unreadable(stores, manifest):
    (part(stores, 2) / "zarr.json").write_text("{}")


def _repaired(stores, manifest):
    _damaged(stores, manifest)
    featcache.repair(part(stores, 2))


def _moved_media(stores, manifest):
    other = sources(manifest.root.parent / "others", values=dict.fromkeys(range(N), 2.0))
    shutil.rmtree(part(stores, 2).parent)
    extract(other, stores, "2/4")


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without, r"lacks 1 of 4 parts of vector; .*--shards 2/4$"),
        (_doubled, r"parts of vector of 4 and of 8 shards; remove"),
        (_recipe, r"parts 1/4 and 2/4 of vector .*different recipes.*reduce.*'none' and 'mean'.*--shards 1/4 or 2/4"),
        (_other_clips, r"2-of-4.*other clips"),
        (_copied, r"clip 'c\d+' of vector is in two parts, 1/4 and 2/4, and belongs to 1/4; remove .*2-of-4"),
        (_renamed, r"clip 'c\d+' of vector is in part 1/4, and belongs to 2/4; rename .*1-of-4"),
        (_damaged, r"2-of-4.*features.*damaged.*featcache repair"),
        (_damaged_times, r"2-of-4.*window_start.*damaged.*featcache repair"),
        (_unreadable, r"2-of-4.*zarr.json"),
        (_repaired, r"vector: part 2/4 is unfinished, .* 4 of \d of 2/4; .*--shards 2/4"),
        (_moved_media, r"2-of-4.*others.*another file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_parts_that_do_not_fit_are_one_sentence_and_nothing_is_written(tmp_path, spoil, named):
    manifest, stores = sources(tmp_path / "media"), tmp_path / "parts"
    extract_all(manifest, stores)
    spoil(stores, manifest)
    with pytest.raises(StoreError, match=named) as caught:
        merge(manifest, stores)
    assert os.listdir(stores / "m") == [".shards"], caught.value


def test_a_part_that_is_being_written_is_waited_for(tmp_path):
    manifest, stores = sources(tmp_path / "media"), tmp_path / "parts"
    extract_all(manifest, stores)
    lock = _lease.lock(part(stores, 2), alone=False)
    with pytest.raises(StoreError, match="vector: part 2/4 is being written"):
        merge(manifest, stores)
    _lease.free(lock)
    merge(manifest, stores)


def test_without_any_part(tmp_path):
    manifest = sources(tmp_path / "media")
    for names in ((), "vector"):
        with pytest.raises(StoreError, match=r"no parts.*"):
            featcache.merge(manifest, names, tmp_path / "s")
    extract_all(manifest, tmp_path / "s")
    with pytest.raises(StoreError, match="no parts of hog; there are parts of: vector"):
        featcache.merge(manifest, "hog", tmp_path / "s")


def test_other_libraries_of_a_part_are_noted(tmp_path, monkeypatch):
    manifest = sources(tmp_path / "media")
    extract_all(manifest, tmp_path / "s", range(3))
    from pipelines.extraction import extract as recipe

    monkeypatch.setattr(recipe, "__version__", "9.9")
    extract(manifest, tmp_path / "s", "3/4")
    outcome = featcache.merge(manifest, (), tmp_path / "s")
    assert any(re.search(r"differ in featcache: .*'9.9'.*0-of-4", note) for note in outcome.notes)
    assert outcome.stores["vector"].facts["featcache"] == featcache.__version__


def test_a_part_by_another_recipe_than_the_stores_is_refused_before_any_work(tmp_path):
    manifest = sources(tmp_path / "media")
    extract(manifest, tmp_path / "s")
    with pytest.raises(StoreError, match="another recipe"):
        extract(manifest, tmp_path / "s", "0/4", set="vector.reduce=mean")
    with pytest.raises(StoreError, match="other clips"):
        extract(replace(manifest, clips=manifest.clips[1:]), tmp_path / "s", "0/4")
    assert not (tmp_path / "s" / "m" / ".shards").exists()


# ---------------------------------------------------------------------------------------------------- lines of the docs


SBATCH = """
for last; do :; done
case "$*" in *--wrap*) sh -c "${last#--wrap=}"; exit;; esac
ids=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)$/\\1/p' "$last")
for id in $(seq 0 "$ids"); do SLURM_ARRAY_TASK_ID=$id sh "$last"; done
echo 4711
"""


def test_the_lines_of_slurm_work(tmp_path, monkeypatch):
    """A shell runs the script and the commands of docs/scaling.md, with stand-ins of `sbatch` and `featcache`."""
    text = (ROOT / "docs" / "scaling.md").read_text()
    script, commands = re.findall(r"```sh\n(.*?)```", text[text.index("## Slurm") :], re.DOTALL)[:2]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "extract.sh").write_text(script)
    tools = {"sbatch": SBATCH, "featcache": f'echo "$@" >> {tmp_path / "calls"}\n'}
    for name, lines in tools.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{lines}")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-e", "-c", commands], env=environment, check=True)
    *extracts, merged = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [words[-1] for words in extracts] == [f"{i}/16" for i in range(16)]
    sources(tmp_path / "videos").write(tmp_path / "videos" / "videos.csv")
    ours = {"i3d-rgb": "vector", "cuda": "cpu"}
    for words in (*extracts, merged):
        result = CliRunner().invoke(main, [ours.get(word, word) for word in words])
        assert result.exit_code == 0, result.output
    extract(Manifest.read("videos/videos.csv"), tmp_path / "one")
    assert content(tmp_path / "stores" / "videos") == content(tmp_path / "one" / "videos")


# --------------------------------------------------------------------------------------------------------- file systems


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    """The command names the way out, and takes it."""

    def flock(file, kind):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)
    manifest = sources(tmp_path / "media")
    manifest.write(tmp_path / "media" / "m.csv")
    extracts = [["extract", f"{tmp_path}/media/m.csv", "vector", "--shards", f"{i}/2"] for i in range(2)]
    for words in (*extracts, ["merge", f"{tmp_path}/media/m.csv"]):
        words += ["--stores", f"{tmp_path}/parts"]
        monkeypatch.setenv("FEATCACHE_NO_LOCKS", "false")
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code == 1
        assert re.search("no locks.*--no-locks", refused.output), refused.output
        done = CliRunner().invoke(main, [*words, "--no-locks"])
        assert done.exit_code == 0, done.output
    monkeypatch.undo()
    assert content(tmp_path / "parts" / "m") == whole(manifest, tmp_path / "one")
