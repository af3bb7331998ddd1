"""The folder of a finished run: RUNS/<run id>/ with its configuration, facts, log, weights and outputs.

    config.json        the RunConfig
    run.json           facts: versions, seconds, date, host, fingerprints of all that is read, the Spec, the points
    log.jsonl          one line per step: the terms of the loss
    head.safetensors   state dict of the method, net included, at the last kept point, and the units of the features
    outputs.npz        outputs of `predict` on the test rows at the kept points, (points, rows, ...) each, and `rows`;
                       in retrieval "visual" of clips and "text" of `captions`, with the clip of each caption in `clip`;
                       in clustering "feature_B0", "feature_B1", and of clusters "cluster_B0", "cluster_B1"
    SHA256SUMS         digests of the files above

No file of a folder can execute anything when it is read. Folders of earlier versions have the weights in head.pt, a
file of torch.save, of which only tensors are read.

A folder is written under another name and renamed, so it is complete or absent. Later damage (a full disk, an
interrupted copy, files or folders that were exchanged) is noticed when the folder is opened. Folders of earlier
versions have no SHA256SUMS; in these, damage is noticed where a file cannot be read any more.
"""

import errno
import json
import math
import os
import traceback
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from featcache import plugins, registry, schema, sums
from featcache.errors import ConfigError, FeatcacheError, NoEntryError
from featcache.files import file_sha256, making_folder, regular, remembered, steady
from featcache.schema import AnyFloat
from featcache.store.reader import recipe_digest
from featcache.untrusted import not_stored
from featcache.wording import first, shortened
from heads import nets
from heads.batch import Spec
from heads.methods import Method
from heads.units import Prepare
from pipelines import settings
from pipelines.config import RunConfig, method_class
from pipelines.data.opening import Opened, open_run
from pipelines.measures.validators import VALIDATORS
from pipelines.training.kept import (
    WEIGHTS,
    loaded,
    read_outputs,
    read_weights,
    weights_file,
    with_weights,
    write_weights,
)
from pipelines.training.outputs import ONCE, looked_elsewhere

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
UNITS_OF = "preparation."  #: prefix of the units of features among the weights
CONTENT = (None, errno.ENOENT, errno.EINVAL)  #: errors of a file's content; others are those of a disk
TEXTS, OUTPUTS = ("config.json", "run.json", "log.jsonl"), "outputs.npz"
FILES = (*TEXTS, *WEIGHTS, OUTPUTS)  #: all names; a folder has one of `WEIGHTS`
LogLine = dict[str, float]  #: term of the loss -> value, and "step"


