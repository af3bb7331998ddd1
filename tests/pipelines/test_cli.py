"""The commands as a user types them: bad input gives one clear sentence and exit code 1 or 2, and loses nothing."""

import errno
import io
import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings

import click
import numpy as np
import pytest
from click.testing import CliRunner

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError
from pipelines.cli import _shared, main
from pipelines.cli import extract as cli_extract
from pipelines.config import Feed, Preparation
from pipelines.data import ahead
from pipelines.data.ahead import check_ahead
from pipelines.data.opening import open_run
from tests.conftest import ROOT
from tests.helpers.media import write_sound
from tests.helpers.stores import manifest, write_all
from tests.helpers.stores import run as toy_run
from tests.helpers.weights import HEAD


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def commands(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


@pytest.fixture
def clip_folder(videos, tmp_path):
    """A folder with two good videos and a manifest of them, to which tests add."""
    manifest = Manifest.read(videos / "kitchens.csv")
    rows = []
    for number, clip in enumerate(manifest.clips[:2]):
        os.link(manifest.path(clip), tmp_path / f"{number}.mp4")
        rows.append(f"{number},home,train,{number}.mp4")
    (tmp_path / "m.csv").write_text("\n".join(["clip_id,domain,split,source", *rows]) + "\n")
    return tmp_path


def add(folder, source, content=None, **columns):
    """One more clip, `bad`, in the manifest; returns the manifest's path."""
    if content is not None:
        (folder / source).write_bytes(content)
    lines = (folder / "m.csv").read_text().splitlines()
    lines = [",".join([lines[0], *columns]), *(line + "," * len(columns) for line in lines[1:])]
    lines.append(",".join(["bad", "home", "train", source, *map(str, columns.values())]))
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_every_command_has_help_that_ends_with_an_example(path, command):
    result = run(*path, "--help")
    assert result.exit_code == 0
    text = command.help.strip()
    assert "Example" in text
    assert text.splitlines()[-1].strip().startswith("featcache")
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.name not in ("help", "dtype", "format"):
            assert parameter.help, f"{path}: option {parameter.name} has no help"


def broken(name, good):
    return {
        "truncated": (good[: len(good) // 3], {}, "bad.mp4"),
        "zero bytes": (b"", {}, "bad.mp4"),
        "text": (b"these are not the frames you are looking for\n" * 50, {}, "bad.mp4"),
        "missing": (None, {}, "bad.mp4"),
        "start after the end": (good, {"start_seconds": 90, "stop_seconds": 95}, "bad.mp4"),
        "starts after the last frame": (good, {"start_frame": 9000, "stop_frame": 9010}, "bad.mp4"),
    }[name]


BAD = ["truncated", "zero bytes", "text", "missing", "start after the end", "starts after the last frame"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("truncated", "missing") else pytest.mark.slow) for name in BAD]
)
def test_a_broken_clip_is_named_and_the_rest_is_finished(clip_folder, name):
    content, columns, source = broken(name, (clip_folder / "0.mp4").read_bytes())
    manifest = add(clip_folder, source, content, **columns)
    result = run("extract", manifest, "hog", "logmel", "--stores", clip_folder / "stores")
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    for extractor in ("hog", "logmel"):
        (line,) = [line for line in result.stderr.splitlines() if line.startswith(f"{extractor}: failed: bad: ")]
        assert "bad.mp4" in line
        store = FeatureStore.open(clip_folder / "stores" / "m" / f"{extractor}.zarr")
        assert store.state.tolist() == [1, 1, 2]
    checked = run("check", manifest, clip_folder / "stores" / "m" / "hog.zarr")
    assert checked.exit_code == 1
    assert len([line for line in checked.stdout.splitlines() if "bad" in line]) == 2


def test_clips_that_fail_for_one_reason_are_one_line_and_of_many_reasons_some_are_told(clip_folder, monkeypatch):
    def failures(*clips):
        with (clip_folder / "m.csv").open("a") as file:
            file.writelines(f"{clip},home,train,{source}\n" for clip, source in clips)
        notes = run("extract", clip_folder / "m.csv", "hog", "--stores", clip_folder / "stores").stderr
        return [line for line in notes.splitlines() if "failed" in line]

    (clip_folder / "bad.mp4").write_bytes(b"no video")
    (line,) = failures(("a", "bad.mp4"), ("b", "bad.mp4"), ("c", "bad.mp4"))
    assert line.startswith("hog: failed: a and 2 more: ")
    assert "bad.mp4" in line
    monkeypatch.setattr(cli_extract, "REASONS", 1)
    first, rest = failures(("d", "gone.mp4"))
    assert first == line
    store = clip_folder / "stores" / "m" / "hog.zarr"
    assert rest == f"hog: failed: 4 clips in all; `featcache info {store} --failures 4`"


def test_a_sound_file_has_no_pictures_and_that_is_no_failure(clip_folder):
    import wave

    with wave.open(str(clip_folder / "tone.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(b"\x00\x10\x00\xf0" * 16000)
    manifest = add(clip_folder, "tone.wav")
    result = run("extract", manifest, "hog", "logmel", "--stores", clip_folder / "stores")
    assert result.exit_code == 0, result.output
    assert "hog: absent: bad: " in result.stderr
    assert FeatureStore.open(clip_folder / "stores" / "m" / "hog.zarr").state.tolist() == [1, 1, 3]
    assert FeatureStore.open(clip_folder / "stores" / "m" / "logmel.zarr").state.tolist() == [1, 1, 1]


def test_a_video_without_a_video_stream_is_broken(clip_folder):
    write_sound(clip_folder / "bad.mp4", np.zeros(16000), 16000, codec="aac")
    result = run("extract", add(clip_folder, "bad.mp4"), "hog", "logmel", "--stores", clip_folder / "stores")
    assert result.exit_code == 1, result.output
    assert "hog: failed: bad: " in result.stderr
    assert "no video stream, only sound" in result.stderr
    assert FeatureStore.open(clip_folder / "stores" / "m" / "hog.zarr").state.tolist() == [1, 1, 2]
    assert FeatureStore.open(clip_folder / "stores" / "m" / "logmel.zarr").state.tolist() == [1, 1, 1]


def test_a_modality_that_no_clip_has_is_an_error(clip_folder):
    (clip_folder / "still.csv").write_text("clip_id,domain,split,source\na,d,train,still.png\n")
    import cv2
    import numpy as np

    cv2.imwrite(str(clip_folder / "still.png"), np.full((64, 64, 3), 90, np.uint8))
    result = run("extract", clip_folder / "still.csv", "logmel", "--stores", clip_folder / "stores")
    assert result.exit_code == 1
    assert "logmel: absent: a: " in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("clip_id,domain,split,source\n", "no clips"),
        ("clip_id,domain,split,source\na,d,train,0.mp4\na,d,train,1.mp4\n", "line 3: clip_id 'a' is already on line 2"),
        ("clip_id,domain,split,source,color\na,d,train,0.mp4,red\n", "unknown column 'color'"),
        ("clip_id,domain,split,source,start_frame,stop_frame\na,d,train,0.mp4,9,3\n", "stop_frame 3 is not after"),
    ],
)
@pytest.mark.parametrize("command", ["extract", "check"])
def test_bad_manifests(clip_folder, command, text, message):
    (clip_folder / "bad.csv").write_text(text)
    result = run(
        command, clip_folder / "bad.csv", *(["hog", "--stores", clip_folder / "stores"] if command == "extract" else [])
    )
    assert result.exit_code == 1
    assert message in result.output
    assert not (clip_folder / "stores").exists()


def test_ids_and_labels_that_look_like_something_else(videos, tmp_path):
    for label in ("NA", "null"):
        for number in ("007", "1e5", "nan"):
            target = tmp_path / "videos" / "01" / label / f"{label}{number}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(next((videos).rglob("*.mp4")), target)
    result = run("manifest", "scan", tmp_path / "videos", "--layout", "{domain}/{label}/{clip_id}")
    assert result.exit_code == 0, result.output
    manifest = tmp_path / "videos" / "videos.csv"
    assert result.stdout.strip() == str(manifest)
    assert run("extract", manifest, "logmel", "--stores", tmp_path / "stores").exit_code == 0
    store = FeatureStore.open(tmp_path / "stores" / "videos" / "logmel.zarr")
    assert store.clip_ids[0] == "NA007"
    assert Manifest.read(tmp_path / "stores" / "videos" / "manifest.csv").classes == {"label": ("NA", "null")}


def test_scan_names_what_it_left_out_and_labels_that_look_alike(tmp_path):
    for name in ("cut onion/1.mp4", "cut\u00a0onion/2.mp4", "cut onion/3.xyz", "notes.docx"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "v" / name).touch()
    result = run("manifest", "scan", tmp_path / "v", "--layout", "{label}/{clip_id}")
    assert result.exit_code == 0, result.output
    assert "not in the manifest: 1 .docx, 1 .xyz" in result.stderr
    assert re.search(r"Warning: .*'cut onion', 'cut\\xa0onion' differ only by", result.stderr)
    assert "2 clips" in result.stderr


def test_scan_names_the_folders_that_are_one_clip_of_flow(tmp_path):
    for way, name in itertools.product(("u", "v"), ("a", "b")):
        (tmp_path / "v" / name / way).mkdir(parents=True)
        (tmp_path / "v" / name / way / "1.pgm").write_bytes(b"P5 2 2 255 " + bytes(4))
    result = run("manifest", "scan", tmp_path / "v", "--layout", "{clip_id}", "--unlabelled", "--fps", "30")
    assert result.exit_code == 0, result.output
    assert re.search(r"one clip.*flow:\n  a\n  b", result.stderr)
    assert "2 clips" in result.stderr


def test_scan_does_not_replace_what_somebody_may_have_edited(clip_folder):
    def scan(*options):
        return run("manifest", "scan", clip_folder, "--layout", "{clip_id}", "--out", clip_folder / "m.csv", *options)

    edited = (clip_folder / "m.csv").read_bytes()
    refused = scan()
    assert refused.exit_code == 1
    assert re.search(r"m\.csv exists .*--out.*--overwrite", refused.output)
    assert (clip_folder / "m.csv").read_bytes() == edited
    assert scan("--overwrite").exit_code == 0
    written = (clip_folder / "m.csv").read_bytes()
    assert written != edited
    assert scan().exit_code == 0  # nothing differs
    assert (clip_folder / "m.csv").read_bytes() == written


def test_the_copy_beside_the_stores_is_a_manifest_too(clip_folder):
    stores = clip_folder / "stores"
    assert run("extract", clip_folder / "m.csv", "logmel", "--stores", stores).exit_code == 0
    again = run("extract", stores / "m" / "manifest.csv", "hog", "--stores", stores)
    assert again.exit_code == 0, again.output
    assert sorted(path.name for path in stores.iterdir()) == ["m"]
    assert sorted(path.name for path in (stores / "m").glob("[!.]*")) == ["hog.zarr", "logmel.zarr", "manifest.csv"]
    checked = run("check", stores)
    assert checked.exit_code == 0, checked.output
    lines = [f"{stores / 'm' / name}: in order" for name in ("hog.zarr", "logmel.zarr", "manifest.csv")]
    assert checked.stdout.splitlines() == lines


@pytest.mark.parametrize(
    ("arguments", "number", "ending"),
    [
        (["extract", "m.csv", "hog"], errno.ENOSPC, "; finished work is kept, run the same command to resume"),
        (["extract", "m.csv", "hog"], errno.EACCES, "stores/m; change its permissions, or name another folder"),
        (["extract", "m.csv", "hog"], errno.ENOTDIR, "stores/m; name a folder: a part of this path is a file"),
        (["check", "m.csv"], errno.EIO, "stores/m"),
        (
            ["manifest", "build", "kitchens", "."],
            errno.EIO,
            "; finished work is kept, run the same command to resume",
        ),
    ],
)
def test_only_commands_that_go_on_say_so_and_only_of_the_disk(clip_folder, monkeypatch, arguments, number, ending):
    def broken(*args, **kwargs):
        raise OSError(number, os.strerror(number), "stores/m")

    monkeypatch.chdir(clip_folder)
    for place in (
        "pipelines.commands.extract.fill",
        "featcache.checking.problems",
        "featcache.builders.kitchens.build",
    ):
        monkeypatch.setattr(place, broken)
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(f"Error: {os.strerror(number)}: stores/m")
    assert result.stderr.splitlines()[-1].endswith(ending)


def test_train_head_prints_the_folder_of_runs_and_nothing_else(tmp_path):
    write_all(tmp_path / "stores")
    words = ("--runs", tmp_path / "runs", "--workers", 1, "--seeds", 0)  # the stores are where the folder lies
    result = run("train-head", tmp_path / "stores" / "toy", *words, "--set", "steps=2", "--only", "source-only")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'runs'}\n"
    assert "2 trained in" in result.stderr


