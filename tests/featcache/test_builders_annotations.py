"""Builders of published benchmarks, on small files in the official layouts and, where they are, on the real ones."""

import dataclasses
import gzip
import pickle
import re
import shutil
import sys
import warnings
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from featcache import Manifest, builders
from featcache.budget import Allowance
from featcache.builders import _annotations
from featcache.builders._ucf import CLASSES, OLYMPIC
from featcache.errors import FeatcacheError, FormatError, ManifestError
from featcache.untrusted import frames
from pipelines.cli import main
from tests.conftest import ROOT
from tests.featcache import test_builders_retrieval, test_builders_skeletons

MMSADA = "uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,verb,verb_class"
TIMES = "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame"
LABELLED = f"{TIMES},narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def epic8(folder):
    """Of each participant, clips of verbs 0 and 7 to train and of verb 3 to test."""
    for part, participant in (("D1", "P08"), ("D2", "P01"), ("D3", "P22")):
        end = f"{participant},{participant}_02,get the cup,00:00:04.09,00:01:04.37,245,3862,get"
        write(folder / f"{part}_train.csv", MMSADA, f"{part[1]}1,{end},0", f"{part[1]}2,{end},7")
        write(folder / f"{part}_test.csv", MMSADA, f"{part[1]}3,{end},3")


def epic100_uda(folder):
    write(
        folder / "EPIC_100_verb_classes.csv",
        "id,key,instances,category",
        "0,take,\"['take', 'get']\",retrieve",
        "1,put,,",
    )
    write(folder / "EPIC_100_noun_classes_v2.csv", '"id","key","instances","category"', '0,"tap",,', '7,"cup:paper",,')
    for k, part in enumerate(("source_train", "source_val", "target_val")):
        start = f"P01_0{k}_0,P01,P01_0{k},00:00:01.089,00:00:00.14,00:00:03.37,8,202"
        write(
            folder / f"EPIC_100_uda_{part}.csv",
            LABELLED,
            f'{start},"put cup, tap",put,1,cup,7,"[\'cup\', \'tap\']","[7, 0]"',
        )
    write(
        folder / "EPIC_100_uda_target_train_timestamps.csv",
        TIMES,
        "P01_102_0,P01,P01_102,00:00:01.100,00:00:00.54,00:00:02.23,27,111",
    )


def ucf(pair, other, classes):
    """TA3N's lists with a video of each class to train, and of the first one to test."""

    def lists(folder):
        for name, video in (("ucf101", "v_Biking_g{}_c01"), (other, "A_film_{}_f_cm_np1")):
            lines = [f"/data/{name}/RGB-Feature/{video.format(k)}/ 83 {k}" for k in range(classes)]
            write(folder / f"list_{name}_train_{pair}-feature.txt", *lines)
            write(folder / f"list_{name}_val_{pair}-feature.txt", f"/data/{name}/RGB-Feature/{video.format(99)}/ 83 0")

    return lists


def cogbeacon(folder):
    for session in ("user_0_v_m", "user_0b_t_m", "user_10_a_o", "user_10b_v_o"):
        write(folder / "fatigue_self_report" / f"{session}.csv", 0, 0, 1, 1, 3)


def synrod(folder):
    kinds = ("apple", "ball")
    write(
        folder / "synROD/synARID_50k-split_sync_train1.txt",
        *(f"{kind}/{kind}_1_***.png {k}" for k, kind in enumerate(kinds)),
    )
    write(folder / "synROD/synARID_50k-split_sync_test1.txt", "ball/ball_2_***.png 1")
    write(
        folder / "ROD/wrgbd_40k-split_sync.txt",
        *(f"{kind}/{kind}_1/{kind}_1_1_1_***.png {k}" for k, kind in enumerate(kinds)),
    )


