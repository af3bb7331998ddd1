"""`featcache manifest from-csv`: tables of every format become the same manifest, and mistakes are one sentence."""

import datetime
import decimal
import json
import os
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from featcache import FeatureStore, Manifest, budget, table_files
from featcache.checking import problems
from featcache.clip_tables import from_csv
from featcache.errors import ArgumentsError, ConfigError, FeatcacheError, FormatError, ManifestError
from featcache.extractors import Extractor, completes
from featcache.importing import import_features
from featcache.scanning import scan
from featcache.windows import Caption, Plan
from pipelines.cli import main
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors

FRAME = pd.DataFrame(
    {
        "video": ["v1", "v2", "ü3"],
        "action": ["cut", "pour", None],
        "camera": ["left", "right", "left"],
        "part": ["train", "Validation", "testing"],
        "number": [1.0, np.nan, 3.0],
    }
)
WORDS = {"clip_id": "video", "label": "action", "domain": "camera", "split": "part"}
EXPECTED = [
    ("v1", "left", "train", {"label": "cut"}),
    ("v2", "right", "val", {"label": "pour"}),
    ("ü3", "left", "test", {}),
]


def make(path, **words):
    """The manifest of a table; it is written where its sources start."""
    home = Path(words.get("media") or path.parent)
    return from_csv(path, **{"out": home / "made.csv", "overwrite": True, **words})


def clips(path, **words):
    """The fields of the clips of a table."""
    return [(clip.clip_id, clip.domain, clip.split, clip.labels) for clip in make(path, **{**WORDS, **words})]


def text_of(frame, separator=","):
    return frame.to_csv(index=False, sep=separator)


def objects():
    """The columns of text, with None where there is none."""
    text = FRAME[["video", "action", "camera", "part"]].astype(object)
    return text.where(text.notna(), None).to_numpy()


def write_fixed(path, texts):
    """A frame as `to_hdf` writes it: blocks of columns, the texts pickled inside a list of bytes."""
    with h5py.File(path, "w") as file:
        group = file.create_group("labels")
        names = [name for name in FRAME.columns if name != "number"]
        group["axis0"] = np.array([*names, "number"], "S")
        group["axis1"] = np.arange(len(FRAME))
        group["axis1"].attrs["name"] = np.bytes_(b"N.")
        group["block0_items"] = np.array(names, "S")
        kind = h5py.vlen_dtype(np.uint8)
        group.create_dataset("block0_values", (1,), kind)[0] = np.frombuffer(pickle.dumps(texts), np.uint8)
        group["block1_items"] = np.array(["number"], "S")
        group["block1_values"] = FRAME[["number"]].to_numpy()


def write_table(path, coded=False):
    """A frame as `to_hdf(format="table")` writes it: one data set of named fields, whose columns attributes name.

    coded: the actions are categories, and there are columns of dates and truth values.
    """
    names = ["video", "action", "camera", "part"]
    fields = [("index", "<i8"), ("values_block_0", "<f8", (1,)), ("values_block_1", "S16", (4,))]
    fields += [("values_block_2", "i1", (1,)), ("values_block_3", "<i8", (1,)), ("values_block_4", "u1", (1,))]
    rows = np.zeros(len(FRAME), fields[: 6 if coded else 3])
    rows["values_block_0"] = FRAME[["number"]]
    rows["values_block_1"] = [[("nan" if c is None else c).encode() for c in row] for row in objects()]
    kinds = {"values_block_0": ["number"], "values_block_1": names}
    with h5py.File(path, "w") as file:
        if coded:
            kinds["values_block_1"] = ["video", "left", "camera", "part"]
            kinds |= {"values_block_2": ["action"], "values_block_3": ["day"], "values_block_4": ["good"]}
            rows["values_block_2"] = [[0], [1], [-1]]
            rows["values_block_3"] = [[1580428800000], [0], [np.iinfo("i8").min]]
            rows["values_block_4"] = [[1], [0], [1]]
            labels = file.create_dataset("labels/meta/values_block_2/meta/table", data=as_records(["cut", "pour"]))
            labels.attrs["values_kind"] = np.bytes_(pickle.dumps(["values"], 0))
        table = file.create_dataset("labels/table", data=rows)
        table.attrs["index_kind"] = np.bytes_(b"integer")
        for field, columns in kinds.items():
            table.attrs[f"{field}_kind"] = np.bytes_(pickle.dumps(columns, 0))
        if coded:
            table.attrs["values_block_2_meta"] = np.bytes_(b"category")
            table.attrs["values_block_3_dtype"] = np.bytes_(b"datetime64[ms]")
            table.attrs["values_block_4_dtype"] = np.bytes_(b"bool")


