"""A small folder of stores, archives and runs, and changes of its files as a stranger or a bad disk would make them."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from click.testing import CliRunner

from featcache.store import _format as fmt
from featcache.store import digests
from featcache.store.reader import FeatureStore
from pipelines.cli import main
from tests.helpers.stores import write_all
from tests.helpers.weights import HEAD

CPU_SECONDS, SECONDS = 5, 60  # the machine may have other work
EXPERIMENT = """
from heads.methods import source_only
from heads.nets import adapter
from pipelines.config import Feed, Optim, RunConfig

RUNS = (
    RunConfig(
        "toy",
        source_only.Params(),
        adapter.Params(dim=8),
        {"rgb": Feed("hog"), "flow": Feed("hof")},
        row="source-only",
        source=("day",),
        test="night",
        steps=6,
        epoch="source",
        batch=(6, 6),
        eval_every=3,
        keep=2,
        absent="drop",
    ),
)
"""
JOB = ["experiment.py", "--stores", "stores", "--runs", "runs"]
TRAIN = ["train-head", *JOB, "--workers", "1"]
EVALUATE, TABLE = ["evaluate", *JOB], ["table", *JOB]
HOG = "stores/toy/hog.zarr"
COMMANDS = {  # the beginning of a file's path -> the commands that read it
    "runs/results.jsonl": [TABLE, [*TABLE, "--metric", "norms"], ["choose", *JOB], ["report", *JOB]],
    "runs/": [EVALUATE, ["choose", *JOB], ["report", *JOB], TRAIN],
    "stores/": [
        ["info", HOG],
        ["check", HOG],
        ["pack", HOG, "packed.zarr"],
        ["export", HOG, "--to", "out.npz"],
        EVALUATE,
        TRAIN,
        ["repair", HOG],
    ],
    "archive.zarr/": [["info", "archive.zarr"], ["check", "archive.zarr"], ["unpack", "archive.zarr", "out.zarr"]],
}


def make(base):
    """Write the stores, train and evaluate the runs, and pack a store."""
    write_all(base / "stores", states={3: "failed"})
    (base / "experiment.py").write_text(EXPERIMENT)
    other = ["--set", "optim.lr=0.1"]  # something to choose from
    for command in ([*TRAIN, *other], [*EVALUATE, *other], TRAIN, EVALUATE, ["pack", HOG, "archive.zarr"]):
        result = call(base, command)
        assert result.exit_code == 0, result.output


def files(base):
    """All files that a command may read, relative to the folder."""
    names = sorted(str(path.relative_to(base)) for path in base.rglob("*") if path.is_file())
    heads = [base / name for name in names if name.endswith(HEAD)]
    run = max(heads, key=lambda path: path.stat().st_mtime)
    run = str(run.parent.relative_to(base))
    fuzzed = (HOG, run + "/", "archive.zarr", "runs/results.jsonl", "stores/toy/manifest.csv")
    return [name for name in names if name.startswith(fuzzed)]


def call(folder, command):
    """Run a command in a folder, and return its result."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with limited():
            return CliRunner().invoke(main, command)
    finally:
        os.chdir(before)


