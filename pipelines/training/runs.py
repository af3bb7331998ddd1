"""The folder of a finished run: RUNS/<run id>/ with its configuration, facts, log, weights and outputs.

    config.json   the RunConfig
    run.json      facts: versions, seconds, fingerprints of everything read, the Spec, the evaluation points
    log.jsonl     one line per step: the terms of the loss
    head.pt       state dict of the method, net included, at the last kept point
    outputs.npz   outputs of `predict` on the test rows at the kept points, (points, rows, ...) each, and `rows`;
                  in retrieval "visual" of clips and "text" of `captions`, with the clip of each caption in `clip`;
                  in clustering "feature_B0", "feature_B1", and where there are clusters "cluster_B0", "cluster_B1"
    SHA256SUMS    digests of the files above

A folder is written under another name and renamed, so it is complete or absent. Later damage (a full disk, an
interrupted copy, files or folders that were exchanged) is noticed when the folder is opened. Folders of earlier
versions have no SHA256SUMS; in these, damage is noticed where a file cannot be read any more.
"""

import errno
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featcache import registry, sums
from featcache.errors import ConfigError
from featcache.files import file_sha256, remembered
from heads import nets
from heads.batch import Spec
from heads.methods import Method
from pipelines import settings
from pipelines.config import RunConfig, method_class
from pipelines.data.opening import Opened
from pipelines.training.outputs import ONCE

T = TypeVar("T")
CONTENT = (None, errno.ENOENT, errno.EINVAL)  #: errors of a file's content; others are those of a disk
FILES = ("config.json", "run.json", "log.jsonl", "head.pt", "outputs.npz")
FACTS = ("read", "note", "recipes", "untrained", "collapsed", "points", "spec")  #: keys that every run.json has


@dataclass(frozen=True)
class Run:
    """A finished run."""

    folder: Path
    config: RunConfig
    facts: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """Read configuration and facts; ConfigError when the run is missing or one of its files is damaged.

        Files are compared with SHA256SUMS, each once per process while it does not change.
        """
        if not folder.is_dir():
            raise ConfigError(f"no finished run at {folder}; train it with `featcache train-head`")
        config, has_sums = read_config(folder), _check_sums(folder, FILES)
        run = cls(folder, config, _sound(folder / "run.json", _facts))
        _sound(folder / "log.jsonl", run.check_log)
        for name in () if has_sums else ("head.pt", "outputs.npz"):
            _sound(folder / name, _check_zip)
        return run

    def check_log(self, path: Path) -> None:
        """Raise ValueError unless the log has all steps and its last line is complete."""
        lines = path.read_text(encoding="utf-8").splitlines()
        if len(lines) != self.config.steps:
            raise ValueError(f"it has {len(lines)} of {self.config.steps} steps")
        if lines:
            json.loads(lines[-1])

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Output -> (points, rows, ...) at the kept points; "rows" are manifest rows (rows,).

        In retrieval "captions" (c,) are rows of the manifest of captions, and "clip" (c,) positions in "rows".
        """
        return _sound(self.folder / "outputs.npz", self._outputs)

    def _outputs(self, path: Path) -> dict[str, NDArray[Any]]:
        with np.load(path) as arrays:
            outputs = dict(arrays)
        points = {name: len(array) for name, array in outputs.items() if name not in ONCE}
        if "rows" not in outputs or set(points.values()) != {len(self.points)}:
            raise ValueError(f"it has other outputs than rows and {len(self.points)} kept points")
        return outputs

    @property
    def points(self) -> list[dict[str, float]]:
        """The kept evaluation points: step, and the score of every validator whose rows the run has."""
        points: list[dict[str, float]] = self.facts["points"]
        return points

    def log(self) -> list[dict[str, float]]:
        """The terms of the loss at each step."""
        return _sound(
            self.folder / "log.jsonl",
            lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()],
        )

    def method(self, device: str = "cpu") -> Method:
        """The trained method, in eval mode."""
        method = build(self.config, _sound(self.folder / "run.json", self._spec)).to(device)
        weights = load_weights(self.folder, device)
        _sound(self.folder / "head.pt", lambda _: method.load_state_dict(weights))
        return method.eval()

    def _spec(self, _: Path) -> Spec:
        facts = self.facts["spec"]
        shapes = {m: tuple(shape) for m, shape in facts["shapes"].items()}
        named = {name: tuple(facts.get(name, ())) for name in ("domains", "captions")}
        return Spec(**{**facts, **named, "shapes": shapes})


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run's folder; ConfigError when the folder is damaged, or is that of another run."""
    _check_sums(folder, ("config.json",))
    config = _sound(folder / "config.json", _config)
    if config.id != (name := os.path.basename(os.path.abspath(folder))):
        raise ConfigError(
            f"{folder} is the folder of run {config.id}, under another name: it was renamed or exchanged; name it "
            f"{config.id}, and train run {name} again with `featcache train-head`"
        )
    return config