def as_records(texts):
    return np.array([(k, text.encode()) for k, text in enumerate(texts)], [("index", "<i8"), ("values", "S8")])


def write_columns(path):
    with h5py.File(path, "w") as file:
        for name in FRAME.columns:
            file[name] = FRAME[name] if name == "number" else FRAME[name].fillna("").tolist()


def records():
    return json.loads(FRAME.to_json(orient="records"))


FORMATS = {
    "t.csv": lambda path: path.write_text(text_of(FRAME)),
    "bom.csv": lambda path: path.write_text("\ufeff" + text_of(FRAME), encoding="utf-8"),
    "semicolons.csv": lambda path: path.write_text(text_of(FRAME, ";")),
    "t.tsv": lambda path: path.write_text(text_of(FRAME, "\t")),
    "t.jsonl": lambda path: path.write_text("\n".join(map(json.dumps, records()))),
    "t.json": lambda path: path.write_text(json.dumps(records(), indent=1)),
    "columns.json": lambda path: path.write_text(json.dumps({name: [r[name] for r in records()] for name in FRAME})),
    "keyed.json": lambda path: path.write_text(json.dumps({r["video"]: r for r in records()}, indent=1)),
    "blanks.csv": lambda path: path.write_text(text_of(FRAME).replace(",", ", ").replace("\n", "\r\n")),
    "t.parquet": lambda path: FRAME.to_parquet(path),
    "t.pkl": lambda path: FRAME.to_pickle(path),
    "categories.pkl": lambda path: FRAME.astype({"action": "category"}).to_pickle(path),
    "columns.pkl": lambda path: path.write_bytes(pickle.dumps({**FRAME.to_dict("list"), "boxes": [[1], [2], [3]]})),
    "rows.pkl": lambda path: path.write_bytes(pickle.dumps(records())),
    "columns.h5": write_columns,
    "table.h5": write_table,
    "fixed.h5": lambda path: write_fixed(path, objects()),
    "coded.h5": lambda path: write_table(path, coded=True),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_clips(tmp_path, name):
    FORMATS[name](tmp_path / name)
    assert clips(tmp_path / name) == EXPECTED
    assert table_files.read(tmp_path / name)["number"] == (
        ["1.0", "", "3.0"] if name.endswith("sv") else ["1", "", "3"]
    )


def test_dates_and_truth_values_that_pandas_stores_as_numbers(tmp_path):
    write_table(tmp_path / "t.h5", coded=True)
    table = table_files.read(tmp_path / "t.h5")
    assert table["day"] == ["2020-01-31T00:00:00", "1970-01-01T00:00:00", ""]
    assert table["good"] == ["True", "False", "True"]


DAY = datetime.datetime(2020, 1, 31, 10)
BERLIN = pa.timestamp("us", "Europe/Berlin")
CELLS = {  # values -> their text, or a word of the type of a column that is left out
    "day": (pa.array([DAY.date(), None]), ["2020-01-31", ""]),
    "moment": (pa.array([DAY, None]), ["2020-01-31T10:00:00", ""]),
    "moment in ns": (pa.array([DAY, None], pa.timestamp("ns", "+01:00")), ["2020-01-31T11:00:00+01:00", ""]),
    "moment with zone": (pa.array([DAY, None], BERLIN), ["2020-01-31T11:00:00+01:00", ""]),
    "unknown zone": (pa.array([DAY, None], pa.timestamp("us", "Mars/Base")), "Mars"),
    "decimal": (pa.array([decimal.Decimal("1.50"), None]), ["1.5", ""]),
    "bytes": (pa.array(["ü".encode(), None]), ["ü", ""]),
    "no text": (pa.array([b"a", b"\xff"]), "UTF-8"),
    "views": (pa.array(["ü", None], pa.string_view()), ["ü", ""]),
    "categories": (pa.array(["b", None]).dictionary_encode(), ["b", ""]),
    "numbers": (pa.array([5, None]).dictionary_encode(), ["5", ""]),
    "categories of bytes": (pa.array([b"b", None]).dictionary_encode(), ["b", ""]),
    "categories of dates": (pa.array([DAY, None]).dictionary_encode(), ["2020-01-31T10:00:00", ""]),
    "duration": (pa.array([-10, 3_600_000], pa.duration("ms")), ["-0:00:00.010000", "1:00:00.000000"]),
    "lists": (pa.array([[1], [2]]), "list"),
    "objects": (pa.array([{"x": 1}, {"x": 2}]), "struct"),
    "file": (pa.array([{"path": "a.mp4", "bytes": b""}, None]), ["a.mp4", ""]),
    "maps": (pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())), "map"),
    "none": (pa.nulls(2), ["", ""]),
}