QUICK = ("--workers", 1, "--seeds", 0, "--set", "steps=1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Stores of two domains, and the runs of the default experiment on them."""
    folder = tmp_path_factory.mktemp("trained")
    write_all(folder / "stores")
    words = ("--runs", folder / "runs", *QUICK[2:])
    assert run("train-head", folder / "stores" / "toy", *words, "--workers", 1).exit_code == 0
    assert run("evaluate", folder / "stores" / "toy", *words).exit_code == 0
    return folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--stores", "nostores"), "no folder nostores; name the folder of all stores"),
        (("--device", "cuda:99"), "no device 'cuda:99'"),
        (("--set", "manifest=tory"), "no stores of a manifest 'tory'.*did you mean 'toy'"),
        (("--set", "feeds.rgb.store=hag"), "no store 'hag'.*did you mean 'hog'"),
        (("--set", "test_split=val", "--only", "source-only"), "no val rows of"),
        (("--runs", "file"), "Not a directory|File exists|file has none of the"),
    ],
)
def test_what_is_wrong_for_all_runs_is_one_error_before_the_first(tmp_path, monkeypatch, trained, options, message):
    """No progress, no list of runs, no folder of runs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    folder = trained / "stores" / "toy"
    for command in ("train-head", "evaluate"):
        result = run(command, folder, "--runs", "runs", *QUICK[0 if command == "train-head" else 2 :], *options)
        assert result.exit_code == 1
        assert re.search(f"Error: [^!]*({message})", result.stderr), result.stderr
        assert "failed" not in result.stderr
        assert result.stdout == ""
        assert not list(tmp_path.glob("runs/*"))


def test_an_error_of_some_runs_is_left_to_them(tmp_path, monkeypatch):
    clips = manifest(domains=("day", "night"))
    stores = write_all(tmp_path / "stores", clips)
    check_ahead([toy_run(feeds={"rgb": Feed("hag")}), toy_run()], stores)
    two = [toy_run(feeds={"rgb": Feed("hag")}), toy_run(feeds={"flow": Feed("huf")})]
    with pytest.raises(ConfigError, match="no run can be made:\n  no store 'hag'.*\n  no store 'huf'"):
        check_ahead([*two, *two], stores)
    opened = []
    monkeypatch.setattr(ahead, "open_run", lambda *of: opened.append(of) or open_run(*of))
    check_ahead([toy_run(seed=seed) for seed in range(9)], stores)
    assert len(opened) == 1


def without_train_rows(domain):
    return Manifest("toy", tuple(clip for clip in manifest() if (clip.domain, clip.split) != (domain, "train")))


@pytest.mark.parametrize(
    ("clips", "changes", "reason"),
    [
        (
            manifest(labels=lambda domain, _, name: {"label": name} if domain == "night" else {}),
            {},
            "'day' has no 'label'",
        ),
        (without_train_rows("night"), {"preparation": Preparation(units="domain")}, "units='domain'.*'night'"),
        (manifest(), {"holdout": 0.01}, "holdout=0.01 of 12 rows"),
    ],
    ids=["labels of the source", "units of the test domain", "held-out rows"],
)
def test_a_fault_of_the_rows_of_all_runs_is_one_error(tmp_path, clips, changes, reason):
    stores = write_all(tmp_path, clips)
    broken = [toy_run(seed=seed, **changes) for seed in range(3)]
    with pytest.raises(ConfigError, match=reason) as caught:
        check_ahead(broken, stores)
    assert "\n" not in str(caught.value)


def test_equal_reasons_are_one_line(tmp_path, trained):
    """Of runs that failed, and of runs without a result."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    words = (tmp_path / "stores" / "toy", "--runs", tmp_path / "runs", "--seeds", "0,1", "--set", "optim.lr=1e30")
    result = run("train-head", *words, "--workers", 1, "--set", "steps=3", "--only", "source-only")
    assert result.exit_code == 1
    reasons = [line for line in result.stderr.splitlines() if "lower optim.lr" in line]
    assert 1 <= len(reasons) < 4
    assert " runs, the first source_only" in reasons[0]
    words = (*words[:3], *QUICK[2:])
    for folder in (tmp_path / "runs").glob("source_only_*"):
        (folder / HEAD).write_bytes(b"")
    result = run("evaluate", *words)
    assert re.search("4 of 8 runs have no result; `featcache train-head .*` trains the runs", result.stderr)
    shutil.rmtree(tmp_path / "runs")
    result = run("evaluate", *words)
    assert re.search("none of the 8 runs of toy; `featcache train-head .*` trains them", result.stderr)