def actionsense(folder):
    """Two people; of the first one three actions of a class, the second of them cut in two."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "emg_all_subjects.npz",
        left=np.zeros((50, 8)),
        right=np.ones((50, 8)),
        offset=np.array([0, 10, 20, 30, 40, 50]),
        label=np.array([1, 1, 1, 1, 0]),
        class_name=np.array(["peel", "cut"]),
        subject=np.array(["S00", "S00", "S00", "S00", "S01"]),
        action_id=np.array([0, 1, 1, 2, 9]),
    )


WRITERS = {
    "epic8": epic8,
    "epic8_mtran": epic8,
    "epic8_narrations": epic8,
    "epic100_uda": epic100_uda,
    "ucf_hmdb": ucf("hmdb_ucf", "hmdb51", 12),
    "ucf_hmdb_small": ucf("hmdb_ucf_small", "hmdb51", 5),
    "ucf_olympic": ucf("ucf_olympic", "olympic", 6),
    "cogbeacon": cogbeacon,
    "synrod": synrod,
}
PUBLISHED = {  # (domain, split) -> clips
    "epic8": {"D1": (1543, 435), "D2": (2495, 750), "D3": (3897, 974)},
    "epic8_narrations": {"D1": (1543, 435), "D2": (2495, 750), "D3": (3897, 974)},
    "epic8_mtran": {"D1": (2495, 750), "D2": (1543, 435), "D3": (3897, 974)},
    "ucf_hmdb": {"ucf": (1438, 571), "hmdb": (840, 360)},
    "ucf_hmdb_small": {"ucf": (482, 189), "hmdb": (350, 150)},
    "ucf_olympic": {"ucf": (601, 240), "olympic": (250, 54)},
}


@pytest.fixture(params=WRITERS)
def name(request):
    return request.param


@pytest.fixture
def files(name, tmp_path):
    """A folder with the small files of a benchmark."""
    WRITERS[name](tmp_path)
    return tmp_path


def build(name, folder, **options):
    """The manifest; numbers of clips that are too small are no matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return builders.load(name).build(folder, **options)


def sizes(manifest):
    return {d: tuple(len(manifest.rows(domain=d, split=s)) for s in ("train", "test")) for d in manifest.domains}


# Every builder


def test_every_builder_is_here():
    others = {"kitchens", "shifts", "pairs", "actionsense"}  # generated, or without published numbers
    elsewhere = {*test_builders_retrieval.WRITERS, *test_builders_skeletons.WRITERS}
    assert set(WRITERS) == set(builders.names()) - others - elsewhere


def test_the_manifest_is_written_and_read_back(name, files):
    calls = []
    built = build(name, files, progress=lambda *call: calls.append(call))
    read = Manifest.read(files / f"{name}.csv")
    assert (read.name, read.clips, read.root) == (name, built.clips, files)
    assert calls == [(len(built), len(built))]
    assert len(built.domains) in (2, 3)
    before = (files / f"{name}.csv").read_bytes()
    assert build(name, files).sha256 == built.sha256
    assert (files / f"{name}.csv").read_bytes() == before