def write_arrow(folder, table):
    folder.mkdir(exist_ok=True)
    with pa.ipc.new_stream(folder / "data.arrow", table.schema) as file:
        file.write_table(table)


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("kind", CELLS)
def test_a_column_of_arrow_is_text_or_is_named_with_its_type(tmp_path, kind, format):
    values, expected = CELLS[kind]
    table, path = pa.table({"id": ["a", "b"], "x": values}), tmp_path / ("t.parquet" if format == "parquet" else "set")
    (pq.write_table(table, path) if format == "parquet" else write_arrow(path, table))
    read = table_files.read(path)
    if isinstance(expected, list):
        assert (read["x"], read.left_out) == (expected, {})
        return
    with pytest.raises(ManifestError, match=f"column 'x' holds .*{expected}"):
        make(path, clip_id="id", label="x", out=tmp_path / "m.csv")
    assert len(make(path, clip_id="id", out=tmp_path / "m.csv")) == 2


@pytest.mark.parametrize("orient", ["columns", "records", "index", "split", "table"])
def test_json_of_pandas_is_read_in_each_orientation(tmp_path, orient):
    FRAME.to_json(tmp_path / "t.json", orient=orient)
    assert clips(tmp_path / "t.json") == EXPECTED
    FRAME[1:].to_json(tmp_path / "t.json", orient=orient)  # its rows are 1 and 2
    assert clips(tmp_path / "t.json") == EXPECTED[1:]
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(FRAME.to_dict()))
    assert clips(tmp_path / "t.pkl") == EXPECTED


def test_json_of_pandas_by_ids_or_without_names_is_one_sentence(tmp_path):
    FRAME.set_index("video").to_json(tmp_path / "t.json")
    with pytest.raises(ManifestError, match=r"column 'action' .*by id.*orient='records'"):
        make(tmp_path / "t.json", clip_id="key", label="action")
    FRAME.to_json(tmp_path / "t.json", orient="values")
    with pytest.raises(FormatError, match="row 1 is a list.*named"):
        table_files.read(tmp_path / "t.json")
    for content in ({"columns": ["a"], "index": [0], "data": [[1, 2]]}, {"schema": {}, "data": 3}):
        (tmp_path / "t.json").write_text(json.dumps(content))
        with pytest.raises(FormatError, match="data"):
            table_files.read(tmp_path / "t.json")


def test_a_pickled_frame_with_dates_is_to_be_saved_as_parquet(tmp_path):
    pd.DataFrame({"id": ["a"], "day": [pd.Timestamp("2020-01-31")]}).to_pickle(tmp_path / "t.pkl")
    with pytest.raises(FormatError, match="DatetimeArray.*Parquet"):
        table_files.read(tmp_path / "t.pkl")


def test_an_arrow_dictionary_may_hold_none(tmp_path):
    values = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["p", None]))
    write_arrow(tmp_path / "set", pa.table({"id": ["a", "b", "c"], "x": values}))
    assert table_files.read(tmp_path / "set")["x"] == ["p", "", "p"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([b"x", "ü".encode()], ["x", "ü"]),
        ((1, 2.0), ["1", "2"]),
        ([{"path": "a"}, None], ["a", ""]),
        (np.array([b"x", b"y"]), ["x", "y"]),
        (np.array(["2020-01-31T10", "NaT"], "M8[ns]"), ["2020-01-31T10:00:00", ""]),
        (np.array(["2020-01-31", "NaT"], ">M8[D]"), ["2020-01-31", ""]),
        (np.array([-10, 3_600_000], "m8[ms]"), ["-0:00:00.010000", "1:00:00.000000"]),
        ([b"\xff", b"y"], "bytes"),
        ([[1], [2]], "lists"),
        ([{"x": 1}, None], "objects"),
        (["a", {1}], "lists"),
        (np.zeros((2, 3)), "arrays"),
        (np.array(3), "array"),
        ("one text", "str"),
        (None, "None"),
    ],
)
@pytest.mark.parametrize("form", ["columns", "rows"])
def test_a_column_of_a_pickle_is_text_or_is_named_with_its_type(tmp_path, values, expected, form):
    columns, path = {"id": ["a", "b"], "x": values}, tmp_path / "t.pkl"
    if form == "rows" and (np.ndim(values) == 0 or isinstance(values, np.ndarray)):
        pytest.skip("no value for each row")
    rows = form == "rows" and [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    path.write_bytes(pickle.dumps(rows or columns))
    if isinstance(expected, list):
        assert table_files.read(path)["x"] == expected
        return
    with pytest.raises(ManifestError, match=f"column 'x' holds .*{expected}"):
        make(path, clip_id="id", label="x")


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 1], h5py.enum_dtype({"cut": 0, "pour": 1}), ["cut", "pour"]),
        (np.array([b"a", "ü".encode()]), None, ["a", "ü"]),
        (np.array([DAY, "NaT"], "M8[ns]").astype(h5py.opaque_dtype("M8[ns]")), None, ["2020-01-31T10:00:00", ""]),
        (np.array([b"a", b"\xff"]), None, "UTF-8"),
        (np.zeros((2, 3)), None, r"\(2, 3\)"),
        (np.zeros(2, [("a", "i4")]), None, "array"),
        (np.zeros(2, complex), None, "complex"),
        (None, None, "a group"),
    ],
)
def test_a_column_of_hdf5_is_text_or_is_named_with_its_type(tmp_path, values, dtype, expected):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["id"] = ["a", "b"]
        file.create_group("x") if values is None else file.create_dataset("x", data=values, dtype=dtype)
    if isinstance(expected, list):
        assert table_files.read(tmp_path / "t.h5")["x"] == expected
        return
    with pytest.raises(ManifestError, match=f"column 'x' holds .*{expected}"):
        make(tmp_path / "t.h5", clip_id="id", label="x")


