"""Columns and keys that describe clips, in every bridge, and features that give the label away."""

import numpy as np
import pytest

from featcache import FeatureStore, bridges
from featcache.bridges import External
from featcache.columns import describes_clips, features_of
from featcache.errors import FormatError
from featcache.importing import import_features
from featcache.leaks import Search, leaks
from featcache.manifest import Clip, Manifest

DESCRIBING_TEXT = """
Label label LABELS label_id labelId labelid class classes class_idx class_name ClassID classlabel target targets y Y
y_true y_pred ytrue y_train gnd gt gt_label ground_truth split splits domain domain_id fold fold_1 index idx start stop
frame frames frame_start start_frame startframe frame_idx n_frames frame_rate time time_s timestamp timestamps
timestamp_ms timestampms time_stamp start_time stop_sec t t_start fps video_fps FPS prob_3 prob3 probs logits rgb_logits
softmax onehot one_hot oneHot one-hot onehot_0 class_walk action_class verb_class noun is_train subject_id segment_id
level_0 __index_level_0__ row_id category cls pred predictions scores epoch Timestamp(ms) start(s)
"""
FEATURES_TEXT = """
f0 x1 feat_12 I3D i3d rgb Flow audio emg1 features features_0 rgb_12 x_0 z_1 embedding label_embedding class_token
cls_token frame_features target_features index_finger_x index_finger_tip_y time_domain_energy mean_frame_diff 0 511 c3d
s3d p_0 r2plus1d left hidden clip video text vggish nose_y pos_y probe_x classic rate length energy mfcc_0 score_map
"""
CLIPS = [(f"{d}{k}", d, "train" if k % 2 else "test", "xy"[k // 2 % 2]) for d in "ab" for k in range(8)]
MANIFEST = Manifest(
    "m",
    tuple(Clip(clip_id=i, domain=d, split=s, source=f"{i}.mp4", labels={"label": label}) for i, d, s, label in CLIPS),
)
IDS = [clip_id for clip_id, *_ in CLIPS]
NOISE = np.random.default_rng(0).normal(size=(len(IDS), 3, 4)).astype(np.float32)
NUMBER = np.array(["xy".index(label) for *_, label in CLIPS], np.float32)


@pytest.mark.parametrize("name", [*DESCRIBING_TEXT.split(), "Unnamed: 0", "", "Start Frame", "time (s)"])
def test_names_that_describe_clips(name):
    assert describes_clips(name)


@pytest.mark.parametrize("name", FEATURES_TEXT.split())
def test_names_of_features(name):
    assert not describes_clips(name)


@pytest.mark.parametrize(
    ("names", "features"),
    [
        ("x y z", "x y z"),
        ("x_12 y_12 z_12 score_12 y_true", "x_12 y_12 z_12 score_12"),
        ("x1 y1 x2 y2 label", "x1 y1 x2 y2"),
        ("X y", "X"),
        ("f0 y", "f0"),
        ("f0 y_0 y_1", "f0"),
        ("level_0 level_1 f0", "f0"),
        ("level_0 level_1 level_2 level_3", "level_0 level_1 level_2 level_3"),
    ],
)
def test_names_are_judged_by_those_beside_them(names, features):
    assert features_of(names.split()) == features.split()


def table(rows):
    return External(IDS, lambda k: rows[k])


SEVERAL = [name for name in bridges.names() if "several" in bridges.load(name).KEEPS]
KEYS = ["label", "timestamps", "onehot", "y_true"]


@pytest.mark.parametrize(
    ("name", "key"),
    [  # the fast suite has every bridge and every key
        pytest.param(name, key, marks=() if key == "label" or name == SEVERAL[0] else pytest.mark.slow)
        for name in SEVERAL
        for key in KEYS
    ],
)
def test_every_bridge_leaves_such_keys_out_names_them_and_takes_them_by_name(tmp_path, name, key):
    file, bridge = tmp_path / "file", bridges.load(name)
    bridge.write(file, {"rgb": table(NOISE), key: table(NOISE[:, :, :2])})
    (report,) = import_features([file], name, MANIFEST, tmp_path / "a")
    assert report.key == "rgb"
    assert any("leaves out" in note and repr(key) in note and f"--key {key}" in note for note in report.notes)
    (report,) = import_features([file], name, MANIFEST, tmp_path / "b", key={key: "asked"})
    assert FeatureStore.open(report.path).row_shape == (2,)
    bridge.write(file, {key: table(NOISE)})
    with pytest.raises(FormatError, match=f"only keys that describe clips.*'{key}'.*--key"):
        import_features([file], name, MANIFEST, tmp_path / "c")


@pytest.mark.parametrize("name", bridges.names())
def test_every_bridge_says_when_features_are_one_hot_or_the_label(tmp_path, name):
    file = tmp_path / "file"
    bridges.load(name).write(file, {"rgb": table(np.eye(2, dtype=np.float32)[NUMBER.astype(int)][:, None])})
    (report,) = import_features([file], name, MANIFEST, tmp_path / "s")
    notes = " ".join(report.notes)
    assert "LABELS IN FEATURES" in notes
    assert "one-hot" in notes
    assert "functions of the label" in notes
    bridges.load(name).write(file, {"rgb": table(NOISE)})
    (report,) = import_features([file], name, MANIFEST, tmp_path / "t")
    assert "LABELS" not in " ".join(report.notes)


def test_csv_columns_are_named_and_in_the_recipe(tmp_path):
    def written(header, *columns):
        lines = [header, *(",".join(map(str, line)) for line in zip(IDS, *columns, strict=True))]
        (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "f.csv"

    (report,) = import_features([written("clip_id,f0,f1", *NOISE[:, 0, :2].T)], "csv", MANIFEST, tmp_path / "a")
    (entry,) = FeatureStore.open(report.path).recipe["external"]["files"]
    assert sorted(entry) == ["file", "ids_sha256", "sha256"]  # as before: nothing is left out
    text = ["walk" for _ in IDS]
    file = written("clip_id,f0,label,p_0,onehot_0,onehot_1,person", NOISE[:, 0, 0], NUMBER, *NOISE[:, 0, :3].T, text)
    (report,) = import_features([file], "csv", MANIFEST, tmp_path / "b")
    store = FeatureStore.open(report.path)
    assert store.row_shape == (2,)
    assert store.recipe["external"]["files"][0]["columns"] == ["f0", "p_0"]
    assert report.notes == [
        "takes the columns f0, p_0",
        "leaves out 'label', 'onehot', by name (to import it: --key label --key onehot)",
        "leaves out 'person'",
    ]
    (report,) = import_features([file], "csv", MANIFEST, tmp_path / "c", key={"onehot": "asked"})
    assert FeatureStore.open(report.path).row_shape == (2,)
    file.write_text(",clip_id,f0\n0,a0,1\n1,a1,2\n")  # pandas' index has no name by which it could be asked for
    (features,) = bridges.load("csv").read(file, None).values()
    assert (features.columns, features.left_out) == (["f0"], [""])
    file.write_text("clip_id,label\na0,x\n")
    with pytest.raises(FormatError, match="f.csv: there are no columns of numbers; the columns are: clip_id, label"):
        bridges.load("csv").read(file, None)
    file.write_text("clip_id,f0,person\na0,1,x\na1,2,3\n")
    with pytest.raises(FormatError, match="line 3: column 'person' has a number"):
        bridges.load("csv").read(file, None)


def found(rows, labels, columns=()):
    search = Search(columns)
    for row, label in zip(rows, labels, strict=True):
        search.add(np.asarray(row, np.float32)[None], {"label": label} if label else {})
    return search.findings()


def test_columns_that_give_the_label_away():
    labels, rows = list("xyz" * 6), np.random.default_rng(0).normal(size=(18, 5))
    assert found(rows, labels) == []
    rows[:, 3] = [("zxy".index(label) + 7) / 3 for label in labels]
    assert found(rows, labels) == ["number 3 of 5 (from 0) is a function of the label in all 18 clips that have one"]
    assert "'id' is a function" in found(rows, labels, ["a", "b", "c", "id", "e"])[0]
    rows[:, 3] = [label == "x" for label in labels]  # of one class
    assert "is a function" in found(rows, labels)[0]
    assert found(rows, [""] * 18) == []
    assert found(rows[:6], labels[:6]) == []  # too few to say
    rows[:, 3] = 1  # a dead feature
    assert found(rows, labels) == []


def test_one_hot_columns_wherever_they_are():
    rows, places = np.random.default_rng(0).normal(size=(20, 9)), np.arange(20) % 4
    rows[:, 3:7] = np.eye(4)[places]
    assert found(rows, [""] * 20) == ["numbers 3 to 6 of 9 (from 0) are one-hot in all 20 clips"]
    rows[:, 3:7] = np.eye(4)[places] * 2
    assert found(rows, [""] * 20) == []
    assert found(np.zeros((20, 4)), [""] * 20) == []
    both = np.concatenate([np.eye(4)[places], np.eye(2)[places // 2]], 1)
    assert [text.split(" are")[0] for text in found(both, [""] * 20)] == [
        "numbers 0 to 3 of 6 (from 0)",
        "numbers 4, 5 of 6 (from 0)",
    ]


def test_probabilities_of_the_classes():
    labels, rng = list("xyz" * 6), np.random.default_rng(0)
    rows = rng.random((18, 3)) + 2 * np.eye(3)[["yzx".index(label) for label in labels]]
    text = "the place of a row's largest number is a function of the label in all 18 clips that have one"
    assert found(rows, labels) == [text]
    wide = np.concatenate([rows, np.zeros((18, 40))], 1) + 0.001 * rng.random((18, 43))
    assert found(wide, labels) == []  # features may be large in one place
    assert found(wide / wide.sum(1, keepdims=True), labels) == [text]


def test_separable_features_are_no_probabilities():
    """A few rows, or two classes, whose largest numbers differ prove nothing; probabilities of two classes do."""
    labels, rng = list("xy" * 12), np.random.default_rng(0)
    rows = rng.random((24, 2)) + 3 * np.eye(2)[["xy".index(label) for label in labels]]
    for some in (rows[:10], rows, np.concatenate([rows, rng.random((24, 2))], 1)):
        assert found(some, labels[: len(some)]) == []
    shares = rows / rows.sum(1, keepdims=True)
    assert found(shares[:10], labels[:10]) == []
    assert "largest number is a function of the label in all 24 clips" in found(shares, labels)[0]


def test_a_store_is_searched_whatever_made_it(tmp_path):
    rows = NOISE.copy()
    rows[:, :, 1] = NUMBER[:, None]
    bridges.load("npz").write(tmp_path / "f.npz", {"rgb": table(rows)})
    (report,) = import_features([tmp_path / "f.npz"], "npz", MANIFEST, tmp_path / "s")
    store = FeatureStore.open(report.path)
    assert leaks(store, MANIFEST) == ["number 1 of 4 (from 0) is a function of the label in all 16 clips that have one"]