def test_sources_stay_where_they_are_wherever_the_folder_is(name, files, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    WRITERS[name](other)
    assert build(name, other).clips == build(name, files).clips
    for clip in build(name, files):
        assert not clip.source.startswith("/")
        assert not set("*?\\ ") & set(clip.source)


LISTED = [name for name in WRITERS if name != "cogbeacon"]  # its clips are the files and lines that there are


@pytest.mark.parametrize("name", LISTED)
def test_each_missing_file_is_named_with_where_to_get_it(name, files, tmp_path_factory):
    for path in sorted(p for p in files.rglob("*") if p.is_file()):
        less = tmp_path_factory.mktemp("less")
        shutil.copytree(files, less, dirs_exist_ok=True)
        (less / path.relative_to(files)).unlink()
        with pytest.raises(ManifestError, match=rf"no .*{re.escape(path.stem)}.* in {less}; get it from .*github.com"):
            build(name, less)
        assert not (less / f"{name}.csv").exists()


def test_a_folder_without_any_file_is_an_error(name, tmp_path):
    with pytest.raises(ManifestError, match=str(tmp_path)):
        build(name, tmp_path / "nothing")


def test_numbers_that_are_not_the_published_ones_are_warnings(name, files):
    with pytest.warns(UserWarning, match=f"^{name}: ") as said:
        built = builders.load(name).build(files)
    texts = [str(warning.message) for warning in said]
    for domain, (train, test) in PUBLISHED.get(name, {}).items():
        for split, published, found in zip(("train", "test"), (train, test), sizes(built)[domain], strict=True):
            difference = rf"{name}: {domain} {split} has {found} clips\D+{published}"
            assert any(re.fullmatch(difference, text) for text in texts)
    assert len(texts) == {"epic100_uda": 4, "cogbeacon": 3, "synrod": 1}.get(name, 2 * len(built.domains))


def test_the_command_says_what_differs_and_prints_the_manifest(name, files):
    from click.testing import CliRunner

    result = CliRunner().invoke(main, ["manifest", "build", name, str(files)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{files / f'{name}.csv'}\n"
    assert f"Warning: {name}: " in result.stderr
    assert "UserWarning" not in result.stderr


def test_the_card_names_the_benchmark_its_domains_and_its_files(name, files):
    card = (ROOT / "data_manifests" / f"{name}.md").read_text()
    built = build(name, files)
    assert card.startswith(f"# {name}\n")
    assert f"featcache manifest build {name} " in card
    for domain in built.domains:
        assert f"`{domain}`" in card
    for train, test in PUBLISHED.get(name, {}).values():
        assert f"{train} + {test}" in card
    for word in ("licence", "source"):
        assert word in card.lower()


@pytest.mark.parametrize("name", LISTED)
def test_a_clip_that_stands_twice_is_an_error(name, files):
    path = sorted(files.rglob("*train*"))[0]
    path.write_text(path.read_text() + path.read_text().splitlines()[-1] + "\n")
    with pytest.raises(ManifestError, match="clip '.*more than once"):
        build(name, files)


# EPIC-KITCHENS


def test_epic8_has_the_kitchens_seconds_and_verbs_of_mmsada(tmp_path):
    epic8(tmp_path)
    built = build("epic8", tmp_path)
    first = built.clips[0]
    assert (first.clip_id, first.domain, first.split, first.caption) == ("11", "D1", "train", "get the cup")
    assert (first.source, first.unit, first.start, first.stop) == ("P08/videos/P08_02.MP4", "seconds", 4.09, 64.37)
    assert [clip.labels["label"] for clip in built.clips[:3]] == ["take", "pour", "close"]
    assert {clip.domain: clip.source[:3] for clip in built} == {"D1": "P08", "D2": "P01", "D3": "P22"}


def test_the_narrations_lose_their_verb_and_nothing_else(tmp_path):
    epic8(tmp_path)
    full, cut = build("epic8", tmp_path), build("epic8_narrations", tmp_path)
    assert {clip.caption for clip in full} == {"get the cup"}
    assert {clip.caption for clip in cut} == {"the cup"}
    assert [dataclasses.replace(clip, caption="") for clip in cut] == [
        dataclasses.replace(clip, caption="") for clip in full
    ]


def test_the_relabelled_profile_has_the_same_clips_and_swaps_two_names(tmp_path):
    epic8(tmp_path)
    plain, swapped = build("epic8", tmp_path), build("epic8_mtran", tmp_path)
    names = {"D1": "D2", "D2": "D1", "D3": "D3"}
    assert {clip.clip_id: clip.domain for clip in swapped} == {clip.clip_id: names[clip.domain] for clip in plain}
    assert {clip.clip_id: clip.identity() for clip in swapped} == {clip.clip_id: clip.identity() for clip in plain}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",verb_class", ",class", r"D2_train.csv has no column verb_class; it has: uid, .*, verb, class"),
        ("uid,", "id,", r"D2_train.csv has no column uid"),
        ("get,7", "get,8", r"D2_train.csv row 2: '8' .*class.*: 0, 1, 2, 3, 4, 5, 6, 7"),
        ("get,7", "get,", r"D2_train.csv row 2: verb_class is empty"),
        ("get,7", "get,7,7", r"D2_train.csv row 2 has more cells"),
        ("00:01:04.37", "64.37", r"D2_train.csv row 1: '64.37' .*time such as 00:01:02.50"),
        ("00:01:04.37", "00:00:04.09", r"clip '21' starts at 4.09 and stops at 4.09 seconds"),
        ("P01,P01_02", "P08,P08_02", r"D2_train.csv row 1: a clip of P08 .*in the list of P01"),
        ("get the", '"get the', r"D2_train.csv is not CSV"),
        ("the cup", "\N{SNOWMAN}".encode("utf-16").decode("latin-1"), r"D2_train.csv is not CSV in UTF-8"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(tmp_path, old, new, said):
    epic8(tmp_path)
    path = tmp_path / "D2_train.csv"
    path.write_bytes(path.read_text().replace(old, new).encode("latin-1"))
    with pytest.raises(ManifestError, match=said):
        build("epic8", tmp_path)
    assert not (tmp_path / "epic8.csv").exists()


def test_files_with_a_header_alone_are_errors(tmp_path):
    epic8(tmp_path)
    write(tmp_path / "D3_test.csv", MMSADA)
    with pytest.raises(ManifestError, match=r"D3_test.csv has no column .*; it has: no rows"):
        build("epic8", tmp_path)


def test_epic100_has_verbs_nouns_and_a_target_without_labels_to_train_on(tmp_path):
    epic100_uda(tmp_path)
    built = build("epic100_uda", tmp_path)
    found = {(clip.domain, clip.split): clip for clip in built}
    assert set(found) == {("source", "train"), ("source", "val"), ("target", "train"), ("target", "val")}
    hidden = found.pop(("target", "train"))
    assert (hidden.labels, hidden.caption, hidden.source) == ({}, "", "P01/videos/P01_102.MP4")
    assert (hidden.clip_id, hidden.start, hidden.stop) == ("P01_102_0", 0.54, 2.23)
    for clip in found.values():
        assert (clip.labels, clip.caption) == ({"verb": "put", "noun": "cup:paper"}, "put cup, tap")


def test_epic100_takes_the_hidden_test_where_it_is_there(tmp_path):
    epic100_uda(tmp_path)
    start = "P02_09_0,P02,P02_09,00:00:01.100,00:00:00.54,00:00:02.23,27,111"
    write(tmp_path / "EPIC_100_uda_target_test_timestamps.csv", TIMES, start)
    (clip,) = build("epic100_uda", tmp_path).select(domain="target", split="test")
    assert (clip.clip_id, clip.labels) == ("P02_09_0", {})


def test_epic100_needs_labels_where_the_challenge_has_them(tmp_path):
    epic100_uda(tmp_path)
    shutil.copy(tmp_path / "EPIC_100_uda_target_train_timestamps.csv", tmp_path / "EPIC_100_uda_target_val.csv")
    with pytest.raises(ManifestError, match=r"target_val.csv has no column narration, verb_class, noun_class"):
        build("epic100_uda", tmp_path)


# Pickled tables


def old_pandas(monkeypatch):
    """The classes whose pickles pandas 0.20 to 1.2 wrote; a table of columns is made of them."""

    class DataFrame:
        def __init__(self, manager, name):
            self.__dict__.update({name: manager, "_typ": "dataframe", "_metadata": []})

    class BlockManager:
        def __init__(self, axes, blocks):
            self.axes, self.blocks = axes, blocks

        def __getstate__(self):
            values = [block["values"] for block in self.blocks]
            return self.axes, values, [], {"0.14.1": {"axes": self.axes, "blocks": self.blocks}}

    class Index:
        def __init__(self, state):
            self.state = state

        def __reduce__(self):
            return _new_Index, (type(self), self.state)

    class RangeIndex(Index):
        pass

    def _new_Index(kind, state):
        return kind(state)

    for module, *parts in (
        ("pandas.core.frame", DataFrame),
        ("pandas.core.internals.managers", BlockManager),
        ("pandas.core.indexes.base", Index, _new_Index),
        ("pandas.core.indexes.range", RangeIndex),
    ):
        fake = ModuleType(module)
        for part in parts:
            part.__module__, part.__qualname__ = module, part.__name__
            setattr(fake, part.__name__, part)
        monkeypatch.setitem(sys.modules, module, fake)

    def table(columns, index=None, attribute="_data"):
        kinds = {True: [n for n in columns if isinstance(columns[n][0], int)], False: None}
        kinds[False] = [n for n in columns if n not in kinds[True]]
        places, blocks = list(columns), []
        for whole, names in kinds.items():
            values = np.empty((len(names), len(columns[names[0]])), np.int64 if whole else object)
            for row, n in zip(values, names, strict=True):
                row[:] = columns[n]
            where = np.array([places.index(n) for n in names])
            blocks.append({"values": values, "mgr_locs": where if whole else slice(where[0], where[-1] + 1, 1)})
        rows = len(next(iter(columns.values())))
        labels = {"start": 0, "stop": rows, "step": 1, "name": None}
        axes = [
            Index({"data": np.array(places, object), "name": None}),
            RangeIndex(labels) if index is None else Index({"data": np.array(index[1]), "name": index[0]}),
        ]
        return DataFrame(BlockManager(axes, blocks), attribute)

    return table


COLUMNS = {"video": ["a", "b,\n"], "narration": ["get", "\N{SNOWMAN}"], "frame": [3, 2**40], "verb_class": [0, 7]}
AS_TEXT = [
    {"video": "a", "narration": "get", "frame": "3", "verb_class": "0"},
    {"video": "b,\n", "narration": "\N{SNOWMAN}", "frame": str(2**40), "verb_class": "7"},
]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("attribute", ["_data", "_mgr"])
@pytest.mark.parametrize("index", [None, ("uid", [5, 9])])
def test_tables_of_old_pandas_are_read(tmp_path, monkeypatch, protocol, attribute, index):
    with monkeypatch.context() as patch:
        data = pickle.dumps(old_pandas(patch)(COLUMNS, index, attribute), protocol)
    (tmp_path / "t.pkl").write_bytes(data)
    ids = [{}, {}] if index is None else [{"uid": "5"}, {"uid": "9"}]
    assert frames.rows(tmp_path / "t.pkl") == [{**a, **b} for a, b in zip(ids, AS_TEXT, strict=True)]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tables_of_this_pandas_are_read_where_text_is_plain(tmp_path, protocol):
    frame = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in COLUMNS.items()})
    frame["frame"] = frame["frame"].astype(int)
    frame.columns = pd.Index(list(frame.columns), dtype=object)
    frame.index = pd.Index(["x", "y"], dtype=object, name="narration_id")
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(frame, protocol))
    rows = frames.rows(tmp_path / "t.pkl")
    assert rows == [{"narration_id": i, **row} for i, row in zip("xy", AS_TEXT, strict=True)]
    assert next(iter(rows[0])) == "narration_id"


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_text_and_categories_of_this_pandas_are_read(tmp_path, protocol):
    """Arrow's text, the default of pandas 3 where pyarrow is installed, in parts and with gaps; text of Python."""
    first, second = (pd.DataFrame({"verb": words, "noun": pd.Categorical(words)}) for words in (["cut", "zé"], ["cut"]))
    frame = pd.concat([first, second], ignore_index=True)
    frame["noun"] = pd.Categorical(["pan", None, "lid"])
    frame["old"] = pd.array(["x", "y", "z"], dtype=pd.StringDtype("python"))
    frame["gap"] = pd.array(["left", None, "right"], dtype="str")
    frame.index = pd.Index(["a", "b", "c"], name="uid")
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(frame[1:], protocol))  # a slice: not all bytes are its own
    assert frames.rows(tmp_path / "t.pkl") == [
        {"uid": "b", "verb": "zé", "noun": "", "old": "y", "gap": ""},
        {"uid": "c", "verb": "cut", "noun": "lid", "old": "z", "gap": "right"},
    ]