@pytest.mark.parametrize("size", [0, 8, 1 << 40, 2**64 - 16])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_heap_of_texts_is_an_error_and_no_endless_loop(tmp_path, number, size):
    """libhdf5 never ends at a free rest of size 0; the number of the rest is 0."""
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["id"] = ["a", "b"]
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    place = heap + 16 if number else heap + 16 + 2 * 24  # two texts of 8 bytes, each with a head of 16
    assert data[place] == number
    data[place + 8 : place + 16] = size.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(FormatError, match=r"t.h5 is .*damaged"):
        table_files.read(path)


def write_saved(folder):
    """A data set as `datasets.save_to_disk` writes it: Arrow streams, and numbers of classes."""
    features = {"features": {"action": {"names": ["cut", "pour"], "_type": "ClassLabel"}}}
    metadata = {"huggingface": json.dumps({"info": features})}
    fields = [("video", pa.string()), ("action", pa.int64()), ("camera", pa.string()), ("boxes", pa.list_(pa.int64()))]
    fields.append(("clip", pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    schema = pa.schema(fields, metadata)
    for k, part in enumerate(("train", "validation", "test")):
        row = FRAME.iloc[k]
        cells = {"video": row.video, "action": [0, 1, None][k], "camera": row.camera, "boxes": [1]}
        cells["clip"] = {"bytes": None, "path": f"{row.video}.mp4"}
        (folder / part).mkdir(parents=True)
        with pa.ipc.new_stream(folder / part / "data-00000-of-00001.arrow", schema) as file:
            file.write_table(pa.Table.from_pylist([cells], schema))
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation", "test"]}')


def write_hub(folder):
    """A copy of a repository of the hub: Parquet files named after their split."""
    (folder / "data").mkdir(parents=True)
    for k, part in enumerate(("train", "validation", "test")):
        FRAME[k : k + 1].drop(columns="part").to_parquet(folder / "data" / f"{part}-00000-of-00001.parquet")


def write_media_folder(folder):
    """A folder of videos with a metadata.csv in each split."""
    for k, part in enumerate(("train", "val", "test")):
        (folder / part).mkdir(parents=True)
        rows = FRAME[k : k + 1].drop(columns="part").assign(file_name=f"{FRAME.video[k]}.mp4")
        (folder / part / "metadata.csv").write_text(text_of(rows))
        (folder / part / f"{FRAME.video[k]}.mp4").write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "source"), [(write_saved, "clip"), (write_hub, ""), (write_media_folder, "file_name")]
)
def test_a_data_set_folder_of_hugging_face(tmp_path, write, source):
    """The path of its files is that from the folder, and the split is in their names."""
    write(tmp_path / "set")
    assert sorted(clips(tmp_path / "set", split="split")) == sorted(EXPECTED)
    made = make(tmp_path / "set", **{**WORDS, "split": "split"}, source=source)
    if write is write_media_folder:
        assert all(made.path(clip).is_file() for clip in made)
    elif source:
        assert {clip.source for clip in made} == {"set/v1.mp4", "set/v2.mp4", "set/ü3.mp4"}