def test_missing_labels_are_no_missing_runs(tmp_path):
    """`train-head` has no labels to give, and a target without labels is no mistake; `predict` is what is left."""
    unlabelled = manifest(labels=lambda domain, split, name: {} if domain == "night" else {"label": name})
    stores = write_all(tmp_path / "stores", unlabelled)
    (tmp_path / "mine.py").write_text(
        "from tests.helpers.stores import run\nRUNS = [run(steps=1, seed=k) for k in range(3)]\n"
    )
    words = (tmp_path / "mine.py", "--stores", stores, "--runs", tmp_path / "runs")
    assert run("train-head", *words, "--workers", 1).exit_code == 0
    for again in ("3 measured", "3 kept"):
        result = run("evaluate", *words)
        assert result.exit_code == 0
        assert again in result.stderr
        assert result.stderr.count("nothing to compare with:") == 1
        assert "train-head" not in result.stderr
        assert re.search(
            "3 of 3 runs .*\n  3 runs, the first .*6 test clips of night.*featcache predict", result.stderr
        )
    table = run("table", *words)
    assert table.exit_code == 0
    assert "NO LABELS in day→night" in table.stdout
    assert "MISSING" not in table.stdout
    shutil.rmtree(next((tmp_path / "runs").glob("source*")))
    assert re.search("1 of 3 runs have no result; .*train-head .*trains the runs", run("evaluate", *words).stderr)