def test_a_few_bytes_of_text_do_not_become_many():
    """Arrow's buffers may lie: texts outside of their bytes, and one buffer that many columns share."""
    buffer = b"x" * 4096
    for length, ends in ((10**12, b"\0" * 8), (1, b"\0" * 8 + (5000).to_bytes(8, "little"))):
        with pytest.raises(ValueError, match="outside of their bytes"):
            frames._arrow_text(("large_string", length, 0, 0, [None, ends, buffer]))
    text = frames._arrow_text(("large_string", 1, 0, 0, [None, b"\0" * 8 + (4096).to_bytes(8, "little"), buffer]))
    with pytest.raises(FormatError, match="FEATCACHE_MAX_GROWTH"):
        frames._values([text] * 20_000, Allowance(100, "t.pkl"))
    with pytest.raises(ValueError, match="instead of bytes"):
        frames.MAKERS["pyarrow.lib", "py_buffer"](10**12)


def test_lists_in_a_pickled_table_are_left_out(tmp_path, monkeypatch):
    """A list of lists of lists is short in a pickle, and endless as text."""
    nested = ["x"]
    for _ in range(64):
        nested = [nested, nested]
    cells = np.empty(2, object)
    cells[:] = [nested, "plain"]
    with monkeypatch.context() as patch:
        data = pickle.dumps(old_pandas(patch)({"all_nouns": cells, "verb_class": [0, 7]}), 4)
    (tmp_path / "t.pkl").write_bytes(data)
    rows = frames.rows(tmp_path / "t.pkl")
    assert rows == [{"all_nouns": "", "verb_class": "0"}, {"all_nouns": "plain", "verb_class": "7"}]


