"""Pickles and torch files of others are read as data, and never run."""

import collections
import copyreg
import io
import pickle
import pickletools
import struct
import tracemalloc
import warnings

import numpy as np
import pytest
import torch

from featcache.bridges import ego, epic100, mmaction2
from featcache.errors import FormatError
from featcache.untrusted import pickles
from tests.helpers.hostile import EVIL, RUNS, TRAP, Call, torch_file, trap  # noqa: F401

pytestmark = pytest.mark.usefixtures("trap")

shared = np.arange(4)
VALUES = {
    "array": np.arange(6, dtype=np.float32).reshape(3, 2),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(3, 2)),
    "half": np.ones(3, np.float16),
    "big-endian": np.arange(3, dtype=">f4"),
    "nothing": np.zeros((0, 4)),
    "no axis": np.array(3.0),
    "text": np.array(["a", "bé"]),
    "bytes array": np.array([b"ab", b"c"]),
    "objects": np.array([["a", None], [3, "b"]], object),
    "flags": np.array([True, False]),
    "scalar": np.float32(3),
    "whole scalar": np.int64(-3),
    "constants": [
        1,
        -5,
        2**40,
        -(2**80),
        True,
        False,
        None,
        1.5,
        "",
        "é" * 300,
        b"",
        b"\xff" * 300,
        bytearray(b"x\xff"),
    ],
    "containers": ([], (), {}, (1,), (1, 2), (1, (2, (3, 4, 5, 6))), {"a": [1], 2: {}}),
    "sets": [{1, 2}, frozenset(["a"])],
    "ordered": collections.OrderedDict(b=1, a=2),
    "grouped": collections.defaultdict(list, a=[1]),
    "one array twice": [shared, shared, {"again": (shared,)}],
    "tensor": torch.arange(6.0).reshape(3, 2).T,
    "slice of a tensor": torch.arange(10.0)[2:8:3],
    "half tensor": torch.ones(3).half(),
    "bfloat16 tensor": torch.tensor([1.5, -2], dtype=torch.bfloat16),
    "whole tensor": torch.arange(3),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}


def plain(value):
    """What `load` gives for what pickle gives: arrays for tensors, plain dicts and sets."""
    if isinstance(value, torch.Tensor):
        return (value.float() if value.dtype == torch.bfloat16 else value).detach().numpy()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return set(value) if isinstance(value, frozenset) else value


def assert_same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        found, expected = list(found.values()), list(expected.values())
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for mine, theirs in zip(found, expected, strict=True):
            assert_same(mine, theirs)
    elif isinstance(expected, np.ndarray):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(found, expected)
    else:
        assert found == expected


def load(tmp_path, data):
    (tmp_path / "f.pkl").write_bytes(data)
    return pickles.load(tmp_path / "f.pkl")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALUES)
def test_values_are_what_pickle_makes_of_them(tmp_path, name, protocol):
    assert_same(load(tmp_path, pickle.dumps(VALUES[name], protocol=protocol)), plain(VALUES[name]))


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_numpy_under_its_old_and_new_names(tmp_path, core):
    for protocol in (2, 5):
        data = pickle.dumps({"x": np.arange(3.0), "y": np.float64(2)}, protocol=protocol)
        length = len("numpy._core.multiarray")
        if protocol == 2:
            data = data.replace(b"numpy._core", core.encode())
        elif core == "numpy.core":  # the text has its length before it
            for module in (b"multiarray", b"numeric"):
                length = len(b"numpy._core." + module)
                data = data.replace(
                    bytes([length]) + b"numpy._core." + module, bytes([length - 1]) + b"numpy.core." + module
                )
            data = data[:2] + data[11:]  # without the frame, whose length has changed
        found = load(tmp_path, data)
        assert found["x"].tolist() == [0, 1, 2]
        assert found["y"] == 2


