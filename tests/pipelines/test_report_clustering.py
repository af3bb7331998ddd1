"""What a report shows of clusters: strips of skeletons, what clusters hold, and the confusion of matched clusters."""

import re
from html import escape, unescape
from itertools import pairwise

import numpy as np
import pytest

from featcache import FeatureStore, Manifest
from featcache.extractors.skeleton import Params, Skeletons
from featcache.joints import LAYOUTS, ROWS
from featcache.media.skeleton import Skeleton
from heads.batch import Spec
from pipelines.evaluation.evaluate import Predictions, predictions
from pipelines.evaluation.results import Result
from pipelines.experiments import Experiment
from pipelines.report import clustering as gallery
from pipelines.report.clustering import CLIPS, PLACES, chains, contents, front, mixtures, nearest, strips
from pipelines.report.metrics import others
from pipelines.report.write import write
from pipelines.training import runs as run_folders
from tests.helpers.bones import edges
from tests.helpers.result_rows import result
from tests.helpers.skeleton_stores import JOINTS, manifest, run, write_all
from tests.pipelines.test_report import HOSTILE, Page

#: x to the person's right, y up, in metres, without the ends of hands and feet; z is towards the person's back
STANDING = {
    "head": (0, 1.7), "neck": (0, 1.5), "shoulder centre": (0, 1.4), "spine": (0, 1.1), "hip centre": (0, 1),
    "shoulder": (0.2, 1.4), "elbow": (0.4, 1.4), "wrist": (0.6, 1.4), "hand": (0.65, 1.4), "hand tip": (0.7, 1.4),
    "thumb": (0.65, 1.4), "hip": (0.1, 0.9), "knee": (0.1, 0.5), "ankle": (0.1, 0.1), "foot": (0.1, 0.0),
}  # fmt: skip
ARM = ("elbow", "wrist", "hand", "hand tip", "thumb")


def person(layout, yaw=0.0):
    """(V, 3): someone who lets the left arm hang and points to the right, turned about y."""
    joints = []
    for name in LAYOUTS[layout].names:
        side, _, part = name.partition(" ")
        x, y = STANDING[part if side in ("left", "right") else name]
        if side == "left":
            x, y = (-0.2, 1.6 - x) if part in ARM else (-x, y)
        joints.append((x * np.cos(yaw), y, x * np.sin(yaw)))
    return np.array(joints)


def row(layout, frames=12, bodies=1):
    """(3, T, V, M) of people who do not move."""
    return np.tile(person(layout).T[:, None, :, None], (1, frames, 1, bodies))


def drawn(image):
    """Side -> the lines of a strip, each (joints, 2)."""
    paths = dict(re.findall(r'<path class="bone (\w+)" d="([^"]*)"/>', image))
    lines = {
        side: [np.array(line.split(), int).reshape(-1, 2) for line in paths[side].split("M")[1:]]
        for side in ("torso", "right", "left")
    }
    return lines | {"head": [np.array(line[:-2].split(), int) for line in paths["head"].split("M")[1:]]}


# ------------------------------------------------------------------------------------------------------------- strips


@pytest.mark.parametrize("layout", [layout for layout in ROWS if not LAYOUTS[layout].plane])
@pytest.mark.parametrize("yaw", [0.0, 1.0, np.pi, -2.0])
def test_whoever_points_to_the_right_points_to_our_left(layout, yaw):
    """From joints of any heading through extraction to the picture."""
    source = "ntu-25" if layout == "ntu-25" else "kinect-20"
    joints = np.tile(person(source, yaw) + np.array([0.3, -1, 2.5]), (1, 9, 1, 1)).astype(np.float32)
    x = Skeletons(Params(layout=layout, source=source, frames=12)).prepare(Skeleton(joints, fps=30.0))
    at = dict(zip(LAYOUTS[layout].names, front(x)[0].tolist(), strict=True))
    floor = 0.1 if len(LAYOUTS[layout].names) == 15 else 0.0  # ankles are the lowest joints of 15
    assert at["head"] == pytest.approx([0, 1.7 - floor], abs=1e-5)
    assert at["right wrist"] == pytest.approx([-0.6, 1.4 - floor], abs=1e-5)
    assert at["left wrist"] == pytest.approx([0.2, 1.0 - floor], abs=1e-5)
    assert at["right ankle"] == pytest.approx([-0.1, 0.1 - floor], abs=1e-5)