def test_a_builder_reads_pickles_as_it_reads_csv(tmp_path, monkeypatch):
    epic8(tmp_path)
    expected = build("epic8", tmp_path).clips
    with monkeypatch.context() as patch:
        table = old_pandas(patch)
        for path in tmp_path.glob("D*.csv"):
            rows = _annotations.table(path, ())
            columns = {name: [row[name] for row in rows] for name in rows[0] if name != "uid"}
            columns["verb_class"] = [int(cell) for cell in columns["verb_class"]]
            data = pickle.dumps(table(columns, ("uid", [int(row["uid"]) for row in rows])), 4)
            path.with_suffix(".pkl").write_bytes(data)
            path.unlink()
    assert build("epic8", tmp_path).clips == expected


class Evil:
    """Asks for a call."""

    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "content",
    [
        Evil((print, ("called",))),
        Evil((pd.read_csv, ("/etc/passwd",))),
        [Evil((pd.eval, ("1",)))],
        Evil((pd.DataFrame, ({},))),
        pd.DataFrame({"a": [1]}).index,
        pd.DataFrame({"when": pd.to_datetime(["2020-01-01"])}),
        {"a": [1]},
        [1, 2],
        slice(0, 1),
    ],
    ids=lambda content: type(content).__name__,
)
def test_pickles_of_other_things_are_refused_and_nothing_is_called(tmp_path, capsys, content):
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(FormatError, match=str(tmp_path / "t.pkl")):
        frames.rows(tmp_path / "t.pkl")
    assert capsys.readouterr().out == ""