def test_several_label_kinds_have_the_names_of_their_columns_or_others(tmp_path):
    (tmp_path / "t.csv").write_text("id,verb,noun_class\n007,cut,3\nb,NA,\n")
    made = make(tmp_path / "t.csv", clip_id="id", label=["verb", "noun=noun_class"], domain_name="P01")
    assert [clip.labels for clip in made] == [{"verb": "cut", "noun": "3"}, {"verb": "NA"}]
    assert (made.clips[0].clip_id, made.domains) == ("007", ("P01",))
    assert made.text.splitlines()[0] == "clip_id,domain,split,source,label:noun,label:verb"
    one = make(tmp_path / "t.csv", clip_id="id", label="action=verb")
    assert (one.classes, one.domains) == ({"action": ("NA", "cut")}, ("t",))


def test_without_splits_a_share_of_each_class_is_the_test_split_as_in_a_scan(tmp_path):
    names = [f"{domain}/{label}/{k}" for domain in "ab" for label in ("cut", "pour") for k in range(4)]
    for name in names:
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / f"{name}.mp4").write_bytes(b"")
    lines = [",".join([name, *name.split("/")[:2]]) for name in names]
    (tmp_path / "t.csv").write_text("\n".join(["path,domain,label", *lines]))
    made = make(tmp_path / "t.csv", clip_id="path", label="label", domain="domain", media=tmp_path / "videos", seed=3)
    found = scan(tmp_path / "videos", "{domain}/{label}/{clip_id}", seed=3).manifest
    assert found.clips[0].clip_id == found.clips[0].source  # no ids of its own: the paths, with endings
    assert [clip.source for clip in made] == [f"{name}.mp4" for name in names]
    assert sum(clip.split == "test" for clip in made) == sum(clip.split == "test" for clip in found) == 4


@pytest.mark.parametrize(
    ("columns", "cells", "words", "expected"),
    [
        ("start_timestamp,stop_timestamp", "00:01:02.50,01:04", {}, (62.5, 64.0, "seconds")),
        ("start_frame,stop_frame", "10,25", {}, (10, 25, "frames")),
        ("begin_sec,end_sec", "0.5,2", {}, (0.5, 2, "seconds")),
        ("start_msec,stopMs", "1000,1500", {}, (1, 1.5, "seconds")),
        ("startms,end_milliseconds", "1000,2500", {}, (1, 2.5, "seconds")),
        ("begin (us),end_seconds", "500000,2", {}, (0.5, 2, "seconds")),
        ("start_minutes,stop_hours", "1.5,0.1", {}, (90, 360, "seconds")),
        ("start_ms,stop_ms", "00:00:01,", {}, (1, None, "seconds")),
        ("start_min,stop_min", "0:30,1:30", {}, (30, 90, "seconds")),
        ("start_samples,stop_samples", "1,2", {"unit": "seconds"}, (1, 2, "seconds")),
        ("begin,end", "1,2", {"unit": "frames"}, (1, 2, "frames")),
        ("begin,end", ",2", {"unit": "seconds"}, (None, 2, "seconds")),
    ],
)
def test_bounds_are_seconds_frames_or_times(tmp_path, columns, cells, words, expected):
    (tmp_path / "t.csv").write_text(f"id,{columns}\na,{cells}\n")
    start, stop = columns.split(",")
    (clip,) = make(tmp_path / "t.csv", clip_id="id", start=start, stop=stop, **words)
    assert (clip.start, clip.stop, clip.unit) == expected


@pytest.mark.parametrize(
    ("columns", "unit", "match"),
    [
        ("start_ms,stop_ms", "seconds", "start_ms is in milliseconds.*seconds is given"),
        ("start_ms,stop_ms", "frames", "start_ms is in milliseconds.*frames is given"),
        ("time_min,time_end_min", None, "time_min is in 'min'.*--unit"),
        ("start_time_ticks,stop_time_ticks", None, "'ticks'"),
        ("start_ms,stop_time", None, "stop_time.*not in its name"),
        ("start_ms,stop_frame", None, "stop_frame"),
    ],
)
def test_another_unit_is_never_taken_as_seconds(tmp_path, columns, unit, match):
    (tmp_path / "t.csv").write_text(f"id,{columns}\na,1000,2000\n")
    start, stop = columns.split(",")
    with pytest.raises(ManifestError, match=match):
        make(tmp_path / "t.csv", clip_id="id", start=start, stop=stop, unit=unit)


def repeated(kind):
    """Content that takes far more room as cells than as a pickle, because it uses one part many times."""
    text, row = "x" * 10_000, {str(k): k for k in range(1000)}
    return {
        "a text in each row": [{"id": str(k), "a": text} for k in range(3000)],
        "a text in each column": {str(k): [text] for k in range(3000)},
        "a row in each row": [row] * 10_000,
        "a row of each id": {str(k): row for k in range(10_000)},
        "a list in each column": {str(k): text_list for text_list in [[1] * 5000] for k in range(2000)},
        "an array in each column": {str(k): array for array in [np.arange(5000)] for k in range(2000)},
        "another name in each row": [{str(k): k} for k in range(4000)],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "a text in each row",
        "a text in each column",
        "a row in each row",
        "a row of each id",
        "a list in each column",
        "an array in each column",
        "another name in each row",
    ],
)
def test_parts_that_a_table_uses_many_times_are_limited(tmp_path, monkeypatch, kind):
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(repeated(kind)))
    monkeypatch.setattr(budget, "SMALL", 1000)
    with pytest.raises(FormatError, match="FEATCACHE_MAX_GROWTH"):
        table_files.read(tmp_path / "t.pkl")