def load_weights(folder: Path, device: str = "cpu") -> dict[str, Tensor]:
    """The state dict in head.pt; ConfigError when it cannot be read."""
    weights: dict[str, Tensor] = _sound(
        folder / "head.pt", lambda path: torch.load(path, map_location=device, weights_only=True)
    )
    return weights


def _check_sums(folder: Path, names: Iterable[str]) -> bool:
    """Compare files with SHA256SUMS; False if there is none, as in folders of earlier versions."""
    if not (folder / sums.NAME).exists():
        return False
    listed = _sound(folder / sums.NAME, lambda path: sums.parse(path.read_bytes()))

    def check(path: Path) -> None:
        if listed.get(path.name) != _sha256(path):
            raise ValueError(f"it does not match {sums.NAME}")

    for name in names:
        _sound(folder / name, check)
    return True


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS for the files in a run's folder."""
    (folder / sums.NAME).write_bytes(sums.text({name: file_sha256(folder / name) for name in FILES}))


_sha256 = remembered(1 << 14)(file_sha256)


def _sound(path: Path, read: Callable[[Path], T]) -> T:
    """Return `read(path)`; ConfigError with the fix if the file of a run is missing or damaged.

    Torch, numpy and zipfile raise errors of many types for damaged files.
    """
    try:
        return read(path)
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in CONTENT:
            raise
        reason = " ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({reason})"
        raise ConfigError(f"{path} {problem}; train the run again with `featcache train-head`") from None


def _config(path: Path) -> RunConfig:
    return RunConfig.from_json(json.loads(path.read_text(encoding="utf-8")))


def _facts(path: Path) -> dict[str, Any]:
    facts = json.loads(path.read_text(encoding="utf-8"))
    for name in FACTS:
        if name not in facts:
            raise ValueError(f"it has no {name!r}")
    return dict(facts)


def _check_zip(path: Path) -> None:
    """Check that weights or outputs are a zip archive whose members have the checksums that it lists."""
    if path.stat().st_size == 0 or not zipfile.is_zipfile(path):  # its directory is at the end
        raise ValueError("it is cut off, or not an archive of torch or numpy")
    if member := _first_bad(path):
        raise ValueError(f"{member} in it does not match its checksum")


@remembered(1 << 14)
def _first_bad(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def build(config: RunConfig, spec: Spec) -> Method:
    """Build the run's net and method with weights from torch's global stream; the net first, so methods share it."""
    try:
        net = registry.load(nets, settings.name_of(config.net), "net").NET(config.net, spec)
        method: Method = method_class(config)(config.method, spec, net)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return method


def write(
    folder: Path,
    config: RunConfig,
    spec: Spec,
    facts: dict[str, Any],
    *,
    log: list[dict[str, float]],
    weights: Mapping[str, Tensor],
    outputs: dict[str, NDArray[Any]],
) -> None:
    """Write a run's folder, replacing an older one of that name."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed here
    partial.mkdir(parents=True)
    contents = {
        "config.json": json.dumps(config.to_json(), indent=1) + "\n",
        "run.json": json.dumps({**facts, "spec": asdict(spec)}, indent=1) + "\n",
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in log),
    }
    for name, content in contents.items():
        (partial / name).write_text(content, encoding="utf-8")
    torch.save(dict(weights), partial / "head.pt")
    np.savez(partial / "outputs.npz", **outputs)  # type: ignore[arg-type]
    write_sums(partial)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


# --------------------------------------------------------------------------------------------------------- earlier runs


def fingerprints(opened: Opened, runs: Path) -> dict[str, str]:
    """Name -> fingerprint of everything, except the configuration, that a run's result depends on."""
    read = {f"store {m}": store.fingerprint for m, store in opened.stores.items()}
    read["manifest"] = opened.manifest.sha256
    if opened.captions:
        read["captions"] = opened.captions.manifest.sha256
    if first := opened.config.init_from:
        try:
            path = Run.open(runs / first).folder / "head.pt"
        except ConfigError as error:
            raise ConfigError(f"init_from names {first}, which is not a finished run in {runs} ({error})") from None
        read["init_from"] = _sha256(path)
    return read


def changes(run: Run, read: dict[str, str]) -> str:
    """Names of the things that have changed since the run read them, as text; "" if none has."""
    return ", ".join(name for name in read if run.facts["read"].get(name) != read[name])


def out_of_date(folder: Path, read: dict[str, str]) -> str:
    """The reason for training a run: "" if it is up to date, "new" if there is none, else the changes."""
    if not folder.exists():
        return "new"
    try:
        changed = changes(Run.open(folder), read)
    except ConfigError as error:
        return f"trained again, because {str(error).partition(';')[0]}"
    return f"trained again, because these have changed: {changed}" if changed else ""