def test_a_torn_pickle_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        data = pickle.dumps(old_pandas(patch)(COLUMNS), 4)
    for length in range(0, len(data), 7):
        (tmp_path / "t.pkl").write_bytes(data[:length])
        with pytest.raises(FeatcacheError, match="t.pkl"):
            frames.rows(tmp_path / "t.pkl")


# UCF101, HMDB51, Olympic Sports


def test_the_three_kinds_of_lists_give_the_same_clips(tmp_path):
    name = "Goal_1_&_(2)_kick_ball_f"  # TA3N's lists leave out what shells do not like
    videos = {"ucf101": ("v_SoccerPenalty_g01_c02", "SoccerPenalty"), "hmdb51": (name, "kick_ball")}
    found = []
    for kind in ("pair", "other", "da"):
        folder = tmp_path / kind
        for (here, (video, home)), other in zip(videos.items(), ("hmdb51", "ucf101"), strict=True):
            for k, part in enumerate(("train", "val")):
                plain = f"{video}{k}".translate(str.maketrans("", "", "&()"))
                if kind == "pair":
                    write(folder / f"list_{here}_{part}_hmdb_ucf-feature.txt", f"data/RGB-Feature/{plain}/ 39 3")
                elif kind == "other":
                    write(folder / f"list_{here}_{part}_{other}-feature.txt", f"{plain} 39 3")
                else:
                    write(folder / f"{here}_{other}_{part}_da.txt", f"0\t3\t{home}/{video}{k}.avi")
        found.append(build("ucf_hmdb", folder))
    ids = [[(c.clip_id, c.domain, c.split, c.labels) for c in manifest] for manifest in found]
    assert ids[0] == ids[1] == ids[2]
    assert [c.split for c in found[0]] == ["train", "test", "train", "test"]
    assert found[2].clips[2].source == f"hmdb51/kick_ball/{name}0.avi"
    assert found[0].clips[0].source == "ucf101/SoccerPenalty/v_SoccerPenalty_g01_c020.avi"


def test_the_small_pair_is_five_classes_of_the_full_one(tmp_path):
    WRITERS["ucf_hmdb"](tmp_path)
    full, small = build("ucf_hmdb", tmp_path), build("ucf_hmdb_small", tmp_path)
    kept = set(CLASSES["hmdb_ucf_small"].values())
    assert small.clips == tuple(clip for clip in full if clip.labels["label"] in kept)
    assert set(small.classes["label"]) == kept
    (tmp_path / "own").mkdir()
    WRITERS["ucf_hmdb_small"](tmp_path / "own")
    assert [c.labels["label"] for c in build("ucf_hmdb_small", tmp_path / "own")][:5] == sorted(kept)