@dataclass(frozen=True)
class Recorded:
    """The features of one modality as a run has read them: enough to make them of other clips."""

    recipe: dict[str, Any]  #: of its store
    windows: int  #: T of its store


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts about a finished run: the content of run.json. Runs of older versions lack those with a default."""

    read: dict[str, str]  #: fingerprints of everything that the run has read
    note: str  #: "new", or the reason for training the run again
    recipes: dict[str, str]  #: modality -> sha256 of the recipe of its features
    features: dict[str, Recorded] = field(default_factory=dict)  #: modality -> recipe and windows; {} in earlier runs
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)  #: label -> names of `spec.classes`; {} as above
    untrained: tuple[str, ...]  #: modalities whose extractor had untrained weights
    collapsed: tuple[str, ...]  #: modalities whose features are dead after training
    one_class: tuple[str, ...] = ()  #: class that all test and training rows are given, if there is one
    points: tuple[dict[str, AnyFloat], ...]  #: of each kept point its step, which is finite, and the validators' scores
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    tier: str = ""  #: tier of the features in training, and the reason for it
    tier_why: str = ""
    seconds: float = 0.0
    date: str = ""  #: UTC, of the end of training
    host: str = ""  #: name of the machine
    batched: int = 0  #: number of runs that were trained in one pass, this one included; 0: it was trained alone
    spec: Spec


class NotTrainedError(ConfigError):
    """A run that is missing, damaged or out of date: training it again is the way out."""


def explained(error: Exception, folder: Path) -> str:
    """Return the error of a run as text: a user's error is its message, and an error of the program its traceback."""
    if isinstance(error, FeatcacheError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error} ({error.filename or folder})"
    return "".join(traceback.format_exception(error))


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run: its configuration, facts, log, weights and outputs."""

    folder: Path
    config: RunConfig
    facts: Facts

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Read configuration and facts; NotTrainedError when the run is missing or one of its files is damaged.

        Files are compared with SHA256SUMS, each once per process while it does not change. A folder that another
        process replaces meanwhile, because it has trained the run again, is read again.
        """
        folder = Path(folder)
        while True:
            version = _version(folder)
            try:
                return cls._open(folder)
            except NotTrainedError:
                if version == _version(folder):
                    raise

    @classmethod
    def _open(cls, folder: Path) -> "Run":
        if not folder.is_dir():
            raise NotTrainedError(f"no finished run at {folder}; train it with `featcache train-head`")
        _refuse_runs(folder)
        config, has_sums = read_config(folder), _check_sums(folder, files_of(folder))
        run = cls(folder, config, _sound(folder / "run.json", _facts))
        _sound(folder / "run.json", run.check_facts)
        _sound(folder / "log.jsonl", run.check_log)
        for path in () if has_sums else (run.weights_file, folder / OUTPUTS):
            _sound(path, read_weights if path.name == WEIGHTS[0] else _check_zip)
        return run

    def check_facts(self, path: Path) -> None:
        """Raise ValueError unless the facts fit the configuration."""
        facts, config = self.facts, self.config
        kept = 1 if config.keeps_best else config.kept
        if len(facts.points) != kept:
            raise ValueError(f"it has {len(facts.points)} points, and config.json has {kept}")
        for step in (point.get("step", math.nan) for point in facts.points):
            if not (0 <= step <= config.steps and step.is_integer()):  # NaN is not in that range
                raise ValueError(f"the step of a point is {step:g}, which is none of {config.steps} steps")
        if config.select in VALIDATORS and any(config.select not in point for point in facts.points):
            raise ValueError(f"a point has no score {config.select!r}, which selects the result")
        if not facts.spec.classes and not config.captions:
            raise ValueError("spec.classes is empty")
        for m in config.feeds if facts.features else ():
            recorded = facts.features.get(m)
            if not recorded or recipe_digest(recorded.recipe) != facts.recipes.get(m):
                raise ValueError(f"features.{m} is not the recipe whose digest is recipes.{m}")
        if set(facts.spec.captions) != set(config.captions):
            raise ValueError(f"spec.captions={facts.spec.captions}, but the feeds have {config.captions}")

    def check_log(self, path: Path) -> None:
        """Raise ValueError unless the log has all steps and its last line is complete."""
        lines = _lines(path)
        if len(lines) != self.config.steps:
            raise ValueError(f"it has {len(lines)} of {self.config.steps} steps")
        if lines:
            schema.parse(lines[-1], LogLine, f"line {len(lines)}")

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Output -> (points, rows, ...) at the kept points; "rows" are manifest rows (rows,).

        In retrieval "captions" (c,) are rows of the manifest of captions, and "clip" (c,) positions in "rows".
        """
        points, spec = len(self.facts.points), self.facts.spec
        return _sound(self.folder / OUTPUTS, lambda path: read_outputs(path, points, spec))

    def tested_on(self, places: list[int]) -> "Run":
        """Return the run with the outputs of only some of its test rows, at these places of "rows"."""
        run = replace(self)
        whole = {name: array if name in ONCE else array.swapaxes(0, 1) for name, array in self.outputs.items()}
        part = {name: array[places] for name, array in whole.items()}
        run.__dict__["outputs"] = {n: array if n in ONCE else array.swapaxes(0, 1) for n, array in part.items()}
        return run

    @property
    def points(self) -> tuple[dict[str, float], ...]:
        """The kept evaluation points: step, and the score of every validator whose rows the run has."""
        return self.facts.points

    @property
    def selects_elsewhere(self) -> bool:
        """True if its result may be that of another point than the last one, whose weights it keeps."""
        return self.config.select != "last" and len(self.points) > 1

    def __repr__(self) -> str:
        config, facts = self.config, self.facts
        head = f"Run {config.id}{f' ({config.row_shown})' if config.row else ''}"
        sides = f"{'+'.join(config.source) or 'no source'}→{config.test}"
        if config.target != config.test:
            sides += f", target {config.target}" if config.target else ", no target"
        feeds = ", ".join(f"{modality} {feed.store}" for modality, feed in config.feeds.items())
        steps = f"{config.steps} steps in {facts.seconds:.1f} s"
        words = (
            f"{settings.name_of(config.method)} with {settings.name_of(config.net)}, {sides}, feeds {feeds}, {steps}"
        )
        return f"{shortened(head)}\n{shortened(words)}"

    def frame(self) -> "pd.DataFrame":
        """Return the log: a line per step with the terms of the loss, NaN where a step has no such term."""
        import pandas as pd

        return pd.DataFrame(self.log())

    def log(self, every: int = 1) -> list[LogLine]:
        """The terms of the loss at each step, or at every so many steps and at the last one."""

        def read(path: Path) -> list[LogLine]:
            lines = _lines(path)
            chosen = sorted({*range(0, len(lines), every), *range(len(lines))[-1:]})
            return [schema.parse(lines[k], LogLine, f"line {k + 1}") for k in chosen]

        return _sound(self.folder / "log.jsonl", read)

    def method(self, device: str = "cpu", like: "tuple[Run, Method] | None" = None) -> Method:
        """The trained method, in eval mode. It reads features as the run prepares them (`ready`).

        NotTrainedError if a file of a plug-in has changed since the run was made.
        like: another run and its method. A run of the same settings and spec needs no new one: that method gets its
        weights, and is returned.
        """
        (weights, _), spec, config = self.weights, self.facts.spec, self.config
        if changed := changes(self.facts.read, plugged(config)):
            raise NotTrainedError(f"{changed} has changed since run {config.id} was made; train it again")

        def load(_: Path) -> Method:
            if like and like[0].settings == self.settings:
                return loaded(like[1], weights)
            return with_weights(lambda: build(config, spec), weights)

        return _sound(self.weights_file, load).to(device).eval()

    @property
    def settings(self) -> tuple[Any, Any, Spec]:
        """Everything that its method is built from, except the weights."""
        return self.config.method, self.config.net, self.facts.spec

    @property
    def weights(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights of the trained method by name, and the units of the features, on the CPU."""
        return _sound(self.weights_file, lambda path: split_weights(read_weights(path)))

    @property
    def weights_file(self) -> Path:
        """The file of the weights: head.safetensors, or head.pt in runs of earlier versions."""
        return weights_file(self.folder)

    def check_spec(self, opened: Opened) -> None:
        """Raise NotTrainedError unless the run was trained on features and classes of these shapes."""
        spec, stores = self.facts.spec, opened.stores
        expected: dict[str, Any] = {
            "shapes": {m: tuple(stores[m].row_shape) for m in self.config.feeds},
            "classes": {label: len(names) for label, names in opened.classes.items()},
            "domains": opened.domains,
            "clusters": opened.clusters,
        }
        for name, value in expected.items():
            if (stored := getattr(spec, name)) != value and stored != ():  # the oldest runs have no domains
                raise NotTrainedError(
                    f"{self.folder / 'run.json'} is damaged (spec.{name} is {stored}, but the data have {value}); "
                    "train the run again with `featcache train-head`"
                )

    def opened(self, stores: Path, device: str = "cpu") -> Opened:
        """Open the data that the run read, prepared with its units; NotTrainedError if the data have changed."""
        return self.ready(open_run(self.config, stores, device))

    def ready(self, opened: Opened) -> Opened:
        """Return the opened data after giving them the run's units; NotTrainedError if the data have changed."""
        if changed := changes(self.facts.read, fingerprints(opened, self.folder.parent)):
            raise NotTrainedError(f"{changed} has changed since run {self.config.id} was made; train it again")
        self.check_spec(opened)
        self.load_units(opened.prepare)
        return opened

    def load_units(self, prepare: Prepare | None) -> None:
        """Give the preparation of the run's features its units, if there is one."""
        if prepare:
            _, units = self.weights
            _sound(self.weights_file, lambda _: prepare.load_state_dict(units))


