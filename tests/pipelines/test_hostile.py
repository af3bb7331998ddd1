"""No command executes anything that is in a file of a run, a store or an archive."""

import ast
import io
import json
import os
import pickle
import re
import shutil
import warnings
import zipfile
from hashlib import sha256

import numpy as np
import pytest
import torch

from featcache.errors import FeatcacheError
from pipelines.cli import main
from pipelines.training.runs import Run, write_sums
from pipelines.training.shared import Shared
from pipelines.training.train import train
from tests.conftest import ROOT
from tests.helpers import fuzz
from tests.helpers.hostile import Call, torch_file
from tests.helpers.stores import run, write_all
from tests.helpers.weights import EARLIER, HEAD, as_earlier
from tests.test_layers import FILES, nodes_of

READING = [  # further commands than those of `fuzz.COMMANDS` that read runs and stores
    [*fuzz.TRAIN, "--set", "seed=1", "--set", "init_from=RUN"],
    [*fuzz.EVALUATE, "--again", "--a-distance"],
    [*fuzz.TABLE, "--ensemble"],
    [*fuzz.TABLE, "--by", "class"],
    ["compare", "RUN", "OTHER", "--stores", "stores", "--runs", "runs"],
    ["export-head", "RUN", "out.pt2", "--stores", "stores", "--runs", "runs", "--overwrite"],
    ["evaluate", "--all", "--stores", "stores", "--runs", "runs"],
    ["search", "RUN", "words", "--stores", "stores", "--runs", "runs"],
    ["search", fuzz.HOG, "words"],
    ["predict", "RUN", "stores/toy", "--runs", "runs"],
]


def payload(path):
    """An object whose unpickling makes a file."""
    return Call(os.system, f"touch '{path}'")


def npz(value, **others):
    """An .npz file with an array of objects; the other arrays are as they were."""
    file, array = io.BytesIO(), np.empty(1, object)
    array[0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.savez(file, **dict.fromkeys(others, array) or {"a": array})
    return file.getvalue()


def npy(value):
    file, array = io.BytesIO(), np.empty(1, object)
    array[0] = value
    np.save(file, array)
    return file.getvalue()


def zipped(value):
    """A zip archive of a pickle under the names that torch and others look for."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("data.pkl", "archive/data.pkl", "archive/version", "constants.pkl"):
            archive.writestr(name, pickle.dumps(value))
    return file.getvalue()


PAYLOADS = {
    "pickle": (pickle.dumps, pickle.loads),
    "old pickle": (lambda value: pickle.dumps(value, 0), pickle.loads),
    "torch.save": (lambda value: torch_file({"w": value}), lambda data: unpickled_by_torch(data)),
    "old torch.save": (lambda value: torch_file(value, old=True), lambda data: unpickled_by_torch(data)),
    "npz": (npz, lambda data: np.load(io.BytesIO(data), allow_pickle=True)["a"]),
    "npy": (npy, lambda data: np.load(io.BytesIO(data), allow_pickle=True)),
    "zip": (zipped, lambda data: pickle.loads(zipfile.ZipFile(io.BytesIO(data)).read("data.pkl"))),
}


def unpickled_by_torch(data):
    return torch.load(io.BytesIO(data), weights_only=False)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "base"
    fuzz.make(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    return train(run(steps=1), write_all(folder / "stores"), folder / "runs")


@pytest.mark.parametrize("kind", PAYLOADS)
def test_the_payloads_would_run(kind, tmp_path):
    """The payloads run where a file is unpickled."""
    write, read = PAYLOADS[kind]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read(write(payload(tmp_path / "trap")))
    assert (tmp_path / "trap").exists()


def attack(base, scratch, trap, name, data, commands):
    """Replace a file of a copy, make the checksums right, and call commands: no trap, and no traceback."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(base, scratch)
    (scratch / name).parent.mkdir(exist_ok=True)
    (scratch / name).unlink(missing_ok=True)
    (scratch / name).write_bytes(data)
    if name.endswith(EARLIER):  # no folder has both
        (scratch / name).with_name(HEAD).unlink()
        (scratch / name).with_name("SHA256SUMS").unlink()
    fuzz.resum(scratch, scratch / name)
    for command in commands:
        fuzz.check(fuzz.call(scratch, command), f"{name}: {command}")
        assert not trap.exists(), f"{command} has executed {name}"


def commands(base, name):
    """All commands that read a file, with the ids of runs."""
    ids = sorted(path.name for path in (base / "runs").iterdir() if path.is_dir() and not path.name.startswith("."))
    run = name.split("/")[1] if name.startswith("runs/") and "/" in name[5:] else ids[0]
    words = {"RUN": run, "OTHER": next(each for each in ids if each != run), "init_from=RUN": f"init_from={run}"}
    of_file = next((each for start, each in fuzz.COMMANDS.items() if name.startswith(start)), [])
    return [[words.get(word, word) for word in command] for command in [*of_file, *READING]]


def names(base):
    """All files of a run, a store and an archive, the weights of earlier versions, and what runs share."""
    found = fuzz.files(base)
    run = next(name for name in found if name.endswith(HEAD)).rpartition("/")[0]
    return [*found, f"{run}/{EARLIER}", f"{run}/sitecustomize.py", "stores/toy/experiment.py"]


@pytest.mark.parametrize("kind", PAYLOADS)
def test_no_file_of_a_run_runs_anything(kind, finished, tmp_path):
    """Nothing runs with the right checksum, with none, and in the format of earlier versions."""
    data, trap = PAYLOADS[kind][0](payload(tmp_path / "trap")), tmp_path / "trap"
    for k, name in enumerate([*os.listdir(finished), EARLIER]):
        folder = shutil.copytree(finished, tmp_path / str(k) / finished.name)
        if name == EARLIER:
            as_earlier(folder)
        (folder / name).write_bytes(data)
        for sums in (True, False):
            if sums and name not in ("SHA256SUMS", EARLIER):
                write_sums(folder)
            elif name != "SHA256SUMS":
                (folder / "SHA256SUMS").unlink(missing_ok=True)
            with pytest.raises(FeatcacheError):
                everything(folder)
            assert not trap.exists(), name


def everything(folder):
    """Read all of a run."""
    run = Run.open(folder)
    return run.outputs, run.weights, run.method(), run.log()


@pytest.mark.parametrize("kind", PAYLOADS)
def test_no_tensor_that_runs_share_runs_anything(kind, tmp_path):
    """Its file begins with a digest, which a stranger can write, too; it is computed again."""
    data = PAYLOADS[kind][0](payload(tmp_path / "trap"))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "a.pt").write_bytes(sha256(data).digest() + data)
    assert Shared(tmp_path / "shared")("a", lambda: torch.ones(2)).tolist() == [1, 1]
    assert not (tmp_path / "trap").exists()