def test_a_list_with_another_number_of_columns_or_classes_is_an_error(tmp_path):
    WRITERS["ucf_olympic"](tmp_path)
    path = tmp_path / "list_olympic_val_ucf_olympic-feature.txt"
    write(path, "v_Diving_g01 83")
    with pytest.raises(ManifestError, match=r"feature.txt line 1: 'v_Diving_g01 83' has 2 words; 3 are expected"):
        build("ucf_olympic", tmp_path)
    write(path, "", "v_Diving_g01 83 6")
    with pytest.raises(ManifestError, match=r"line 1: '6' .*class.*: 0, 1, 2, 3, 4, 5"):
        build("ucf_olympic", tmp_path)


def test_olympic_videos_lie_in_the_folders_of_their_own_data_set(tmp_path):
    WRITERS["ucf_olympic"](tmp_path)
    for clip in build("ucf_olympic", tmp_path).select(domain="olympic"):
        assert clip.source == f"olympic/{OLYMPIC[clip.labels['label']]}/{clip.clip_id}.avi"


# CogBeacon, SynROD


def test_cogbeacon_knows_its_versions_and_who_is_tired(tmp_path):
    cogbeacon(tmp_path)
    write(tmp_path / "fatigue_self_report" / "notes.csv", 7)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        built = builders.load("cogbeacon").build(tmp_path)
    assert re.search("notes.csv .*user_0_v_m.csv", str(said[0].message))
    versions = {clip.clip_id.split("/")[0]: clip.domain for clip in built}
    assert versions == {"user_0_v_m": "V1", "user_0b_t_m": "V2", "user_10_a_o": "V3", "user_10b_v_o": "V3"}
    first = built.clips[:5]
    assert [clip.labels["label"] for clip in first] == ["no fatigue"] * 2 + ["fatigue"] * 3
    assert (first[2].clip_id, first[2].source) == ("user_0_v_m/3", "rounds/user_0_v_m/3.npz")
    assert {clip.split for clip in built} == {"train"}


@pytest.mark.parametrize("cell", ["often", "1,2", "1 2", "inf"])
def test_a_report_that_is_no_number_is_an_error(tmp_path, cell):
    write(tmp_path / "fatigue_self_report" / "user_3_v_o.csv", 0, cell)
    with pytest.raises(ManifestError, match=r"user_3_v_o.csv line 2: "):
        build("cogbeacon", tmp_path)


def test_rod_gives_the_classes_their_names(tmp_path):
    synrod(tmp_path)
    built = build("synrod", tmp_path)
    found = [(c.clip_id, c.split, c.labels["label"], c.source) for c in built]
    assert found == [
        ("synrod/apple/apple_1", "train", "apple", "synROD/apple/apple_1_rgb.png"),
        ("synrod/ball/ball_1", "train", "ball", "synROD/ball/ball_1_rgb.png"),
        ("synrod/ball/ball_2", "test", "ball", "synROD/ball/ball_2_rgb.png"),
        ("rod/apple/apple_1/apple_1_1_1", "train", "apple", "ROD/rgb-washington/apple/apple_1/apple_1_1_1_crop.png"),
        ("rod/ball/ball_1/ball_1_1_1", "train", "ball", "ROD/rgb-washington/ball/ball_1/ball_1_1_1_crop.png"),
    ]
    path = tmp_path / "ROD/wrgbd_40k-split_sync.txt"
    write(path, *(f"???-washington/{line}" for line in path.read_text().splitlines()))
    assert build("synrod", tmp_path).clips == built.clips
    write(path, "apple/a_***.png 0", "ball/b_***.png 0")
    with pytest.raises(ManifestError, match="class 0 of ROD is 'apple' and 'ball'"):
        build("synrod", tmp_path)


# The real files