def write_names(path, texts):
    """Numbers of classes, whose names are in the metadata of Hugging Face."""
    names = json.dumps({"info": {"features": {"a": {"names": texts}}}})
    pq.write_table(pa.table({"a": pa.array([0] * 3000)}).replace_schema_metadata({"huggingface": names}), path)


def write_categories(path, texts):
    pd.DataFrame({"a": pd.Categorical(texts * 3000)}).to_pickle(path)


@pytest.mark.parametrize(("write", "name"), [(write_names, "t.parquet"), (write_categories, "t.pkl")])
def test_a_text_that_many_rows_share_is_limited(tmp_path, monkeypatch, write, name):
    write(tmp_path / name, ["x" * 10_000])
    assert (tmp_path / name).stat().st_size < 10_000 * 3000 // budget.GROWTH.default
    monkeypatch.setattr(budget, "SMALL", 1000)
    with pytest.raises(FormatError, match="FEATCACHE_MAX_GROWTH"):
        table_files.read(tmp_path / name)


def test_times_of_parquet_are_seconds(tmp_path):
    start = [datetime.time(0, 1, 2, 500000), datetime.time(1, 0, 0)]
    stop = [datetime.timedelta(seconds=63), datetime.timedelta(hours=1, seconds=0.25)]
    columns = {"id": ["a", "b"], "begin": pa.array(start), "end": pa.array(stop, pa.duration("us"))}
    pq.write_table(pa.table({**columns, "none": pa.nulls(2)}), tmp_path / "t.parquet")
    made = make(tmp_path / "t.parquet", clip_id="id", start="begin", stop="end", label="none")
    assert [(clip.start, clip.stop, clip.unit) for clip in made] == [(62.5, 63, "seconds"), (3600, 3600.25, "seconds")]
    assert made.classes == {}


def test_ids_of_several_columns_and_the_rate_of_frames(tmp_path):
    (tmp_path / "t.csv").write_text("video,start_frame,rate\na,0,25\na,10,30\n")
    made = make(tmp_path / "t.csv", clip_id=["video", "start_frame"], start="start_frame", fps="rate")
    assert [(clip.clip_id, clip.fps) for clip in made] == [("a_0", 25), ("a_10", 30)]
    made = make(tmp_path / "t.csv", clip_id=["video", "start_frame"], fps="29.97")
    assert {clip.fps for clip in made} == {29.97}


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"clip_id": "vidoe"}, "no column 'vidoe' in .*t.csv; did you mean 'video'"),
        ({"label": "acton"}, "'acton'.*did you mean 'action'"),
        ({"domain": "kamera"}, "'kamera'.*did you mean 'camera'"),
        ({"source": "file"}, "no column 'file'"),
        ({"fps": "25fps"}, "no column '25fps'"),
        ({"clip_id": "camera"}, "rows 1 and 3.*'left'.*--clip-id"),
        ({"split": "action"}, "row 1: action 'cut' is no split; write train, val or test"),
        ({"domain_name": "x"}, "both"),
        ({"start": "number"}, "number may be frames or seconds; .*--unit frames"),
        ({"start": "number", "unit": "minutes"}, "'minutes'.*frames, seconds"),
        ({"start": "camera", "unit": "seconds"}, "row 1: start_seconds 'left' is not a number"),
        ({"media": "nowhere"}, "no folder nowhere.*--media"),
        ({"label": ["a=action", "a=camera"]}, "each kind once"),
        ({"domain": "action"}, "row 3: domain is empty"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_name_the_column_row_and_value(tmp_path, words, match):
    FORMATS["t.csv"](tmp_path / "t.csv")
    with pytest.raises(ManifestError, match=match):
        clips(tmp_path / "t.csv", **words)


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("t.xlsx", b"PK", r"t.xlsx is no table that is read; there are: .csv"),
        ("t.csv", b"", "has no columns"),
        ("t.csv", b"a,b\n", "no rows"),
        ("t.csv", b"a,b\n1\n", "line 2: 1 cells for 2 columns"),
        ("t.csv", b"a,a\n1,2\n", "'a' occurs twice"),
        ("t.csv", b"\xff\xfe", "not UTF-8"),
        ("t.jsonl", b'{"a": 1}\n[2]\n', "row 2 is a list"),
        ("t.jsonl", b'{"a": \n', "line 1.*not JSON"),
        ("t.parquet", b"PAR1", "t.parquet"),
        ("t.h5", b"HDF", "t.h5"),
        ("t.pkl", pickle.dumps(3), "holds a int"),
        ("t.pkl", pickle.dumps({"a": [1, 2], "b": [1]}), "differ in length: a 2, b 1"),
        ("t.pkl", pickle.dumps([1]), "row 1 is a int"),
        ("t.pkl", pickle.dumps({"a": [datetime.date(2020, 1, 1)]}), r"requires datetime\.date.*as text"),
    ],
)
def test_bad_tables_are_one_sentence(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=match):
        table_files.read(tmp_path / name)