def _version(folder: Path) -> tuple[int, int] | None:
    """Return a mark of the folder that is at this path now; None if there is none."""
    try:
        s = folder.stat()
    except OSError:
        return None
    return s.st_ino, s.st_ctime_ns


def files_of(folder: Path) -> tuple[str, ...]:
    """Return the names of the files that a run's folder should have."""
    return (*TEXTS, weights_file(folder).name, OUTPUTS)


def is_run(folder: Path) -> bool:
    """Return whether a folder has a file of a run, and is not the scratch folder of one."""
    return not folder.name.startswith(".") and any((folder / name).is_file() for name in FILES)


def _refuse_runs(folder: Path) -> None:
    """Raise NotTrainedError for a folder that has runs and is none."""
    if not is_run(folder) and (inside := sorted(path.name for path in folder.iterdir() if is_run(path))):
        raise NotTrainedError(f"{folder} is a folder of runs; name one of them: {first(inside)}")


def find_run(word: Path, runs: Path) -> Run:
    """Open the run of a folder, or of an id in the folder of all runs; ConfigError if there is none."""
    folder = next((folder for folder in (word, runs / word) if is_run(folder)), None)
    if folder:
        return Run.open(folder)
    if word.is_dir():
        _refuse_runs(word)
    raise ConfigError(
        f"{word} is no finished run, and {runs} has none of that id; name the folder that `featcache train-head` has "
        "made"
    )


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run's folder; NotTrainedError when the folder is damaged, or is that of another run."""
    _check_sums(folder, ("config.json",))
    config = _sound(folder / "config.json", _config)
    if config.id != (name := os.path.basename(os.path.abspath(folder))):
        raise NotTrainedError(
            f"{folder} is the folder of run {config.id}, under another name: it was renamed or exchanged; name it "
            f"{config.id}, and train run {name} again with `featcache train-head`"
        )
    return config