def test_a_report_without_stores_is_a_page_and_a_warning(tmp_path, trained):
    words = (trained / "stores" / "toy", "--runs", trained / "runs", *QUICK[2:])
    whole = run("report", *words, "--out", tmp_path / "whole.html")
    assert (whole.exit_code, whole.stderr) == (0, "")
    with pytest.warns(UserWarning, match="nostores") as caught:  # stderr has it as "Warning: ..."
        part = run("report", *words, "--stores", tmp_path / "nostores", "--out", tmp_path / "part.html")
    assert (part.exit_code, len(caught)) == (0, 1)


@pytest.mark.slow
def test_clips_without_features_are_named_in_table_and_report(tmp_path):
    clips = manifest()
    gone = clips.rows(domain="night", split="test")[:2]
    stores = write_all(tmp_path / "stores", clips, states=dict.fromkeys(gone, "failed"))
    words = (stores / "toy", "--runs", tmp_path / "runs", *QUICK[2:])
    assert run("train-head", *words, "--workers", 1).exit_code == 0
    assert run("evaluate", *words).exit_code == 0
    assert run("report", *words, "--out", tmp_path / "page.html").exit_code == 0
    note = (
        f"2 of 6 test clips have no features, so they are not scored: {', '.join(clips.clips[k].clip_id for k in gone)}"
    )
    table = run("table", *words)
    assert f"NO FEATURES in day→night: {note}" in " ".join(table.stdout.split())
    assert "day→night 4, night→day 6" in table.stdout
    assert note in (tmp_path / "page.html").read_text()
    assert note in " ".join(run("table", *words, "--metric", "norms").stdout.split())