def test_ids_are_columns_without_nul(tmp_path):
    (tmp_path / "t.csv").write_text("id,x\na,1\nb\0,2\n")
    with pytest.raises(ManifestError, match=r"row 2: 'b\\x00' has a NUL"):
        make(tmp_path / "t.csv", clip_id="id")
    with pytest.raises(ArgumentsError, match="clip_id"):
        make(tmp_path / "t.csv", clip_id=[])
    assert not (tmp_path / "made.csv").exists()


class Evil:
    def __reduce__(self):
        return os.mkdir, (f"{os.environ['PYTEST_EVIL']}/made",)


@pytest.mark.parametrize("place", ["pickle", "hdf5"])
def test_nothing_in_a_table_is_executed(tmp_path, monkeypatch, place):
    monkeypatch.setenv("PYTEST_EVIL", str(tmp_path))
    path = tmp_path / ("t.pkl" if place == "pickle" else "t.h5")
    if place == "pickle":
        path.write_bytes(pickle.dumps({"video": [Evil()]}))
    else:
        write_fixed(path, Evil())
    with pytest.raises(FormatError, match=r"requires \w+\.mkdir; nothing was run"):
        table_files.read(path)
    assert not (tmp_path / "made").exists()


def test_tables_that_would_grow_or_never_end_are_refused(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["again"] = file["/"]  # a group in itself
    with pytest.raises(FormatError, match="has no columns"):
        table_files.read(tmp_path / "t.h5")
    table = pa.table({"a": ["x" * 1000] * 100})
    (tmp_path / "set").mkdir()
    with pa.ipc.new_stream(
        tmp_path / "set" / "data.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")
    ) as file:
        file.write_table(table)
    with pytest.raises(FormatError, match="compressed"):
        table_files.read(tmp_path / "set")
    monkeypatch.setattr(budget, "SMALL", 1000)
    pq.write_table(pa.table({"a": ["x" * 1000] * 3000}), tmp_path / "t.parquet")
    with pytest.raises(FormatError, match="FEATCACHE_MAX_GROWTH"):
        table_files.read(tmp_path / "t.parquet")


def test_sources_are_found_by_path_or_name(tmp_path):
    """With or without the ending, anywhere below the folder."""
    for name in ("a/v1.mp4", "v2.avi", "frames/ü3/1.png", "other.txt"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).write_bytes(b"")
    frame = FRAME.assign(file=["v1", "v2.avi", "frames/ü3"], kept=["a/v1", "v2", "frames/ü3"])
    (tmp_path / "t.csv").write_text(text_of(frame))
    for column in ("file", "kept"):
        made = make(tmp_path / "t.csv", **WORDS, source=column, media=tmp_path / "videos", fps="25")
        assert [clip.source for clip in made] == ["a/v1.mp4", "v2.avi", "frames/ü3"]
        assert made.path(made.clips[1]).resolve() == tmp_path / "videos" / "v2.avi"
    with pytest.warns(UserWarning, match="no file for 1 clips: 'ü3'"):
        made = make(tmp_path / "t.csv", **WORDS, media=tmp_path / "videos")
    assert [clip.source for clip in made] == ["a/v1.mp4", "v2.avi", "ü3"]
    (tmp_path / "videos" / "v1.avi").write_bytes(b"")
    with pytest.raises(ManifestError, match=r"several files for clip 'v1': 'a/v1.mp4', 'v1.avi'.*--source"):
        make(tmp_path / "t.csv", **WORDS, media=tmp_path / "videos")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="for none of the 3 clips.*--media.*--source"):
        make(tmp_path / "t.csv", **WORDS, media=tmp_path / "empty")