def _check_sums(folder: Path, names: Iterable[str]) -> bool:
    """Compare files with SHA256SUMS; False if there is none, as in folders of earlier versions."""
    if not (folder / sums.NAME).exists():
        return False
    listed = _sound(folder / sums.NAME, lambda path: sums.parse(regular(path, ConfigError).read_bytes()))

    def check(path: Path) -> None:
        if listed.get(path.name) != _sha256(path):
            raise ValueError(f"it does not match {sums.NAME}")

    for name in names:
        _sound(folder / name, check)
    return True


def digest(folder: Path) -> str:
    """Digest of the files of a run's folder; "" if one is missing or damaged, and in folders of earlier versions.

    Only files that were written, copied or replaced after SHA256SUMS was written are read.
    """
    try:
        made = (folder / sums.NAME).stat().st_mtime_ns
        found = {name: (folder / name).stat() for name in files_of(folder)}
        later = [name for name, s in found.items() if max(s.st_mtime_ns, s.st_ctime_ns) > made]
        _check_sums(folder, later)
        return sha256((folder / sums.NAME).read_bytes()).hexdigest()[:16]
    except (OSError, NotTrainedError):
        return ""


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS for the files in a run's folder."""
    (folder / sums.NAME).write_bytes(sums.text({name: file_sha256(folder / name) for name in files_of(folder)}))


_sha256 = remembered(1 << 14, settled=True)(file_sha256)


def _sound(path: Path, read: Callable[[Path], T]) -> T:
    """Return `read(path)`; NotTrainedError with the fix if the file of a run is missing or damaged.

    Torch, numpy and zipfile raise errors of many types for damaged files.
    """
    try:
        return read(path)
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in CONTENT:
            raise
        if isinstance(error, NoEntryError):  # the file is sound, but the method or net is a plug-in
            raise NoEntryError(f"{path}: {error}") from None
        reason = " ".join(str(error).split("\n", 1)[0].split()) or type(error).__name__
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"is damaged ({reason})"
        raise NotTrainedError(f"{path} {problem}; train the run again with `featcache train-head`") from None


@remembered(1 << 10, settled=True)  # a page opens each run several times
def _config(path: Path) -> RunConfig:
    return schema.read(path, RunConfig, "")


@remembered(1 << 10, settled=True)
def _facts(path: Path) -> Facts:
    return schema.read(path, Facts, "", newer=True)