def test_an_array_of_python_2(tmp_path):
    raw = np.array([1.5, -2e30], "<f4").tobytes()
    data = (
        b"\x80\x02}q\x00U\x04\xe9RGBcnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b"
        b"\x87Rq\x03(K\x01K\x02\x85cnumpy\ndtype\nq\x04U\x02f4K\x00K\x01\x87Rq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ"
        b"\xff\xff\xff\xffK\x00tb\x89U\x08" + raw + b"tbs."
    )
    assert_same(load(tmp_path, data), pickle.loads(data, encoding="latin1"))


def test_what_is_written_is_read_by_any_numpy():
    """No module of numpy's is named that has moved or may move, and pickle gives back a writable array."""
    file = io.BytesIO()
    pickles.dump({"x": VALUES["array"], "y": VALUES["fortran"], "ids": ["a"]}, file)
    texts = [argument for code, argument, _ in pickletools.genops(file.getvalue()) if "UNICODE" in code.name]
    assert {text for text in texts if "numpy" in text} == {"numpy"}
    assert max(code.proto for code, _, _ in pickletools.genops(file.getvalue())) == 4
    back = pickle.loads(file.getvalue())
    assert_same(back, {"x": VALUES["array"], "y": VALUES["fortran"], "ids": ["a"]})
    back["x"][:] = 0