def test_a_store_of_another_manifest_is_refused(clip_folder):
    stores = clip_folder / "stores"
    assert run("extract", clip_folder / "m.csv", "logmel", "--stores", stores).exit_code == 0
    before = FeatureStore.open(stores / "m" / "logmel.zarr").fingerprint
    (clip_folder / "other").mkdir()
    (clip_folder / "other" / "m.csv").write_text("clip_id,domain,split,source\nx,d,train,../0.mp4\n")
    result = run("extract", clip_folder / "other" / "m.csv", "logmel", "--stores", stores)
    assert result.exit_code == 1
    assert "was made from other clips than manifest 'm'" in result.stderr
    assert "removed: '0', '1'" in result.stderr
    assert FeatureStore.open(stores / "m" / "logmel.zarr").fingerprint == before


def test_a_folder_that_cannot_be_written(clip_folder):
    (clip_folder / "file").write_text("in the way")
    result = run("extract", clip_folder / "m.csv", "logmel", "--stores", clip_folder / "file" / "stores")
    assert result.exit_code == 1
    assert "Not a directory" in result.stderr
    assert "Traceback" not in result.output


def test_a_full_disk_stops_with_a_sentence_and_a_resume_goes_on(videos, tmp_path):
    """A limit on the size of files stands in for the full disk: writes fail in the same way."""
    command = ["extract", str(videos / "kitchens.csv"), "hog", "--stores"]
    full = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *command, str(tmp_path / "s")],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith("Error: File too large")
    assert "run the same command to resume" in full.stderr
    assert "Traceback" not in full.stderr
    for folder in ("s", "whole"):
        assert run(*command, tmp_path / folder).exit_code == 0
    stores = [FeatureStore.open(tmp_path / folder / "kitchens" / "hog.zarr") for folder in ("s", "whole")]
    assert stores[0].fingerprint == stores[1].fingerprint


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["extract", "none.csv", "hog"], 1, "no manifest none.csv"),
        (["extract"], 2, "Missing argument"),
        (
            ["extract", "m.csv", "hogg"],
            1,
            "no extractor 'hogg'; did you mean 'hog'? there are: hog, ",
        ),
        (["extract", "m.csv", "hog", "--windows", "five"], 1, "no window plan 'five'"),
        (["extract", "m.csv", "hog", "--set", "hog.sells=3"], 1, "sells"),
        (["extract", "m.csv", "hog", "--dtype", "int8"], 2, "'int8' is not one of"),
        (["check", "stores"], 1, "no manifest stores"),
        (["check", "."], 1, ". holds no stores; name a manifest"),
        (["extract", "m.csv", "hog", "--stores", ""], 2, "the path is empty"),
        (["table", "kitchens", "--runs", ""], 2, "the path is empty"),
        (["manifest", "scan", ".", "--layout", "{clip_id}.mp4"], 1, "file ending .mp4; write '{clip_id}'"),
        (["manifest", "scan", ".", "--layout", "{clip_id}", "--out", "."], 1, ". is a folder; name a file"),
        (["manifest", "scan", ".", "--layout", "{clip_id}", "--fps", "nan"], 1, "fps nan is not a frame rate"),
        (["manifest", "scan", "nowhere", "--layout", "{clip_id}"], 1, "no folder nowhere"),
        (["manifest", "build", "kitchen", "."], 1, "no benchmark 'kitchen'"),
        (["train-head", "kitchen"], 1, "did you mean 'kitchens'"),
        (["train-head", "kitchens", "--stores", "none", "--runs", "r", "--workers", "1", "--seeds", "0"], 1, "none"),
        (["evaluate", "kitchens", "--runs", "none"], 1, "train-head kitchens"),
        (["evaluate", "kitchens", "--runs", "none"], 1, "none of the 24 runs"),
        (["table", "kitchens", "--runs", "none"], 1, "no results at none"),
        (["train-head", "kitchens", "--seeds", "a,b"], 1, "seeds"),
        (["train-head", "kitchens", "--only", "SOTA"], 1, "no row 'SOTA'"),
        (["train-head", "kitchens", "--set", "method.lambda=1"], 1, "lambda"),
    ],
)
def test_mistakes_on_the_command_line(clip_folder, monkeypatch, arguments, code, message):
    monkeypatch.chdir(clip_folder)
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert message in result.output
    assert "Traceback" not in result.output