@pytest.fixture
def official(realdata, tmp_path):
    """The annotation files under their official names."""
    for path in (realdata / "epic_annotations").glob("mmsada_*.csv"):
        shutil.copy(path, tmp_path / path.name.removeprefix("mmsada_"))
    for path in (realdata / "epic_annotations" / "ek100").glob("*.csv.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    for path in (realdata / "ucf_hmdb_splits").glob("*.txt"):
        shutil.copy(path, tmp_path / path.name.removeprefix("siarohin_"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.realdata
def test_the_real_files_have_the_published_numbers(official):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built = {name: builders.load(name).build(official) for name in [*PUBLISHED, "epic100_uda"]}
    for name, published in PUBLISHED.items():
        assert sizes(built[name]) == published
        classes = built[name].classes["label"]
        for domain in built[name].domains:
            for split in ("train", "test"):
                part = built[name].select(domain=domain, split=split)
                assert part.classes["label"] == classes
    epic8 = built["epic8"]
    verbs = [clip.labels["label"] for clip in epic8.select(domain="D1", split="train")]
    counts = {"take": 421, "put": 383, "open": 231, "close": 128, "wash": 223, "cut": 71, "mix": 42, "pour": 44}
    assert {verb: verbs.count(verb) for verb in verbs} == counts
    epic100 = built["epic100_uda"]
    count = {(d, s): len(epic100.rows(domain=d, split=s)) for d in epic100.domains for s in ("train", "val", "test")}
    assert (count["source", "train"], count["target", "train"]) == (16115, 26115)
    assert (count["source", "val"], count["target", "val"]) == (5002, 7906)
    source = epic100.select(domain="source", split="train").classes
    assert (len(source["verb"]), len(source["noun"])) == (86, 219)
    for split, labelled in (("train", False), ("val", True), ("test", False)):
        assert all(bool(clip.labels) == labelled for clip in epic100.select(domain="target", split=split))


@pytest.mark.realdata
def test_both_real_kinds_of_lists_name_the_same_clips(official):
    first = build("ucf_hmdb", official)
    for path in official.glob("list_*hmdb51*"):
        path.unlink()
    second = build("ucf_hmdb", official)
    assert [(c.clip_id, c.labels) for c in first] == [(c.clip_id, c.labels) for c in second]
    assert sum(a.source != b.source for a, b in zip(first, second, strict=True)) == 82  # letters that are left out


# Cards


@pytest.mark.parametrize("name", builders.names())
def test_every_builder_has_a_card(name):
    assert (ROOT / "data_manifests" / f"{name}.md").read_text().startswith(f"# {name}\n")


# ActionSense


def test_actionsense_keeps_the_clips_of_an_action_in_one_split(tmp_path):
    actionsense(tmp_path)
    built = build("actionsense", tmp_path)
    assert [clip.split for clip in built] == ["train", "test", "test", "train", "train"]
    assert [clip.labels["label"] for clip in built] == ["cut"] * 4 + ["peel"]
    assert [(clip.start, clip.stop, clip.unit) for clip in built][1:3] == [(10, 20, "frames"), (20, 30, "frames")]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("right", np.zeros((49, 8)), "left and right must have .*\\b50\\b"),
        ("label", np.zeros(4, int), "label and action_id must .*, and offset one"),
        ("label", np.full(5, 2), "label must be from 0 to 1"),
        ("action_id", None, "has no array action_id"),
    ],
)
def test_arrays_that_do_not_fit_are_errors(tmp_path, name, value, said):
    actionsense(tmp_path)
    path = tmp_path / "emg_all_subjects.npz"
    with np.load(path) as file:
        arrays = dict(file)
    arrays[name] = value
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(ManifestError, match=said):
        build("actionsense", tmp_path)


def test_the_file_of_actionsense_is_named_where_it_is_missing(tmp_path):
    with pytest.raises(ManifestError, match=r"no emg_all_subjects.npz in .*; data_manifests/actionsense.md"):
        build("actionsense", tmp_path)


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "changed", "changed, compressed"])
def test_a_damaged_npz_file_is_named(tmp_path, damage):
    path = tmp_path / "a.npz"
    save = np.savez_compressed if "compressed" in damage else np.savez
    save(path, x=np.random.default_rng(0).integers(9, size=400))
    whole = path.read_bytes()
    assert _annotations.npz_arrays(path, ["x"])["x"].shape == (400,)
    middle = len(whole) // 2
    as_bytes = {"text": b"no archive", "empty": b"", "cut": whole[:middle]}
    path.write_bytes(as_bytes.get(damage, whole[:middle] + bytes(50) + whole[middle + 50 :]))
    with pytest.raises(ManifestError, match="a.npz .*npz file of plain arrays"):
        _annotations.npz_arrays(path, ["x"])