WRAPS = {
    "alone": lambda evil: evil,
    "in a list": lambda evil: [1, evil],
    "as a key": lambda evil: {(1, evil): 2},
    "in an array": lambda evil: np.array([evil, 1], object),
    "as a scalar's dtype": lambda evil: Call(np.float32(1).__reduce__()[0], evil, b"1234"),
    "as a shape": lambda evil: Call(np.ndarray, evil, "f4"),
    "into a set": lambda evil: Call(set, [evil]),
    "into a dict": lambda evil: Call(collections.OrderedDict, [["a", evil]]),
    "as a default": lambda evil: Call(collections.defaultdict, evil),
    "as a storage": lambda evil: Call(torch._utils._rebuild_tensor_v2, evil, 0, (1,), (1,), False, {}),
    "in a storage": lambda evil: Call(torch.storage._load_from_bytes, pickle.dumps(evil)),
    "in a torch file": lambda evil: Call(torch.storage._load_from_bytes, torch_file(evil)),
    "in an old torch file": lambda evil: Call(torch.storage._load_from_bytes, torch_file(evil, old=True)),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_trap_works(tmp_path, name):
    """What is tested below would be noticed."""
    pickle.loads(pickle.dumps(EVIL[name]()))
    (tmp_path / TRAP).unlink()


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("name", EVIL)
def test_no_call_is_made(tmp_path, name, wrap):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(WRAPS[wrap](EVIL[name]()), protocol=protocol)
        with pytest.raises(FormatError, match=f"{tmp_path}|tensor of the pickle") as error:
            load(tmp_path, data)
        assert "weights_only=False" not in str(error.value)


def test_the_name_that_a_file_asks_for_is_said(tmp_path):
    with pytest.raises(FormatError, match=r"f\.pkl.*posix\.system; nothing was run"):
        load(tmp_path, pickle.dumps(EVIL["os.system"]()))
    with pytest.raises(FormatError, match=r"posix\.system"):
        load(tmp_path, pickle.dumps(WRAPS["in a torch file"](EVIL["os.system"]())))


def text(value):
    """The instruction that pushes a text."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module, name):
    return text(module) + text(name) + b"\x93"


ASK = {
    "dots in a name": stack_global("numpy", "dtype.__class__"),
    "dots from an allowed name": stack_global("collections", "OrderedDict.__init__.__globals__"),
    "dots into a module": stack_global("numpy", "testing.runstring"),
    "dots in a builtin": stack_global("builtins", "set.__class__.__subclasses__"),
    "f2py": stack_global("numpy.f2py.capi_maps", "getinit"),
    "an attribute of allowed code": stack_global("torch._utils", "importlib"),
    "torch._utils.os": stack_global("torch.storage", "io.os.system"),
    "spaces": b"cnumpy dtype\n\n",
    "an empty module": stack_global("", "dtype"),
    "a name that is none": b"K\x01K\x02\x93",
    "a tuple as a name": text("numpy") + b")" + b"\x93",
    "numpy.core, but not quite": stack_global("numpy.core.multiarray.", "_reconstruct"),
}


@pytest.mark.parametrize("name", ASK)
def test_names_are_compared_whole(tmp_path, name):
    with pytest.raises(FormatError, match=str(tmp_path)):
        load(tmp_path, b"\x80\x04" + ASK[name] + b".")


def test_allowed_names_cannot_be_changed(tmp_path):
    """BUILD sets the attributes of what it finds, unless it is an array that has none yet."""
    before = dict(vars(pickles))
    for target in (stack_global("numpy", "ndarray"), stack_global("collections", "OrderedDict"), b"}", b"]"):
        for state in (b"}" + text("make") + b"K\x01s", b"N}" + text("make") + b"K\x01s\x86"):
            with pytest.raises(FormatError, match=r"attributes|is expected"):
                load(tmp_path, b"\x80\x04" + target + state + b"b.")
    assert dict(vars(pickles)) == before
    assert pickles.MAKERS["numpy", "dtype"] is pickles._dtype


def test_the_extension_registry_is_not_asked(tmp_path):
    copyreg.add_extension("posix", "system", 240)
    try:
        data = pickle.dumps(EVIL["os.system"](), protocol=2)
        assert b"posix" not in data
        with pytest.raises(FormatError, match="registry of extensions"):
            load(tmp_path, data)
    finally:
        copyreg.remove_extension("posix", "system", 240)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"\x80\x02X\x01\x00\x00\x00aQ.", "not in the pickle"),
        (b"P7\n.", "not in the pickle"),
        (b"\x80\x05\x97.", "buffer"),
        (b"(iposix\nsystem\n.", "posix system"),
        (b"\x80\x02" + b"cnumpy\nndarray\n)\x81.", "object of a class"),
        (b"(cnumpy\nndarray\no.", "object of a class"),
        (b"PK\x03\x04", "zip archive"),
        (b"", "empty"),
        (b"N", "damaged"),
        (b"0.", "damaged"),
        (b"}]K\x01s.", "damaged"),
        (b"\x80\x02K\x01K\x02R.", "damaged"),
        (b"K\x01h\x05.", "damaged"),
        (b"\xff", "damaged"),
        (b"\x80\x04" + b"]" * 3 + b"\x86\x86\x86.", "damaged"),
    ],
)
def test_other_instructions_and_nonsense(tmp_path, data, word):
    with pytest.raises(FormatError, match=f"{tmp_path}.*{word}"):
        load(tmp_path, data)


def array_of(dtype, state, raw, shape=(2,)):
    """An array with this dtype, this state of the dtype, and these bytes."""
    kind = Call(np.dtype, dtype, False, True, state=state)
    return Call(np.array(1).__reduce__()[0], np.ndarray, (0,), b"b", state=(1, shape, kind, False, raw))


@pytest.mark.parametrize(
    "evil",
    [
        array_of("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0), b"A" * 16),
        array_of("O8", (3, "|", None, None, None, -1, -1, 0), b"A" * 16),
        array_of("f8", (3, "<", (np.dtype("O"), (1,)), None, None, -1, -1, 0), b"A" * 16),
        array_of("f4", (3, "<", None, None, None, -1, -1, 0), b"A" * 8, (2**40,)),
        array_of("f4", (3, "<", None, None, None, -1, -1, 0), b"A" * 8, (-1,)),
        array_of("f4", (3, "<", None, None, None, -1, -1, 0), b"A" * 8, (2.0,)),
        array_of("f4", (3, "x", None, None, None, -1, -1, 0), b"A" * 8),
        array_of("f4", (3,), b"A" * 8),
        array_of("U999999999", (3, "<", None, None, None, -1, -1, 0), b"A" * 8),
        array_of("M8[ns]", (3, "<", None, None, None, -1, -1, 0), b"A" * 16),
    ],
)
def test_bytes_are_never_taken_for_pointers_nor_for_more_than_they_are(tmp_path, evil):
    """Numpy itself would believe the flags of a dtype, and follow the bytes of an array of objects."""
    with pytest.raises(FormatError, match=str(tmp_path)):
        load(tmp_path, pickle.dumps(evil))


BOMBS = {
    "a memo of gigabytes": b"Nr\xff\xff\xff\x7f.",
    "bytes": b"\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "more bytes than there are": b"\x8e" + struct.pack("<Q", 2**63) + b"x.",
    "text": b"\x8d" + struct.pack("<Q", 2**36) + b"x.",
    "bytearray": b"\x96" + struct.pack("<Q", 2**36) + b"x.",
    "a number": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",
    "bytearray(10**9)": stack_global("builtins", "bytearray") + b"\x8a\x06" + (10**9).to_bytes(6, "little") + b"\x85R.",
    "bytes(10**9)": stack_global("builtins", "bytes") + b"\x8a\x06" + (10**9).to_bytes(6, "little") + b"\x85R.",
    "one text encoded again and again": b"X"
    + struct.pack("<I", 2**16)
    + b"x" * 2**16
    + b"\x94"
    + stack_global("_codecs", "encode")
    + b"\x94"
    + text("latin-1")
    + b"\x940"
    + (b"h\x01h\x00h\x02\x86R") * 20_000
    + b".",
    "one list copied again and again": b"("
    + b"N" * 2**15
    + b"l\x94"
    + stack_global("builtins", "list")
    + b"\x94"
    + b"h\x01h\x00\x85R" * 10_000
    + b".",
    "a key whose hash takes for ever": b"}" + b")" + b"2\x86" * 100 + b"Ns.",
    "an element whose hash takes for ever": b"\x8f(" + b")" + b"2\x86" * 100 + b"\x90.",
    "a key that is deep": b"}" + b"N" + b"\x85" * 20_000 + b"Ns.",
    "an id that is endless": b"}" + text("features") + b"]" + b"2\x86" * 60 + b"s.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_makes_no_large_things(tmp_path, name):
    tracemalloc.start()
    try:
        (tmp_path / "f.pkl").write_bytes(b"\x80\x04" + BOMBS[name])
        for bridge in (epic100, ego, mmaction2):
            with pytest.raises(FormatError, match=str(tmp_path)):
                bridge.read(tmp_path / "f.pkl", None)
        assert tracemalloc.get_traced_memory()[1] < 48 * 2**20
    finally:
        tracemalloc.stop()


def test_tensors_reach_no_further_than_their_storage(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own storages
        storage = torch.arange(4.0).storage()
    for arguments in (
        (storage, 2, (3,), (1,)),
        (storage, 0, (2, 2), (2, 2)),
        (storage, -1, (2,), (1,)),
        (storage, 0, (-1,), (1,)),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own storages
            data = pickle.dumps(Call(torch._utils._rebuild_tensor_v2, *arguments, False, {}))
        with pytest.raises(FormatError, match=str(tmp_path)):
            load(tmp_path, data)


def test_damaged_pickles_are_refused_or_read(tmp_path):
    """Cut off or changed anywhere: other values or a FormatError, never anything else."""
    value = {"ids": ["a", "b"], "x": np.arange(6.0).reshape(2, 3), "t": torch.ones(2), "o": np.array(["a", 1], object)}
    rng = np.random.default_rng(0)
    for protocol in (0, 2, 5):
        whole = pickle.dumps(value, protocol=protocol)
        for size in range(0, len(whole), 7):
            with pytest.raises(FormatError, match=str(tmp_path)):
                load(tmp_path, whole[:size])
        read = 0
        for place in rng.integers(len(whole), size=150):
            broken = bytearray(whole)
            broken[place] = rng.integers(256)
            try:
                load(tmp_path, bytes(broken))
                read += 1
            except FormatError:
                pass
        assert read < 150


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_arrays_of_objects_are_read_in_their_order(protocol):
    """numpy lists the values of an array row by row, also where the array is stored by columns."""
    array = np.asfortranarray(np.array([["a", "b", None], ["d", 5, "f"]], object))
    loaded = pickles.loads(pickle.dumps(array, protocol), "x")
    assert loaded.tolist() == array.tolist()