COMMAND = [sys.executable, "-c", "from pipelines.cli import main; main()"]


CLOSING = ["<&- 2>&-", *(pytest.param(how, marks=pytest.mark.slow) for how in ("2>&-", "1>&- 2>&-", "2>/dev/full"))]


@pytest.mark.slow
@pytest.mark.parametrize("closing", CLOSING)
def test_stderr_that_cannot_be_written_to_stops_nothing(clip_folder, closing):
    """Nor does a file of ours get the number of a closed stream, on which decoders print."""
    content = (clip_folder / "1.mp4").read_bytes()
    (clip_folder / "1.mp4").unlink()  # a link to the videos of all tests
    (clip_folder / "1.mp4").write_bytes(content[: len(content) // 3])  # the decoder complains
    words = ["extract", str(clip_folder / "m.csv"), "hog", "--stores", str(clip_folder / "stores"), "--workers", "1"]
    done = subprocess.run(["sh", "-c", f'exec "$@" {closing}', "sh", *COMMAND, *words], capture_output=True, text=True)
    assert done.returncode == 1  # of the failed clip
    assert "Traceback" not in done.stdout
    store = FeatureStore.open(clip_folder / "stores" / "m" / "hog.zarr")
    assert [row.state for row in store.frame().itertuples()] == ["done", "failed"]
    assert np.isfinite(store.features[0]).all()


def test_a_warning_of_ours_is_one_line(tmp_path, monkeypatch):
    """Without the place in the code, which says nothing to a user."""
    source = """
import errno, os, stat
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "Invalid argument")
os.fsync = fsync
from pipelines.cli import main
main()
"""
    for name in ("a", "b"):
        write_sound(tmp_path / f"{name}.wav", np.zeros(1600, np.float32), 16000)
    words = ["manifest", "scan", str(tmp_path), "--layout", "{clip_id}"]
    done = subprocess.run([sys.executable, "-c", source, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert next(line for line in done.stderr.splitlines() if "sync" in line).startswith("Warning: the file system of ")
    assert ".py:" not in done.stderr


def test_a_note_is_on_a_line_of_its_own_next_to_a_progress_bar(capsys):
    with _shared.progress_bar("train toy", "run") as progress:
        _shared._bars[0].delay = _shared._bars[0].mininterval = 0
        progress(1, 3)
        _shared.note("one of the runs collapsed")
        progress(3, 3)
    _shared.note("3 trained")
    lines = [line.strip() for line in re.split(r"[\r\n]", capsys.readouterr().err)]
    assert "one of the runs collapsed" in lines
    assert "3 trained" in lines
    assert any(line.startswith("train toy: 100%") for line in lines)


NAME = "a\n\x1b[2J\x9b\u202eb"
SHOWN = r"a\n\x1b[2J\x9b\u202eb"


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self):
        return True


def test_names_of_files_never_control_the_terminal(tmp_path, monkeypatch):
    (tmp_path / "media" / "x").mkdir(parents=True)
    for path in (f"{NAME}.mp4", "x/1.mp4"):
        (tmp_path / "media" / path).write_bytes(b"")
    scanned = run("manifest", "scan", tmp_path / "media", "--layout", "{domain}/{clip_id}", "--out", tmp_path / "m.csv")
    assert f"\n  {SHOWN}.mp4\n" in scanned.stderr
    lines = ["clip_id,domain,split,source,label", *(f'"{NAME}{k}",d,train,v,"{label}"' for k, label in enumerate("xx"))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    for result in (
        run("check", tmp_path / f"{NAME}.csv"),
        run("check", tmp_path / "t.csv"),
        run("manifest", "from-csv", tmp_path / f"{NAME}.csv", "--clip-id", "x"),
        run("manifest", "from-csv", tmp_path / "t.csv", "--clip-id", "clip_id", "--domain", "clip_id"),
        run("manifest", "from-csv", tmp_path / "t.csv", "--clip-id", "clip_id", "--split", "clip_id"),
        run("show", "method", NAME),
        run(f"--{NAME}"),
        run("check", f"--{NAME}"),
    ):
        output = result.stdout + result.stderr
        assert "a" in output
        assert not re.search("[\x1b\x9b\u202e]", output), output
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Terminal())
        _shared.echo(f"{NAME}\tb")
        _shared.stdout().write(NAME)
        assert sys.stdout.getvalue() == f"{SHOWN}\tb\n{SHOWN}".replace(r"a\n", "a\n")
    with warnings.catch_warnings(record=True, action="always") as caught:
        warnings.warn(NAME, stacklevel=1)
    line = _shared._warning_line(caught[0].message, UserWarning, _shared.__file__, 1)
    assert "\x1b" not in line


def test_a_result_in_a_pipe_stays_as_it_is(capsys):
    _shared.echo("a\x9b\u202eb")
    assert _shared.stdout() is sys.stdout
    assert capsys.readouterr().out == "a\x9b\u202eb\n"


def test_only_the_shared_functions_print():
    for path in (ROOT / "pipelines" / "cli").glob("*.py"):
        printing = re.findall(r"\b(?:click\.s?echo|print|sys\.std(?:out|err))\b[(.,]", path.read_text())
        assert path.name == "_shared.py" or not printing, path