def test_clips_of_features_alone_need_no_source(tmp_path):
    """They are read, checked without a complaint, moved and imported; only what reads media refuses them."""
    FORMATS["t.csv"](tmp_path / "t.csv")
    manifest = make(tmp_path / "t.csv", **WORDS, caption="camera", out=tmp_path / "m.csv")
    assert Manifest.read(tmp_path / "m.csv") == manifest
    assert {clip.source for clip in manifest} == {clip.identity()["source"] for clip in manifest} == {""}
    assert problems(tmp_path / "m.csv") == []
    assert manifest.relocated(tmp_path / "elsewhere").clips == manifest.clips
    np.savez(tmp_path / "f.npz", clip_id=list(FRAME.video), rgb=np.ones((3, 2, 4), np.float32))
    (report,) = import_features([tmp_path / "f.npz"], "npz", manifest, tmp_path / "stores")
    store = FeatureStore.open(report.path)
    assert store.counts()["done"] == 3
    assert problems(report.path) == []
    assert Manifest.read(tmp_path / "stores" / "m" / "manifest.csv").clips == manifest.clips
    for name in ("hog", "vector"):
        with pytest.raises(ConfigError, match=f"no clip of manifest 'm' has a source, so {name}.*featcache import"):
            extract(manifest, load_extractors([name], manifest=manifest), tmp_path / "other", plan=Plan())


@dataclass(frozen=True)
class NoParams:
    """No parameters."""


class Letters(Extractor):
    """The first letters of a caption."""

    name, modality, row_shape, window = "letters", "text", (3,), Caption()

    def prepare(self, window):
        return np.frombuffer(window.encode()[:3], np.uint8)

    def __call__(self, windows):
        return windows.astype(np.float32)


def test_captions_need_no_source(tmp_path):
    FORMATS["t.csv"](tmp_path / "t.csv")
    manifest = make(tmp_path / "t.csv", **WORDS, caption="camera")
    assert (completes("sentence-bert"), completes("vector")) == (False, True)
    outcome = extract(manifest, [Letters(NoParams())], tmp_path / "stores", plan=Plan())
    assert outcome.stores["letters"].counts()["done"] == 3
    assert bytes(outcome.stores["letters"]["v1"][0].astype(np.uint8)) == b"lef"


def test_a_clip_without_a_source_among_others_is_named(tmp_path, videos):
    good = Manifest.read(videos / "kitchens.csv").relocated(tmp_path).clips[0]
    lines = ["clip_id,domain,split,source", f"a,d,train,{good.source}", "b,d,train,", "c,d,test,  "]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    (problem,) = problems(tmp_path / "m.csv")
    assert "2 of 3 clips have no source: 'b', 'c'" in problem
    outcome = extract(Manifest.read(tmp_path / "m.csv"), load_extractors(["hog"]), tmp_path / "stores", plan=Plan())
    (reason,) = outcome.reasons("hog", "failed")
    assert "has no source; name its file" in reason
    assert outcome.stores["hog"].counts()["done"] == 1


def test_the_words_of_the_command_are_those_of_the_function():
    import inspect

    from pipelines.cli.manifest import manifest_from_csv

    options = {parameter.name for parameter in manifest_from_csv.params if parameter.expose_value}
    assert options == inspect.signature(from_csv).parameters.keys()


def test_warnings_are_none_where_nothing_is_wrong(tmp_path):
    FORMATS["t.csv"](tmp_path / "label.csv")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clips(tmp_path / "label.csv") == EXPECTED
    with pytest.raises(FeatcacheError, match=r"no table .*labels.csv: the file does not exist"):
        clips(tmp_path / "labels.csv")


def test_the_command_writes_the_manifest_and_prints_its_path(tmp_path):
    FORMATS["t.csv"](tmp_path / "labels.csv")
    words = ["--clip-id", "video", "--label", "action", "--domain", "camera", "--split", "part"]
    result = CliRunner().invoke(main, ["manifest", "from-csv", str(tmp_path / "labels.csv"), *words])
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path / 'labels_clips.csv'}\n")
    assert "3 clips, domains left, right, classes: 2 of label" in result.stderr
    for name in ("q.txt", "q"):
        result = CliRunner().invoke(
            main, ["manifest", "from-csv", str(tmp_path / "labels.csv"), *words, "--out", str(tmp_path / name)]
        )
        assert result.stdout == f"{tmp_path / name}\n"
        assert len(Manifest.read(result.stdout.strip())) == 3
    again = [*words[:-2], "--out", str(tmp_path / "labels_clips.csv")]
    result = CliRunner().invoke(main, ["manifest", "from-csv", str(tmp_path / "labels.csv"), *again])
    assert result.exit_code == 1
    assert "exists and differs" in result.stderr
    assert Manifest.read(tmp_path / "labels_clips.csv").clips[2].split == "test"