@pytest.mark.parametrize("layout", ROWS)
def test_all_bones_of_a_layout_are_drawn_once_and_on_their_side(layout):
    names, V = LAYOUTS[layout].names, len(LAYOUTS[layout].names)
    bones = [{a, b} for of in chains(V).values() for chain in of for a, b in pairwise(chain)]
    assert sorted(map(sorted, bones)) == sorted(map(sorted, edges(layout)))
    assert len(bones) == V - 1
    for side in ("right", "left"):
        assert all(names[joint].startswith(side) for chain in chains(V)[side] for joint in chain[1:])
    torso = {
        names[joint].removeprefix("right ").removeprefix("left ") for chain in chains(V)["torso"] for joint in chain
    }
    assert not torso & {"shoulder", "hip", *ARM}


def test_in_the_plane_people_are_as_the_picture_has_them():
    names = LAYOUTS["coco-17"].names
    x = np.zeros((3, 12, 17, 1), np.float32)
    for name, at in {
        "nose": (0.1, -0.3),
        "right wrist": (-0.2, -0.2),
        "left ankle": (0.2, 0.4),
        "left ear": (0, 0),
    }.items():
        x[:, :, names.index(name), 0] = np.float32([*at, 0.9])[:, None]
    x[2, :, names.index("right ear")] = 0  # not found
    at = dict(zip(names, front(x)[0].tolist(), strict=True))
    assert at["left ankle"] == pytest.approx([0.15, 0])
    assert at["nose"] == pytest.approx([0.05, 0.7])
    assert at["right wrist"] == pytest.approx([-0.25, 0.6])
    assert at["left ear"] == pytest.approx([-0.05, 0.4])
    assert np.isnan(at["right ear"]).all()
    assert len(drawn(strips(x[None], ["alt"])[0])["head"]) == PLACES


def test_joints_stand_where_the_person_has_them():
    (image,) = strips(row("ntu-25")[None], ["alt"])
    lines, unit = drawn(image), 200 / 1.7  # the head is the highest joint
    for side, of in chains(25).items():
        assert len(lines[side]) == PLACES * len(of)
    arm = lines["right"][0]
    expected = [(-STANDING[part][0], STANDING[part][1]) for part in ("shoulder", "elbow", "wrist", "hand")]
    middle = lines["torso"][0][0]  # the centre joint
    np.testing.assert_allclose(arm[1:5] - middle, [(unit * x, unit * (1.4 - y)) for x, y in expected], atol=1)
    floor = int(re.search(r'class="bone floor" d="M0 (\d+)H', image)[1])
    assert {line[-1, 1] for side in ("right", "left") for line in lines[side][1::2]} == {floor}
    assert all(floor - y == 200 for _, y in lines["head"])


def test_everybody_is_drawn_at_one_scale():
    adult, child = row("shared-15"), 0.5 * row("shared-15")
    heights = [
        {line[-1, 1] - head[1] for line, head in zip(of["right"][1::2], of["head"], strict=True)}
        for of in map(drawn, strips(np.stack([adult, child]), ["a", "b"]))
    ]
    assert heights == [{200}, {100}]
    frames = [re.search(r'viewBox="([^"]*)"', image)[1] for image in strips(np.stack([adult, child]), ["a", "b"])]
    assert frames[0] == frames[1]