@contextmanager
def limited():
    """Fail when the block takes longer than the limits."""

    def stop(*_):
        raise AssertionError("it hangs")

    before = [signal.signal(number, stop) for number in (signal.SIGVTALRM, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in zip((signal.SIGVTALRM, signal.SIGALRM), before, strict=True):
            signal.signal(number, handler)


def attack(base, scratch, name, seed, commands=None):
    """Change one file of a copy, call commands, and check that each works or says in one sentence why not."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(base, scratch)
    rng = random.Random(seed)
    what = change(scratch / name, rng)
    if rng.random() < 0.7:
        resum(scratch, scratch / name)
    choices = commands_for(name)
    for command in choices if commands is None else rng.sample(choices, commands):
        check(call(scratch, command), f"{name} ({what}, {seed}): {command}")


def commands_for(name):
    """The commands that read a file."""
    commands = next(words for start, words in COMMANDS.items() if name.startswith(start))
    own = [["predict", os.path.dirname(name), "stores/toy"]] if name.startswith("runs/") and name.count("/") > 1 else []
    return [*own, *commands]


def check(result, place):
    """Fail unless a command worked or said why not."""
    if not (result.exception is None or isinstance(result.exception, SystemExit)) or "Traceback" in result.output:
        raise AssertionError(f"{place}: {result.exception!r} {result.output}") from result.exception


def bind(path):
    """Make a socket."""
    before = os.getcwd()
    os.chdir(path.parent)  # addresses are short
    try:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path.name)
    finally:
        os.chdir(before)


IRREGULAR = {
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": bind,
    "folder": Path.mkdir,
}


def replace(base, scratch, name, kind, commands):
    """Put something else in the place of a file of a copy, and check that each command works or says why not."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(base, scratch)
    (scratch / name).unlink()
    IRREGULAR[kind](scratch / name)
    for command in commands:
        check(call(scratch, command), f"{name} as {kind}: {command}")


# ------------------------------------------------------------------------------------------------------------- changes

VALUES = [
    *("null", "true", "false", "0", "1", "-1", "2", "3", "7", "1.5", "1e999", "NaN", "-Infinity", "1e300", "0.1"),
    *(str(2**31), str(2**32), str(2**53), str(2**63), str(-(2**63)), "9" * 400, "9" * 5000),
    *('""', '"x"', '"../../x"', '"\\u0000"', '"\\ud800"', '"/dev/zero"', '"1"', '"' + "a" * 5000 + '"'),
    *("[]", "{}", "[1]", '{"a": 1}', "[[]]", '[""]', "[null]", "[1e999]", "[" * 70 + "]" * 70),
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 5000 + "1" + "}" * 5000),
]


def change(path, rng):
    """Change a file by one of the ways that fit it, and return the way."""
    ways = [flipped, cut, zeroed, doubled, empty]
    ways += {".json": [edited] * 10, ".jsonl": [edited] * 10, ".npz": [arrays] * 10}.get(path.suffix, [])
    ways += {".pt": [weights] * 10, ".safetensors": [tensors] * 10}.get(path.suffix, [])
    ways += [cells] * 5 if path.suffix == ".csv" else []
    ways += [numbers] * 10 if "/c/" in str(path) else []
    way = rng.choice(ways)
    data = way(path.read_bytes(), rng)
    path.unlink()  # it may be linked
    path.write_bytes(data)
    return way.__name__


def flipped(data, rng):
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 5])):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data, rng):
    return data[: rng.randrange(len(data) + 1)]


def zeroed(data, rng):
    start = rng.randrange(len(data) + 1)
    length = min(rng.choice([1, 16, 4096]), len(data) - start)
    return data[:start] + bytes(length) + data[start + length :]


def doubled(data, rng):
    start, stop = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:stop] + data[start:]


def empty(data, rng):
    return b""


def edited(data, rng):
    """JSON with another value in some place, a key less, or a key twice; of a file of lines, in one line."""
    lines = data.split(b"\n") if data.count(b"\n{") else [data]
    k = rng.randrange(max(1, len(lines) - (len(lines) > 1)))
    content = json.loads(lines[k])
    places = list(_places(content))
    holder, key = rng.choice(places) if places else (None, None)
    raw, mark = rng.choice(VALUES), "@@@"
    what = rng.randrange(6)
    if holder is None or (what == 0 and rng.random() < 0.2):
        text = raw
    elif what == 1:
        del holder[key]
        text = json.dumps(content)
    elif what == 2 and isinstance(holder, dict):
        holder[mark] = 1
        text = json.dumps(content).replace(f'"{mark}": 1', f"{json.dumps(key)}: {raw}")
    elif what == 3 and isinstance(holder, list):
        holder.append(holder[key])
        text = json.dumps(content)
    else:
        holder[key] = mark
        text = json.dumps(content).replace(f'"{mark}"', raw)
    lines[k] = text.encode()
    return b"\n".join(lines)


def _places(content):
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, part in parts:
        yield content, key
        yield from _places(part)


def arrays(data, rng):
    """An .npz file of other arrays."""
    try:
        with np.load(io.BytesIO(data)) as file:
            content = dict(file)
    except Exception:
        return data
    name = rng.choice(list(content))
    array = content[name]
    others = [
        lambda: array.astype(str),
        lambda: array.astype(object),
        lambda: array.astype(complex),
        lambda: array[:0],
        lambda: array[..., :1],
        lambda: array[None],
        lambda: array[:1],
        lambda: np.float32(1),
        lambda: array.astype(float) * np.nan,
        lambda: array.astype(float),
        lambda: array - 10**6,
        lambda: array + 10**6,
        lambda: array.astype(bool),
        lambda: np.concatenate([array, array]),
        lambda: np.zeros(array.shape, "V4"),
        lambda: None,
    ]
    content[name] = rng.choice(others)()
    if content[name] is None:
        del content[name]
    out = io.BytesIO()
    (np.savez if rng.random() < 0.8 else np.savez_compressed)(out, **content)
    return out.getvalue()


