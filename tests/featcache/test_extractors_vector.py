"""The user's own numbers: CSV, .npy, .npz and HDF5 files to rows."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from featcache.errors import ConfigError, MediaError
from featcache.extractors import Extractor
from featcache.extractors.vector import Params, Vector
from featcache.manifest import Clip, Manifest
from featcache.media import numbers
from featcache.windows import Numbers, Plan
from pipelines.extraction.extract import extract
from pipelines.extraction.extractors import load_extractors
from tests.helpers.media import clip

A = np.random.default_rng(0).normal(size=(9, 4))


def written(path, array=A, key="features", **others):
    """The array in a file of any kind."""
    match path.suffix:
        case ".npy":
            np.save(path, array)
        case ".npz":
            np.savez(path, **{key: array}, **others)
        case ".csv":
            path.write_text("".join(",".join(map(repr, row)) + "\n" for row in array.tolist()))
        case _:
            with h5py.File(path, "w") as file:
                for name, values in {key: array, **others}.items():
                    file[name] = values
    return path


def text(tmp_path, content, columns="", bounds=None):
    path = tmp_path / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return numbers.read(path, bounds or clip(), columns=columns).values


ENDINGS = ("csv", "npy", "npz", "h5", "hdf5")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("bounds", "first", "stop", "seconds"),
    [
        (clip(), 0, 9, (np.nan, np.nan)),
        (clip(2, 5, "frames"), 2, 5, (np.nan, np.nan)),
        (clip(None, 3, "frames"), 0, 3, (np.nan, np.nan)),
        (clip(8, 99, "frames", fps=10.0), 8, 9, (0.8, 0.9)),
        (clip(0.3, 0.6, fps=10.0), 3, 6, (0.3, 0.6)),
        (clip(None, 1.0, fps=4.0), 0, 4, (0, 1)),
        (clip(fps=4.0), 0, 9, (0, 2.25)),
    ],
)
def test_rows_come_back_to_the_digit(tmp_path, ending, bounds, first, stop, seconds):
    found = numbers.read(written(tmp_path / f"t.{ending}"), bounds)
    np.testing.assert_array_equal(found.values, A[first:stop])
    assert found.values.dtype == np.float64
    np.testing.assert_allclose((found.start, found.stop), seconds)


@pytest.mark.parametrize("ending", ENDINGS)
def test_bounds_that_cannot_be(tmp_path, ending):
    path = written(tmp_path / f"t.{ending}")
    with pytest.raises(MediaError, match=f"t.{ending} has 9 rows, but the clip starts at 9; correct start and stop"):
        numbers.read(path, clip(9, 10, "frames"))
    with pytest.raises(MediaError, match=f"t.{ending} has rows without a rate.* give rows per second as fps, or"):
        numbers.read(path, clip(0.5, 1.0))


@pytest.mark.parametrize("ending", ["npy", "npz", "h5"])
@pytest.mark.parametrize(
    ("array", "rows"),
    [
        (A[0], A[:1]),  # (D,) is one row
        (A[:, :1], A[:, :1]),
        (A.reshape(3, 6, 2), A.reshape(3, 12)),  # 6 key points of x and y
        (A.astype(np.float16), A.astype(np.float16)),
        (np.arange(6, dtype=np.uint8).reshape(2, 3), [[0, 1, 2], [3, 4, 5]]),
        (np.array(7), [[7]]),
    ],
)
def test_arrays_of_any_shape_and_number_type(tmp_path, ending, array, rows):
    path = written(tmp_path / f"t.{ending}", array)
    np.testing.assert_array_equal(numbers.read(path, clip()).values, rows)
    assert numbers.width(path) == len(rows[0])
    if array.ndim < 2:
        with pytest.raises(MediaError, match="has 1 rows, but the clip starts at 1"):
            numbers.read(path, clip(1, None, "frames"))


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_an_array_is_named_or_the_only_one_of_numbers(tmp_path, ending):
    path = written(tmp_path / f"t.{ending}", A, "eeg", names=np.array([b"a", b"b"]))
    np.testing.assert_array_equal(numbers.read(path, clip()).values, A)
    path = written(tmp_path / f"t.{ending}", A, "eeg", face=A + 1)
    np.testing.assert_array_equal(numbers.read(path, clip(), "face").values, A + 1)
    with pytest.raises(MediaError, match=rf"t.{ending} holds several arrays: eeg, face; name one of them by its key"):
        numbers.read(path, clip())
    with pytest.raises(MediaError, match=rf"t.{ending} holds no array 'emg'; it has: eeg, face"):
        numbers.read(path, clip(), "emg")
    with pytest.raises(MediaError, match=r"not a CSV file, .*; leave 'a,b' out"):
        numbers.read(path, clip(), "face", "a,b")


def test_arrays_in_groups_of_hdf5(tmp_path):
    path = written(tmp_path / "t.h5", A, "s1/left", **{"s1/right": A + 1})
    np.testing.assert_array_equal(numbers.read(path, clip(), "/s1/right").values, A + 1)
    with pytest.raises(MediaError, match=r"several arrays: s1/left, s1/right"):
        numbers.read(path, clip())
    with pytest.raises(MediaError, match=r"no array 's1'; it has"):
        numbers.read(path, clip(), "s1")


def test_only_data_in_the_file_itself_is_read(tmp_path):
    other = written(tmp_path / "other.h5", A, "secret")
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["link"] = h5py.ExternalLink(str(other), "secret")
        file.create_dataset("bytes", (4,), "u1", external=[(str(other), 0, 4)])
    with pytest.raises(MediaError, match=r"t.h5: /bytes lies in another file"):
        numbers.read(tmp_path / "t.h5", clip())
    with pytest.raises(MediaError, match=r"t.h5 holds no array 'link'"):
        numbers.read(tmp_path / "t.h5", clip(), "link")


@pytest.mark.parametrize("name", ["t.npy", "t.npz"])
def test_pickles_are_never_loaded(tmp_path, name):
    path = written(tmp_path / name, np.array([{"a": 1}], object))
    for key in ("",) if name == "t.npy" else ("", "features"):
        with pytest.raises(MediaError, match=f"{name}.* (never loaded|holds no array of numbers)"):
            numbers.read(path, clip(), key)


@pytest.mark.parametrize("ending", ["npy", "npz", "h5"])
@pytest.mark.parametrize("array", [np.array(["a"]), np.array([True]), np.array([1j])])
def test_what_is_no_number_is_refused(tmp_path, ending, array):
    path = written(tmp_path / f"t.{ending}", array.astype("S") if array.dtype.kind == "U" and ending == "h5" else array)
    with pytest.raises(MediaError, match=f"t.{ending}.* (features are floats or integers|no array of numbers)"):
        numbers.read(path, clip())


@pytest.mark.parametrize("ending", ["npy", "npz", "h5"])
@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0,)])
def test_arrays_of_nothing(tmp_path, ending, shape):
    with pytest.raises(MediaError, match=f"t.{ending}"):
        numbers.read(written(tmp_path / f"t.{ending}", np.ones(shape)), clip())


@pytest.mark.parametrize("ending", ENDINGS)
def test_damage_is_one_sentence(tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    with pytest.raises(MediaError, match=f"t.{ending}"):
        numbers.read(path, clip())
    whole = written(path).read_bytes()
    contents = [b"", b"\xff\xfe\x00PK\x03", whole[: len(whole) // 2] + b"\xff"]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(MediaError, match=f"t.{ending}") as caught:
            numbers.read(path, clip())
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_not_finite_is_refused_with_its_place_only_in_the_clip(tmp_path, ending, value):
    array = A.copy()
    array[5, 2] = value
    path = written(tmp_path / f"t.{ending}", array)
    place = "line 6, column 3" if ending == "csv" else r"row 5, column 2 \(both from 0\)"
    with pytest.raises(MediaError, match=f"t.{ending} {place}: {value} is not .*finite.*; correct it, or leave"):
        numbers.read(path, clip(2, None, "frames"))
    assert len(numbers.read(path, clip(6, None, "frames")).values) == 3
    assert len(numbers.read(path, clip(0, 5, "frames")).values) == 5


def test_other_endings(tmp_path):
    with pytest.raises(MediaError, match=r"t.mat .* table of numbers; .* \.csv, \.h5, \.hdf5, \.npy, \.npz"):
        numbers.read(tmp_path / "t.mat", clip())
    with pytest.raises(MediaError, match=r"t.csv is a CSV file, which has no arrays; leave the key 'a' out"):
        numbers.read(written(tmp_path / "t.csv"), clip(), "a")
    with pytest.raises(MediaError, match=r"t.npy holds one array without a name; leave the key 'a' out"):
        numbers.read(written(tmp_path / "t.npy"), clip(), "a")


# --- CSV -------------------------------------------------------------------------------------------------------------


def test_a_line_of_names_is_one_with_a_cell_that_is_no_number(tmp_path):
    assert text(tmp_path, "alpha,beta\n1,2\n3,4\n").tolist() == [[1, 2], [3, 4]]
    assert text(tmp_path, "1,2\n3,4").tolist() == [[1, 2], [3, 4]]
    assert text(tmp_path, "\ufeffalpha,beta\r\n1e3,-.5\r\n\r\n").tolist() == [[1000, -0.5]]
    assert text(tmp_path, '"alpha, left",beta\n"1", 2 \n').tolist() == [[1, 2]]
    assert text(tmp_path, ",0,1\n0,5,6\n1,7,8\n").tolist() == [[5, 6], [7, 8]]  # pandas and its index


def test_text_is_left_out_and_columns_can_be_chosen_in_any_order(tmp_path):
    content = "name,alpha,note,beta\nann,1,,2\nbob,3,,4\n"
    with pytest.raises(MediaError, match=r"t.csv line 2, column 3 \('note'\): the cell is empty"):
        text(tmp_path, content)
    content = content.replace(",,", ",x,")
    assert text(tmp_path, content).tolist() == [[1, 2], [3, 4]]
    assert text(tmp_path, content, "beta, alpha").tolist() == [[2, 1], [4, 3]]
    assert text(tmp_path, content, "beta", clip(1, 2, "frames")).tolist() == [[4]]
    with pytest.raises(MediaError, match=r"t.csv line 2, column 1 \('name'\): 'ann' is not a number"):
        text(tmp_path, content, "name,beta")
    with pytest.raises(MediaError, match=r"column 'gamma' is missing; columns: name, alpha, note, beta"):
        text(tmp_path, content, "beta,gamma")
    with pytest.raises(MediaError, match=r"line 1 has no column names.*'beta'.*; leave"):
        text(tmp_path, "1,2\n", "beta")
    with pytest.raises(MediaError, match=r"column 'a' occurs more than once"):
        text(tmp_path, "a,a,b\n1,2,3\n", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n3,x\n", r"line 3, column 2 \('b'\): 'x' is not a number"),
        ("a,b\nx,2\n3,4\n", r"line 2, column 1 \('a'\): 'x' is not a number"),  # not text: a number stands below
        ("1,2\n3,x\n", r"line 2, column 2: 'x' is not a number"),
        ("a,b\n1,2\n3,\n", r"line 3, column 2 \('b'\): the cell is empty"),
        ("a,b\n1,2\n3, \n", r"line 3, column 2 \('b'\): ' ' is not a number"),
        ("a,b\n1,2\n3,1_0\n", r"line 3, column 2 \('b'\): '1_0' is not a number"),
        ("a,b\n1,2\n3,٥\n", r"line 3, column 2 \('b'\): '٥' is not a number"),
        ("a,b\n1,2\n3\n", r"line 3: 1 cells, but 2 in line 1"),
        ('a,b\n1,"2\n', r"line 2: not CSV"),
        ("a,b\n", r"has column names but no rows"),
        ("", r"is empty"),
        ("a;b\n1;2\n", r"line 2, column 1: cells are separated by ';'; separate them by commas"),
        ("a;b\n1,5;2,25\n", r"line 2: 3 cells, but 1 in line 1; cells are separated by ';'"),
        ("0,25;1,5\n3,5;7,5\n", r"line 2, column 2: cells are separated by ';'.*decimals with points"),
        ('a,b\n1,"0,5"\n2,"0,7"\n', r"line 2, column 2: '0,5' has a decimal comma; write '0.5'"),
        ('a,b\n1,2\n2,"0,7"\n', r"line 3, column 2 \('b'\): '0,7' is not a number; '0,7' has a decimal comma"),
        ("1 2\n3 4\n", r"has no column of numbers; .*, not by ' '"),
        ("a,b\nx,y\n", r"has no column of numbers$"),
        ("0,1,2\n5,6,7\n", r"line 1: 0 to 2 may be .*; write names with letters, or"),
        (b"a,b\n1,\xff\n", r"is not UTF-8 text"),
        ("a,b\n1,nan\n", r"line 2, column 2 \('b'\): nan is not .*finite"),
    ],
)
def test_bad_cells_are_named_with_line_and_column(tmp_path, content, message):
    with pytest.raises(MediaError, match=f"t.csv:? ?{message}"):
        text(tmp_path, content)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_replaced_is_read_again(tmp_path, ending):
    path = written(tmp_path / f"t.{ending}")
    assert np.array_equal(numbers.read(path, clip()).values, A)
    written(path, A[:5])
    assert np.array_equal(numbers.read(path, clip()).values, A[:5])


# --- rows ------------------------------------------------------------------------------------------------------------


def made(window, **params):
    """The row of (rows, columns) numbers; it is the same in a batch."""
    extractor = Vector(Params(**params))
    row = extractor.prepare(np.asarray(window, np.float64))
    assert row.shape == extractor.row_shape
    np.testing.assert_array_equal(extractor(np.stack([row, row])), [row, row])
    assert extractor(row[None]).dtype == np.float32
    return row


def test_one_row_is_taken_as_it_is():
    np.testing.assert_array_equal(made(A[:1], dims=4), A[0].astype(np.float32))
    with pytest.raises(MediaError, match=r"has 9 rows of numbers where one .* vector.reduce to mean or mean-std"):
        made(A, dims=4)


def test_mean_and_standard_deviation_are_those_of_naive_loops():
    mean, std = [], []
    for column in range(4):
        total = sum(A[row, column] for row in range(9)) / 9
        mean.append(total)
        std.append((sum((A[row, column] - total) ** 2 for row in range(9)) / 9) ** 0.5)
    np.testing.assert_allclose(made(A, dims=4, reduce="mean"), mean, rtol=1e-6)
    np.testing.assert_allclose(made(A, dims=8, reduce="mean-std"), mean + std, rtol=1e-6)
    np.testing.assert_array_equal(made(A[:1], dims=8, reduce="mean-std")[4:], 0)
    large = 1e8 + A  # sums in float32 would lose it all
    np.testing.assert_allclose(made(large, dims=8, reduce="mean-std")[4:], std, rtol=1e-5)


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(MediaError, match=r"the clip gives 4 numbers, .*vector.dims is 5"):
        made(A[:1], dims=5)
    with pytest.raises(MediaError, match=r"too large for float32"):
        made([[1e300]], dims=1)


def test_dims_are_those_of_the_first_file_that_can_be_read(tmp_path):
    (tmp_path / "good.csv").write_text("1,2,3\n4,5,6\n")
    (tmp_path / "bad.csv").write_text("")
    sources = ("missing.csv", "bad.csv", "good.csv")
    clips = tuple(Clip(name, "d", "train", name) for name in sources)
    assert load_extractors(["vector"], manifest=Manifest("m", clips, tmp_path))[0].params.dims == 3
    with pytest.raises(MediaError, match=r"missing.csv does not exist"):
        load_extractors(["vector"], manifest=Manifest("m", clips[:2], tmp_path))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(("reduce", "dims"), [("none", 4), ("mean", 4), ("mean-std", 8)])
def test_dims_are_completed_from_a_source(tmp_path, ending, reduce, dims):
    array = A.copy()
    array[0, 0] = np.nan  # of another clip, perhaps
    path = written(tmp_path / f"t.{ending}", array)
    params = Vector.complete(Params(reduce=reduce), path)
    assert params == Params(reduce=reduce, dims=dims)
    assert Vector(params).row_shape == (dims,)
    open_no_more = Params(columns="a", dims=7)  # so that nothing is read
    assert Vector.complete(open_no_more, tmp_path / "absent.csv") == open_no_more
    with pytest.raises(MediaError):
        Vector.complete(Params(), tmp_path / f"absent.{ending}")


def test_key_and_columns_lead_from_parameters_to_the_reader(tmp_path):
    extractor = Vector(Params("face", "a,b", dims=2))
    assert extractor.window == Numbers("face", "a,b")
    path = written(tmp_path / "t.npz", A, "eeg", face=A[:, :3])
    assert Vector.complete(Params(key="face"), path).dims == 3
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n")
    assert Vector.complete(Params(columns="c,a", reduce="mean-std"), tmp_path / "t.csv").dims == 4


def test_the_modality_is_the_users_word_and_names_the_store():
    extractor = Vector(Params(modality="eeg", dims=3))
    assert (extractor.modality, extractor.store) == ("eeg", "vector-eeg")
    assert extractor.recipe["modality"] == "eeg"
    assert Vector(Params(dims=3)).store == "vector"
    assert isinstance(extractor, Extractor)


@pytest.mark.parametrize("modality", ["", "e g", "../x", "é", "eeg1", "eeg\n"])
def test_modalities_that_are_no_words_are_refused(modality):
    with pytest.raises(ConfigError, match=r"vector.modality is .*; allowed: letters a to z, such as eeg"):
        Vector(Params(modality=modality, dims=1))


def test_wrong_parameters_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"vector.reduce is 'max'; allowed: none, mean, mean-std"):
        Vector(Params(reduce="max", dims=1))
    with pytest.raises(ConfigError, match=r"vector.reduce is 'max'"):
        Vector.complete(Params(reduce="max"), tmp_path / "t.csv")
    with pytest.raises(ConfigError, match=r"vector.dims is 0; allowed: from 1 on"):
        Vector(Params())


# --- real recordings -------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_real_muscle_signals_of_a_clip_become_its_statistics(realdata, tmp_path):
    """Segments of one long recording as clips of one source, in rows and in seconds at 10 per second."""
    path = realdata / "actionsense_emg" / "emg_all_subjects.npz"
    data = np.load(path, allow_pickle=False)
    offset = data["offset"]
    for k in (0, 1000, 1993):
        first, stop = offset[k : k + 2].tolist()
        expected = data["left"][first:stop].astype(np.float64)
        params = Vector.complete(Params(key="left", reduce="mean-std", modality="emg"), path)
        assert params.dims == 16
        row = Vector(params).prepare(numbers.read(path, clip(first, stop, "frames"), "left").values)
        np.testing.assert_allclose(row, [*expected.mean(0), *expected.std(0)], rtol=1e-5)
        in_seconds = numbers.read(path, clip(first / 10, stop / 10, fps=10.0), "left")
        np.testing.assert_array_equal(in_seconds.values, expected)
    with pytest.raises(MediaError, match=r"several arrays: left, right, rel_time, .*; name one of them by its key"):
        numbers.read(path, clip())


def test_columns_that_describe_clips_are_left_out_named_and_in_the_recipe(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(",timestamp_ms,emg1,emg2,label,Name\n0,5000,1,2,3,ann\n1,5001,3,4,3,bob\n")
    assert numbers.read(path, clip()).values.tolist() == [[1, 2], [3, 4]]
    params = Vector.complete(Params(reduce="mean"), path)
    assert params == Params(reduce="mean", columns="emg1,emg2", dims=2)
    assert Vector.complete(replace(params, columns=""), path) == params  # with dims given, too
    note = Vector(params).note(path)
    assert note.startswith("takes the columns emg1, emg2; leaves out '', 'timestamp_ms', 'label', 'Name'")
    assert "vector.columns=" in note
    asked = Vector.complete(Params(columns="emg1,label", reduce="mean"), path)
    assert numbers.read(path, clip(), columns=asked.columns).values.tolist() == [[1, 3], [3, 3]]
    path.write_text("label,frame\n1,2\n")
    with pytest.raises(MediaError, match="no column of numbers besides 'label', 'frame'.* by its name"):
        numbers.read(path, clip())
    path.write_text("emg,emg,label\n1,2,3\n")
    with pytest.raises(MediaError, match="occurs twice"):
        Vector.complete(Params(), path)


def test_recipes_are_as_before_where_no_number_is_left_out(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("alpha,beta,label\n1,2,walk\n")  # text has always been left out
    assert Vector.complete(Params(), path) == Params(dims=2)
    path.write_text("1,2\n")
    assert Vector.complete(Params(), path) == Params(dims=2)


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_arrays_that_describe_clips_are_left_out_named_and_in_the_recipe(tmp_path, ending):
    path, arrays = tmp_path / f"t.{ending}", {"emg": A, "label": np.arange(3), "onehot": np.eye(3)}
    if ending == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as file:
            file.update(arrays)
    params = Vector.complete(Params(reduce="mean"), path)
    assert (params.key, params.dims) == ("emg", A.shape[1])
    assert "takes the array emg; leaves out 'label', 'onehot'" in Vector(params).note(path)
    assert Vector.complete(Params(key="onehot", reduce="mean"), path).dims == 3
    if ending == "npz":
        np.savez(path, label=np.arange(3))
        with pytest.raises(MediaError, match="holds only label.*key"):
            Vector.complete(Params(), path)


def test_an_extraction_names_columns_and_says_when_they_are_the_label(tmp_path):
    clips = [Clip(f"c{k}", "d", "train", f"{k}.csv", labels={"label": "xyz"[k % 3]}) for k in range(12)]
    for k in range(12):
        (tmp_path / f"{k}.csv").write_text(f",emg1,code7,label\n0,{k**2 / 7},{k % 3},{k % 3}\n")
    found = Manifest("m", tuple(clips), tmp_path)
    frozen = load_extractors(["vector"], manifest=found)
    outcome = extract(found, frozen, tmp_path / "stores", plan=Plan.parse("segments:1"))
    assert outcome.stores["vector"].row_shape == (2,)
    assert outcome.stores["vector"].recipe["params"]["columns"] == "emg1,code7"
    named, leak = outcome.notes
    assert named.startswith("vector: takes the columns emg1, code7; leaves out '', 'label'")
    assert "LABELS IN FEATURES" in leak
    assert "number 1 of 2 (from 0) is a function of the label" in leak