def test_frames_are_the_middles_of_equal_stretches_of_those_with_somebody():
    x = row("shared-15", frames=60)
    wrist = LAYOUTS["shared-15"].names.index("left wrist")
    x[0, :, wrist, 0] = -np.arange(60)
    assert front(x)[:, wrist, 0].tolist() == [5, 15, 25, 35, 45, 55]
    x[:, 30:] = 0
    assert front(x)[:, wrist, 0].tolist() == [2, 7, 12, 17, 22, 27]
    assert front(x[:, :2])[:, wrist, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_who_is_not_there_is_not_drawn():
    x = row("shared-15", bodies=2)
    for there, heads in (([1, 1], 6), ([1, 0], 6), ([0, 1], 6), ([0, 0], 0)):
        (image,) = strips((x * there)[None], ["alt"])
        assert len(drawn(image)["head"]) == heads
        assert "nan" not in image
    x[:, 6:, :, 1] = 0  # the second one leaves in the middle: of three frames they share the first
    assert np.isfinite(front(x)[:, 0, 0]).tolist() == [True, True, True, False, True, False]


def test_the_floor_is_where_bodies_mostly_stand():
    x = row("shared-15")
    x[1, 0:2] += 0.5  # a jump
    ankle = LAYOUTS["shared-15"].names.index("left ankle")
    assert front(x)[:, ankle, 1] == pytest.approx([0.5, 0, 0, 0, 0, 0])
    x[1, 6:8, ankle] = -1  # a joint that was seen wrongly
    assert front(x)[:, ankle, 1] == pytest.approx([0.5, 0, 0, -1.1, 0, 0])


def test_more_bodies_than_places_are_cut():
    assert np.isfinite(front(row("shared-15", bodies=8))).all()


def test_a_strip_is_small():
    rng = np.random.default_rng(0)
    assert max(map(len, strips(rng.normal(size=(4, 3, 50, 25, 2)), ["alt"] * 4))) < 2200


# ------------------------------------------------------------------------------------------------------------- words


def seen(truth, predicted, classes="abcd"):
    return Predictions(np.array(truth), np.array(predicted), tuple(classes), 0)


def test_what_a_cluster_holds():
    sentences = seen([0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 1, 0, 0, 0, 1, 2])
    assert contents(sentences, 0) == "a: 5 clips, 2 (40 %) of the class, which has 3; dominated by b: 3"
    assert contents(sentences, 1) == "b: 2 clips, 1 (50 %) of the class, which has 4"
    assert contents(sentences, 2) == "c: 1 clip, 1 (100 %) of the class, which has 1"


def test_what_is_mixed():
    sentences = seen([0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 1, 0, 0, 0, 1, 2])
    assert re.search(r"3 of 4 b .* a; 1 of 3 a .* b\.", mixtures(sentences))
    assert mixtures(seen([0, 1], [0, 1])) == ""


def test_the_nearest_to_the_mean_come_first():
    f = np.random.default_rng(0).normal(size=(9, 3))
    distance = [sum((f[n, d] - sum(f[:, d]) / 9) ** 2 for d in range(3)) for n in range(9)]
    assert nearest(f, 4).tolist() == sorted(range(9), key=distance.__getitem__)[:4]
    assert nearest(np.zeros((5, 3)), 2).tolist() == [0, 1]
    assert nearest(f[:1]).tolist() == [0]


# -------------------------------------------------------------------------------------------------------------- page


RENAMED = {f"msr:bow-{split}{k}": f"msr:{HOSTILE}" for split in ("train", "test") for k in range(4)}
FOUND = {"B0": [2, 2, 0, 0, 3, 3, 0, 1], "B1": [0, 0, 0, 0, 0, 0, 0, 1]}  # clusters of two clips of each of 4 classes


@pytest.fixture
def folder(tmp_path):
    """Stores with a hostile class, and a run with such clusters; its results."""
    clip_manifest = manifest(rename=RENAMED)
    write_all(tmp_path / "stores", clip_manifest)
    keep_run(tmp_path)
    return tmp_path


def keep_run(folder, found=FOUND, **facts):
    config, stores = run(), folder / "stores" / "motions"
    clip_manifest = Manifest.read(stores / "manifest.csv")
    rows = np.array(clip_manifest.rows(domain="msr", split="test"))
    spec = Spec(
        shapes={m: (3, 8, V, 2) for m, V in JOINTS.items()},
        windows=dict.fromkeys(JOINTS, 1),
        classes={"label": 3},
        rows={"source": 12, "target": 12},
        domains=("utk", "msr"),
        clusters=4,
    )
    read = {f"store {m}": FeatureStore.open(stores / f"{m}.zarr").fingerprint for m in JOINTS}
    facts = {
        "read": {"manifest": clip_manifest.sha256, **read},
        "points": [{"step": 3}],
        "note": "",
        "recipes": {},
        **facts,
    }
    facts |= {"untrained": [], "collapsed": []}
    outputs = {"rows": rows}
    for branch, clusters in found.items():
        outputs[f"cluster_{branch}"] = np.eye(4, dtype=np.float32)[None, clusters]
        outputs[f"feature_{branch}"] = np.arange(8, dtype=np.float32).reshape(1, 8, 1) ** 2
    path = folder / "runs" / config.id
    run_folders.write(path, config, spec, facts, log=[{"L": 1.0}] * 3, weights={}, outputs=outputs)
    return path


def page(folder, name="report.html"):
    config = run()
    result = Result(
        run=config.id, experiment="toy", row="BM", source=("utk",), target="msr", test="msr", seed=0,
        metric="acc_hungarian/B0", value=0.875, n=8, select="last", fidelity="exact", untrained=(), recipes={}, read={},
        config=config.to_json(), version="0", collapsed=(), tier="",
    )  # fmt: skip
    write(Experiment("toy", "Clusters.", (config,)), [result], folder / "runs", folder / "stores", folder / name)
    return re.sub("<nav>.*?</nav>", "", (folder / name).read_text())


def test_cards_say_what_is_in_each_cluster(folder):
    texts = Page(page(folder)).texts
    assert [text for text in texts if " of the class, which has " in text][:4] == [
        "msr:draw: 3 clips, 2 (67 %) of the class, which has 2",
        f"msr:{HOSTILE}: 2 clips, 2 (100 %) of the class, which has 2",
        "msr:kick: 2 clips, 2 (100 %) of the class, which has 2",
        "msr:wave: 1 clip, 1 (100 %) of the class, which has 2",
    ]
    words = " ".join(texts)
    assert "Branch B0, by its classifier: 87.5 % of 8 clips are in the cluster of their class." in words
    assert "1 of 2 msr:wave in the cluster of msr:draw." in words
    assert "Branch B1, by its classifier: 37.5 % of 8 clips" in words
    assert "Empty: 2 of 4 clusters" in words
    assert "use the target's labels" in words
    assert "oracle K" in words
    for claim in ("Domains share the classes", "The backbones are frozen"):  # of classification alone
        assert claim not in words


def test_marks_names_and_descriptions_are_those_of_the_clips(folder):
    text = page(folder).partition("<details>")[0]
    clips = {clip.clip_id: clip.labels["label"] for clip in Manifest.read(folder / "stores/motions/manifest.csv")}
    figures = re.findall(
        r'<figure class="(right|wrong)"><svg [^>]*aria-label="Skeletons of ([^"]*)">.*?</svg>'
        r"<figcaption>([✓✗]) ([^<]*)</figcaption>",
        text,
    )
    assert len(figures) == 8
    for kind, alt, mark, words in figures:
        label, _, clip = unescape(words).partition(" · ")
        assert alt == words
        assert clips[clip] == label
        assert (kind == "right") == (mark == "✓")
    assert [words for kind, _, _, words in figures if kind == "wrong"] == ["msr:wave · msr:wave-test0"]


def test_hostile_names_stay_words(folder):
    text = page(folder)
    assert text.count("<script") == 1  # the one of the page
    assert escape(f"msr:{HOSTILE}: 2 clips") in text


def test_clips_nearest_to_the_mean_of_their_cluster_are_shown(folder):
    keep_run(folder, {"B0": [0] * 8})
    features, text = np.arange(8) ** 2, page(folder)
    nearest_ones = sorted(range(8), key=lambda n: abs(features[n] - features.mean()))[:CLIPS]
    ids = [clip.clip_id for clip in Manifest.read(folder / "stores/motions/manifest.csv") if clip.domain == "msr"]
    test = [clip for clip in ids if "-test" in clip]
    assert re.findall(r" · ([\w:-]+)</figcaption>", text) == [test[n] for n in nearest_ones]


def test_a_headline_by_kmeans_has_one_table():
    """Without a classifier of clusters the first table has the numbers by k-means."""
    toy = Experiment("toy", "Clusters.", (run(),))
    kmeans = [f"{name}/{branch}/kmeans" for name in ("acc_hungarian", "nmi") for branch in ("B0", "B1")]
    measured = [result(run(), 0.5, name) for name in kmeans]
    assert others(toy, "acc_hungarian/B0", measured) == [name for name in kmeans if name != kmeans[0]]
    both = [*measured, result(run(), 0.6, "acc_hungarian/B0")]
    assert others(toy, "acc_hungarian/B0", both) == kmeans


def test_without_a_classifier_clusters_are_those_of_kmeans(folder):
    path = folder / "runs" / run().id / "outputs.npz"
    kept = {name: array for name, array in np.load(path).items() if not name.startswith("cluster")}
    np.savez(path, **kept)
    run_folders.write_sums(path.parent)
    assert "Branch B0, by k-means (its first start)" in page(folder)


def test_branches_read_their_own_layouts(folder):
    """15 joints in branch B0, 20 in B1: subpaths of 14 and of 19 bones."""
    first, _, second = page(folder).partition("<details>")
    for text, V in ((first, 15), (second, 20)):
        images = re.findall(r'<svg [^>]*aria-label="Skeletons.*?</svg>', text)
        assert images
        for image in images:
            lines = drawn(image)
            bones = sum(len(line) - 1 for side in ("torso", "right", "left") for line in lines[side])
            assert bones == (V - 1) * len(lines["head"])
            assert len(lines["head"]) == PLACES


def test_small_clusters_beyond_the_most_are_words_alone(folder, monkeypatch):
    monkeypatch.setattr(gallery, "CLUSTERS", 1)
    text = page(folder).partition("<details>")[0]
    assert text.count('aria-label="Skeletons of') == 3
    assert "<li>msr:kick: 2 clips, 2 (100 %) of the class, which has 2</li>" in text


def test_it_is_well_formed_small_and_the_same_for_the_same_input(folder):
    text = page(folder)
    assert Page(text).tags
    assert not {tag for tag, _ in Page(text).tags} & {"link", "iframe"}
    assert text == page(folder, "again.html")
    assert len(text) < 60_000


def test_a_lost_store_leaves_words(folder):
    (folder / "stores/motions/shared.zarr").rename(folder / "elsewhere")
    text = page(folder)
    first, _, second = text.partition("<details>")
    assert "No skeletons can be drawn: no store &#x27;shared&#x27;" in first
    assert "Skeletons of" not in first
    assert len(re.findall("<figcaption>[✓✗]", first)) == 8
    assert "Skeletons of" in second


def test_a_store_that_changed_since_is_not_drawn(folder):
    keep_run(folder, read={"manifest": Manifest.read(folder / "stores/motions/manifest.csv").sha256, "store own": "x"})
    text = page(folder)
    assert text.count("has changed since run") == 2
    assert "Skeletons of" not in text


def test_a_missing_run_or_manifest_leaves_a_page_that_says_so(folder):
    (folder / "stores").rename(folder / "elsewhere")
    assert "No clusters of BM on utk→msr: no stores of a manifest" in page(folder)
    (folder / "runs").rename(folder / "gone")
    assert "No clusters of BM on utk→msr: no finished run" in page(folder)


# --------------------------------------------------------------------------------------------------------- confusion


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_clustering_has_a_perfect_confusion_whatever_its_numbers(folder, seed):
    order = np.random.default_rng(seed).permutation(4)
    path = keep_run(folder, {"B0": order[np.repeat(np.arange(4), 2)].tolist()})
    predicted = predictions(path, folder / "stores")
    np.testing.assert_array_equal(predicted.predicted, predicted.truth)
    text = page(folder)
    (image,) = re.findall(r'<svg [^>]*aria-label="Confusion matrix of BM.*?</svg>', text)
    assert re.findall(r'<text class="cell[^"]*"[^>]*>(\d+)</text>', image) == ["100"] * 4
    assert "matched cluster →" in image


def test_the_matrix_has_true_classes_as_rows_and_matched_clusters_as_columns(folder):
    (image,) = re.findall(r'<svg [^>]*aria-label="Confusion matrix of BM.*?</svg>', page(folder))
    heat = re.findall(r'class="heat" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"[^>]*fill-opacity="([\d.]+)"', image)
    x0, y0, size = (float(heat[0][k]) for k in range(3))
    cells = {(round((float(y) - y0) / size), round((float(x) - x0) / size)): float(o) for x, y, _, o in heat}
    assert cells == {(0, 0): 1, (1, 1): 1, (2, 2): 1, (3, 1): 0.5, (3, 3): 0.5}


def test_names_in_a_matrix_leave_the_domain_out(folder):
    (image,) = re.findall(r'<svg [^>]*aria-label="Confusion matrix of BM.*?</svg>', page(folder))
    assert ">draw</text>" in image
    assert "msr:" not in image.partition(">")[2]