def weights(data, rng):
    """A file of torch.save with other content."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    name = rng.choice(list(content))
    value = content[name]
    others = [
        value.flatten()[:1],
        value[None],
        value.flatten(),
        value.to(torch.complex64),
        value.to(torch.int64),
        value * torch.nan,
        value.to_sparse(),
        value.new_empty(0),
        torch.zeros(1).expand(10**6, 10**6),
        torch.empty(10**9, device="meta"),
        "text",
        None,
        [value],
    ]
    content[name] = rng.choice(others)
    if rng.random() < 0.2:
        content = rng.choice([[content], content[name], {}, {"x": content}, {1: value}])
    elif rng.random() < 0.2:
        content["other"] = value
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def tensors(data, rng):
    """A file of safetensors with other content, or with another header."""
    if rng.random() < 0.5:
        length = int.from_bytes(data[:8], "little")
        head = edited(data[8 : 8 + length], rng)
        return rng.choice([len(head), length]).to_bytes(8, "little") + head + data[8 + length :]
    content = safetensors.torch.load(data)
    name = rng.choice(sorted(content))
    value = content[name]
    content[name] = rng.choice(
        [
            value.flatten()[:1],
            value[None],
            value.flatten(),
            value.to(torch.float16),
            value.to(torch.int64),
            value.to(torch.float8_e4m3fn),
            value * torch.nan,
            value.new_empty(0),
        ]
    ).contiguous()
    if rng.random() < 0.2:
        content["other"] = value.clone()
    elif rng.random() < 0.2:
        del content[name]
    return safetensors.torch.save(content)


def cells(data, rng):
    """CSV with another cell, a line less, or a column less."""
    lines = data.decode().split("\n")
    k = rng.randrange(len(lines))
    parts = lines[k].split(",")
    what = rng.randrange(4)
    if what == 0:
        del lines[k]
    elif what == 1:
        lines[k] = ",".join(parts[:-1])
    elif what == 2:
        lines[k] += ',"x"'
    else:
        parts[rng.randrange(len(parts))] = rng.choice(['"', '"\0"', "-1", "nan", "1e999", "x" * 200_000, "\ufeff", ""])
        lines[k] = ",".join(parts)
    return "\n".join(lines).encode()


def numbers(data, rng):
    """Bytes of numbers that are very large, not finite, or negative."""
    values = np.frombuffer(data[: len(data) // 8 * 8], np.uint8).copy()
    pattern = rng.choice([b"\xff", b"\x00\x00\xf0\x7f", b"\x7f", b"\x01", b"\x80", b"\x04", b"\x00\x00\x00\x40"])
    start = rng.choice([0, 0, rng.randrange(len(values) // 8 + 1) * 8])
    stop = min(len(values), start + rng.choice([1, 8, 64, 10**9]))
    values[start:stop] = np.resize(np.frombuffer(pattern, np.uint8), stop - start)
    return values.tobytes() + data[len(values) :]


# ---------------------------------------------------------------------------------------------------------------- sums


def resum(base, changed):
    """Make the checksums of a changed file right, as an attacker can."""
    store = next((path for path in changed.parents if path.suffix == ".zarr"), None)
    if store and (store / fmt.SUMS).exists() and not (store / fmt.ARCHIVE).exists():
        _seal(store)
    for folder in (path for path in changed.parents if (path / "SHA256SUMS").is_file() and path != base.parent):
        lines = []
        for line in (folder / "SHA256SUMS").read_bytes().split(b"\n"):
            _, space, name = line.partition(b"  ")
            try:
                digest = hashlib.sha256((folder / name.decode()).read_bytes()).hexdigest().encode()
                line = digest + space + name if space else line
            except (OSError, ValueError):
                pass
            lines.append(line)
        (folder / "SHA256SUMS").write_bytes(b"\n".join(lines))


def _seal(store):
    """Write the digest of a store's first block again."""
    try:
        layout = FeatureStore.open(store).layout
        sums = {name: digests.file_crc(store / layout.files(0)[name]) for name in fmt.BLOCK_FILES}
        Path(store, layout.files(0)["digest"]).write_bytes(digests.digest_row(store, 0, sums))
    except (OSError, ValueError):
        pass