DEMANDED = {
    "torch.load": {"weights_only": True},
    "from_pretrained": {"trust_remote_code": False},
    "from_config": {"trust_remote_code": False},
}
FORBIDDEN = re.compile(
    r"(ForkingPickler|pickle|dill|marshal|joblib|shelve)\.(load|loads|open|Unpickler)|\w+\.read_pickle|yaml\.load|eval|exec"
)
WORDS = re.compile("|".join([*map(re.escape, DEMANDED), "allow_pickle", rf"\b({FORBIDDEN.pattern})\("]))
OURS = {  #: of what this program has written itself, and of files that the user has named as programs
    ("featcache/parallel.py", "ForkingPickler.loads"),
    ("featcache/plugins/_imports.py", "exec"),
}


def calls():
    """(file, line, dotted name, keywords) of every call in the files that have one of the words."""
    for path in FILES:
        if WORDS.search((ROOT / path).read_text(encoding="utf-8")):
            for node in nodes_of(path):
                if isinstance(node, ast.Call):
                    keywords = {each.arg: getattr(each.value, "value", each.value) for each in node.keywords}
                    yield path.as_posix(), node.lineno, ast.unparse(node.func), keywords


def test_no_call_unpickles_or_trusts():
    """The whole program is searched, so that a new reader cannot forget it."""
    seen = set()
    for path, line, name, keywords in calls():
        place = f"{path} line {line}: {name}"
        for suffix, wanted in DEMANDED.items():
            if name == suffix or name.endswith(f".{suffix}"):
                seen.add(suffix)
                assert wanted.items() <= keywords.items(), place
        assert keywords.get("allow_pickle", False) is False, place
        if FORBIDDEN.fullmatch(name):
            seen.add(name)
            assert (path, name) in OURS, place
    assert seen == {*DEMANDED, *(name for _, name in OURS)}


def test_commands_that_run_a_python_file_note_it():
    taking = {"experiment", "experiments", "names"}
    named = {name for name, command in main.commands.items() if taking & {p.name for p in command.params}}
    noted = {name for name, command in main.commands.items() if "only files that you trust" in (command.help or "")}
    assert {"train-head", "evaluate", "table", "compare", "report", "sweep", "choose"} <= noted
    assert noted == named


@pytest.mark.slow
def test_no_codec_of_a_store_runs_anything(base, tmp_path):
    """zarr unpickles on request: a store with other codecs, or of zarr's second version, is refused."""
    trap, scratch = tmp_path / "trap", tmp_path / "scratch"
    array = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "|O", "fill_value": None, "order": "C"}
    array |= {"compressor": None, "filters": [{"id": "pickle"}], "dimension_separator": "."}
    for name in ("state", "features", "digest", "length"):
        for version in (2, 3):
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(base, scratch)
            folder = scratch / fuzz.HOG / name
            metadata = json.loads((folder / "zarr.json").read_text())
            if version == 2:
                (folder / "zarr.json").unlink()
                (folder / ".zarray").write_text(json.dumps(array))
                (folder / "0").write_bytes(pickle.dumps(payload(trap)))
            else:
                metadata["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
                (folder / "zarr.json").write_text(json.dumps(metadata))
                for chunk in (path for path in (folder / "c").rglob("*") if path.is_file()):
                    chunk.write_bytes(pickle.dumps(payload(trap)))
            for command in fuzz.COMMANDS["stores/"]:
                fuzz.check(fuzz.call(scratch, command), f"{name} of version {version}: {command}")
                assert not trap.exists(), f"{command} has executed {name} of version {version}"


@pytest.mark.slow
def test_no_file_of_a_folder_runs_anything(base, tmp_path):
    """Each file, with two kinds of payload and two of the commands that read it, in turn."""
    trap = tmp_path / "trap"
    for k, name in enumerate(names(base)):
        words = commands(base, name)
        for j in range(2):
            data = PAYLOADS[list(PAYLOADS)[(2 * k + j) % len(PAYLOADS)]][0](payload(trap))
            attack(base, tmp_path / "scratch", trap, name, data, [words[(2 * k + j) % len(words)]])