def _lines(path: Path) -> list[bytes]:
    return regular(path, ConfigError).read_bytes().splitlines()


def _check_zip(path: Path) -> None:
    """Check that head.pt or outputs are a zip archive whose members have the checksums that it lists."""
    regular(path, ConfigError)
    if path.stat().st_size == 0 or not zipfile.is_zipfile(path):  # its directory is at the end
        raise ValueError("it is cut off, or not an archive of torch or numpy")
    if member := _first_bad(path):
        raise ValueError(f"{member} in it does not match its checksum")


@remembered(1 << 14, settled=True)
def _first_bad(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        if problem := not_stored(archive.infolist(), path.stat().st_size):
            raise ValueError(f"it {problem}")
        return archive.testzip()


def split_weights(saved: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the saved tensors into the weights of the method and the units of the features."""
    units = {name: value for name, value in saved.items() if name.startswith(UNITS_OF)}
    return {k: v for k, v in saved.items() if k not in units}, {k[len(UNITS_OF) :]: v for k, v in units.items()}


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
    log: list[LogLine],
    weights: Mapping[str, Tensor],
    outputs: dict[str, NDArray[Any]],
) -> None:
    """Write a run's folder, replacing an older one of that name. run.json has its facts in the order of `Facts`."""
    ordered = {each.name: facts[each.name] for each in fields(Facts) if each.name in facts}
    contents = {
        "config.json": json.dumps(config.to_json(), indent=1) + "\n",
        "run.json": json.dumps({**ordered, "spec": asdict(spec)}, indent=1) + "\n",
        "log.jsonl": "".join(json.dumps(line) + "\n" for line in log),
    }
    with making_folder(folder, replace=True) as scratch:
        scratch.mkdir()
        for name, content in contents.items():
            (scratch / name).write_text(content, encoding="utf-8")
        write_weights(weights, scratch)
        with steady(scratch / OUTPUTS) as file:
            np.savez(file, **outputs)  # type: ignore[arg-type]
        write_sums(scratch)


# --------------------------------------------------------------------------------------------------------- earlier runs


def fingerprints(opened: Opened, runs: Path, config: RunConfig | None = None) -> dict[str, str]:
    """Name -> fingerprint of everything, except the configuration, that a run's result depends on.

    config: the run, if the data was opened for another one with the same rows.
    """
    read = {f"store {m}": store.fingerprint for m, store in opened.stores.items()}
    read["manifest"] = opened.manifest.sha256
    if opened.captions:
        read["captions"] = opened.captions.manifest.sha256
    if opened.config.absent == "mask" and opened.left_out:  # runs of an earlier version counted these clips
        read["clips without features"] = "left out"
    if (version := method_class(opened.config).version) > 1:  # others have no entry, so that older runs are kept
        read[f"method {settings.name_of(opened.config.method)}"] = str(version)
    read |= plugged(opened.config)
    if "dev" in opened.config.validators and looked_elsewhere(opened.config):  # an earlier version chose by others
        read["features of the validator dev"] = "classified"
    if first := (config or opened.config).init_from:
        try:
            path = Run.open(runs / first).weights_file
        except ConfigError as error:
            raise NotTrainedError(f"init_from names {first}, which is not a finished run in {runs} ({error})") from None
        read["init_from"] = _sha256(path)
    return read


def plugged(config: RunConfig) -> dict[str, str]:
    """Name -> digest of the files of a method and a net that are plug-ins; {} if they are featcache's own."""
    files = plugins.digests(type(config.method).__module__) | plugins.digests(type(config.net).__module__)
    return {f"plug-in {file}": digest for file, digest in files.items()}


def changes(earlier: dict[str, str], now: dict[str, str]) -> str:
    """Names of the things whose fingerprints differ, as text; "" if none does."""
    return ", ".join(name for name in now if earlier.get(name) != now[name])


def out_of_date(folder: Path, read: dict[str, str]) -> str:
    """The reason for training a run: "" if it is up to date, "new" if there is none, else the changes."""
    if not folder.exists():
        return "new"
    try:
        changed = changes(Run.open(folder).facts.read, read)
    except ConfigError as error:
        return f"trained again, because {str(error).partition(';')[0]}"
    return f"trained again, because these have changed: {changed}" if changed else ""
