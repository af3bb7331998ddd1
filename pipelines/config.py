"""The configuration of a run: its fields, its checks, its id, and changes of single values.

>>> from heads.methods import rna
>>> from heads.nets import adapter
>>> run = RunConfig("kitchens", rna.Params(), adapter.Params(), {"rgb": Feed("hog")}, source=("day",), target="night")
>>> run.test, override(run, "method.lambda_g=0.5").method.lambda_g
('night', 0.5)
"""

import hashlib
import json
import re
import sys
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from typing import Annotated, Any

from featcache import plugins, registry
from featcache.errors import ConfigError
from featcache.manifest import SPLITS
from heads import methods, nets
from heads.params import added, ranges
from pipelines import settings, tasks
from pipelines.measures.validators import ORACLE, RULES, VALIDATORS

ROLES = ("source", "target", "test")  #: the roles that can see a feed
TRAIN_DRAWS = ("all", "random", "shared", "segments", "mean")
TEST_DRAWS = ("all", "segments", "mean", "each")
OWN = "own"  #: the value of `Feed.captions` where each clip has its own caption
ROWS = ("as-is", "sum", "length")
UNITS = ("none", "source", "domain")
COUNTED = ("random", "shared", "segments")  #: draws of k windows; a row with fewer windows repeats some


def _method(name: str) -> type:
    """Return the Params class of a method, by the name of its file."""
    params: type = registry.load(methods, name, "method").Params
    return params


def _net(name: str) -> type:
    """Return the Params class of a net, by the name of its file."""
    params: type = registry.load(nets, name, "net").Params
    return params


@dataclass(frozen=True)
class Optim:
    """An optimiser for a group of parameters."""

    name: str = "sgd"  #: sgd | adam
    lr: float = 0.01  #: learning rate at the start
    momentum: float = 0.9  #: of sgd; adam has its own
    weight_decay: float = 1e-4  #: L2 penalty, added to the gradient
    nesterov: bool = False  #: Nesterov's momentum, of sgd
    milestones: tuple[float, ...] = ()  #: fractions of the run at which lr is multiplied by gamma
    gamma: float = 0.1  #: factor of lr at each milestone
    inverse: float = 0.0  #: of the schedule lr (1 + inverse p)^-0.75; SHOT and SFDA use 10
    clip_norm: float = 0.0  #: largest gradient norm over the parameters of this Optim; 0: no clipping

    def at(self, progress: float) -> float:
        """Return the learning rate at a progress p in [0, 1]."""
        passed = sum(progress >= milestone for milestone in self.milestones)
        return float(self.lr * self.gamma**passed * (1 + self.inverse * progress) ** -0.75)


@dataclass(frozen=True)
class Feed:
    """A feed of one modality: its store, the roles that see it, and the windows that are drawn."""

    store: str  #: the store's name: STORES/<manifest>/<store>.zarr
    seen_by: str = "source target test"  #: its roles; "source test" if it does not exist on the target in training
    train: str = "all"  #: all | random:k (per modality) | shared:k (same for all) | segments:k (centres) | mean
    test: str = "all"  #: all | segments:k | mean | each (predict per window, softmax averaged); never random
    views: tuple[str, ...] = ()  #: stores of the same windows (i3d-rgb@flip); training draws one of all for each row
    captions: str = ""  #: name of the caption manifest of the store; "own": each clip has its own caption

    def stores(self, modality: str) -> dict[str, str]:
        """Return modality -> its store, then MODALITY/VIEW -> the store of each view."""
        return {modality: self.store} | {f"{modality}/{view}": view for view in self.views}


@dataclass(frozen=True)
class Preparation:
    """The preparation of all features, for every net and method: first the rows, then the units."""

    rows: str = "as-is"  #: each window's features: as-is | sum (of absolute values 1) | length (L2 norm 1)
    #: none | source: (x - mean) / std of each entry over the source | domain: over each domain by itself, which reads
    #: unlabelled train rows of the test domain in every run, also of methods without a target
    units: str = "none"


@dataclass(frozen=True)
class RunConfig:
    """A training run. Equal configurations have equal ids and are trained once."""

    manifest: str  #: folder of STORES
    method: Annotated[Any, settings.Named(_method)]  #: Params of a file in heads/methods
    net: Annotated[Any, settings.Named(_net)]  #: Params of a file in heads/nets
    feeds: dict[str, Feed]  #: modality -> feed
    row: str = ""  #: the table row of this run; not part of the id; empty: a stage that no table shows
    source: tuple[str, ...] = ()  #: labelled domains. Supervised-target: source=("D2",), target=None, test="D2"
    target: str | None = None  #: unlabelled domain
    test: str = ""  #: evaluated domain; default: target
    train_split: str = "train"  #: split of the rows that are trained on: train | val | test
    test_split: str = "test"  #: split of the rows that are tested: test | val | train (transductive)
    holdout: float = 0.0  #: seeded, class-stratified share of source rows kept as "source_val"
    preparation: Preparation = added(Preparation(), before=Preparation())  #: of all features
    absent: str = "refuse"  #: for rows that lack a modality: refuse | drop | mask (only nets that read `present`)
    steps: int = 6000  #: updates of the weights
    epoch: int | str = "target"  #: steps between two calls of begin_epoch, or one pass over "source" or "target"
    batch: tuple[int, int] = (64, 64)  #: rows of source and of target in a batch; of a side that the run lacks: unused
    optim: Optim = Optim()  #: the optimiser of all parameters that optim_for does not name
    optim_for: dict[str, Optim] = field(default_factory=dict)  #: prefix of parameter names -> optim; the longest wins
    eval_every: int = 0  #: steps between evaluation points; 0: only the end
    keep: int = 1  #: number of kept points: the last ones, with the end (EPIC: eval_every=50, keep=9)
    select: str = "last"  #: rule that gives the result: last | mean (of kept points) | a validator | oracle
    init_from: str | None = None  #: id of a run; weights equal in name and shape are copied, and all of net.* must be
    fidelity: str = "adapter"  #: exact | adapter (trainable layers replace the backbone that the paper trains)
    seed: int = 0  #: of initial weights, batches and dropout

    def __post_init__(self) -> None:
        if not self.test and self.target is not None:
            object.__setattr__(self, "test", self.target)
        check(self)

    @property
    def tested(self) -> dict[str, Feed]:
        """Modality -> feed, for the feeds that the test sees."""
        return {m: feed for m, feed in self.feeds.items() if "test" in feed.seen_by.split()}

    @property
    def points(self) -> tuple[int, ...]:
        """The steps after which outputs are kept: the last `keep` evaluation points, including the end."""
        return (*self._before_end[len(self._before_end) - self.kept + 1 :], self.steps)

    @property
    def kept(self) -> int:
        """The number of `points`."""
        return min(self.keep, len(self._before_end) + 1)

    @property
    def _before_end(self) -> range:
        """The steps after which the run is evaluated, without the end."""
        return range(self.eval_every, self.steps, self.eval_every) if self.eval_every else range(0)

    @property
    def keeps_best(self) -> bool:
        """True if only the best point is kept, with its weights: in retrieval one point can take 500 MB."""
        return self.task.keeps_best and self.select in VALIDATORS

    @property
    def validators(self) -> tuple[str, ...]:
        """The validators that score every kept point: all whose rows the run has."""
        return tuple(name for name in VALIDATORS if not _lacking(self, name))

    @property
    def task(self) -> tasks.Task:
        """The task of the run's net: classification, retrieval or clustering."""
        return tasks.load(net_class(self).task)

    @property
    def captions(self) -> tuple[str, ...]:
        """The modalities that are captions of clips; () except in retrieval."""
        return tuple(m for m, feed in self.feeds.items() if feed.captions)

    @property
    def row_shown(self) -> str:
        """The table row as it is shown: "(oracle)" marks a run whose point is chosen by test labels."""
        return f"{self.row} (oracle)" if self.select == ORACLE and ORACLE not in self.row else self.row

    @cached_property
    def id(self) -> str:
        """The name of the run's folder: a readable prefix, and a hash of everything except `row`."""
        content = {name: value for name, value in self.to_json().items() if name != "row"}
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        given = f"with-{self.target}" if self.target else ""
        words = [settings.name_of(self.method), "+".join(self.source), given, f"on-{self.test}", f"s{self.seed}"]
        prefix = "_".join(re.sub(r"[^\w+.-]+", "-", word) for word in words if word)
        return f"{prefix[:80]}_{digest[:10]}"

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values; `from_json` is the inverse.

        It leaves out fields with the values that runs had before there were these fields (`heads.params.added`), so
        that the ids of such runs stay the same.
        """
        content: dict[str, Any] = settings.to_json(self, RunConfig)
        return content

    @property
    def all_settings(self) -> dict[str, Any]:
        """All settings as plain JSON values."""
        content: dict[str, Any] = settings.to_json(self, RunConfig, whole=True)
        return content

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "RunConfig":
        """Make a configuration from its JSON; ConfigError for unknown names and wrong types."""
        config: RunConfig = settings.from_json(data, cls)
        return config


def override(config: RunConfig, *changes: str) -> RunConfig:
    """Return the configuration with these `a.b=value` changes, checked once after the last of them.

    Entries of lists are separated by commas, `none` is None, and `method=source_only` takes another method with its
    default parameters.
    """
    data: Any = config.all_settings
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals or not path.strip():
            raise ConfigError(f"no setting {change!r}; write NAME=VALUE, for example method.lambda_g=0.5")
        if path.strip() == "target" and data["test"] == data["target"]:
            data["test"] = ""  # the default, so that test follows the target
        data = settings.assign(data, RunConfig, path.strip(), text.strip())
    return RunConfig.from_json(data)


def method_class(config: RunConfig) -> Any:
    """Return the method's class, from the file of its Params."""
    return sys.modules[type(config.method).__module__].METHOD


def net_class(config: RunConfig) -> Any:
    """Return the net's class, from the file of its Params."""
    return sys.modules[type(config.net).__module__].NET


def fidelity(config: RunConfig) -> str:
    """Return the run's fidelity, or "surrogate" if its method is a substitute for the paper's."""
    return "surrogate" if method_class(config).surrogate else config.fidelity


def parse_draw(draw: str) -> tuple[str, int]:
    """Return the kind and the count of a draw: `random:3` -> ("random", 3), `all` -> ("all", 0)."""
    kind, _, count = draw.partition(":")
    return kind, int(count or 0)


# ------------------------------------------------------------------------------------------------------------ checks


def check(config: RunConfig) -> None:
    """Raise ConfigError for settings that cannot be meant, before a store is opened."""
    _check_files(config)
    if isinstance(config.source, str):
        raise ConfigError(f'source={config.source!r} must be a tuple of domains: source=("{config.source}",)')
    if isinstance(config.init_from, RunConfig):
        raise ConfigError("init_from takes the id of a run: write init_from=THE_RUN.id")
    settings.verify(config, RunConfig, "")
    if config.task.name not in (able := method_class(config).tasks):
        raise ConfigError(
            f"method {settings.name_of(config.method)!r} does {' and '.join(able)}, but net "
            f"{settings.name_of(config.net)!r} does {config.task.name}"
        )
    _check_sides(config)
    _check_feeds(config)
    config.task.check(config)
    _one_of("train_split", config.train_split, SPLITS)
    _one_of("test_split", config.test_split, SPLITS)
    _one_of("absent", config.absent, ("refuse", "drop", "mask"))
    _one_of("select", config.select, RULES)
    _one_of("fidelity", config.fidelity, ("exact", "adapter"))
    if config.fidelity == "exact" and (surrogate := method_class(config).surrogate):
        raise ConfigError(
            f"fidelity='exact', but method {settings.name_of(config.method)!r} is a surrogate: {surrogate}"
        )
    _at_least("steps", config.steps, 0)
    _at_least("eval_every", config.eval_every, 0)
    _at_least("keep", config.keep, 1)
    if not 0 <= config.holdout < 1:
        raise ConfigError(f"holdout={config.holdout} must be a share in [0, 1)")
    if config.select in VALIDATORS and (lacking := _lacking(config, config.select)):
        raise ConfigError(f"select={config.select!r} needs {' and '.join(lacking)}")
    if config.keep > 1 and not config.eval_every:
        raise ConfigError(f"keep={config.keep} needs evaluation points: set eval_every")
    if config.keep > config.kept:
        raise ConfigError(
            f"keep={config.keep} is more than the {config.kept} evaluation points of steps={config.steps} with "
            f"eval_every={config.eval_every}; lower keep or eval_every"
        )
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed={config.seed} must be a whole number in [0, 2**63)")
    for part, params in (("method", config.method), ("net", config.net)):
        for name, allowed in ranges(params).items():
            if (value := getattr(params, name)) not in allowed:
                raise ConfigError(f"{part}.{name}={value} must be {allowed}")
    if isinstance(config.epoch, str):
        _one_of("epoch", config.epoch, ("source", "target"))
        if not (config.source if config.epoch == "source" else config.target):
            raise ConfigError(
                f"epoch={config.epoch!r} is one pass over the {config.epoch}, but the run has no {config.epoch}; set "
                "epoch to a number of steps"
            )
    else:
        _at_least("epoch", config.epoch, 1)
    for where, optim in {"optim": config.optim, **{f"optim_for.{k}": v for k, v in config.optim_for.items()}}.items():
        _check_optim(where, optim)


def _check_files(config: RunConfig) -> None:
    """Check that method and net are parameters from a file of their registry."""
    for part, params, folder in (("method", config.method, "heads.methods"), ("net", config.net, "heads.nets")):
        module = plugins.canonical(type(params).__module__)
        if not is_dataclass(params) or isinstance(params, type) or module.rpartition(".")[0] != folder:
            raise ConfigError(
                f"{part} must be the Params(...) of a file in {folder.replace('.', '/')}, or in FOLDER/{part}s of "
                f"--plugins FOLDER, not {params!r}"
            )


def _lacking(config: RunConfig, validator: str) -> list[str]:
    """List the inputs of a validator that the run lacks, each with the setting that adds it."""
    if validator not in config.task.validators:
        choices = ", ".join(("last", "mean", *config.task.validators, ORACLE))
        return [f"class predictions, but a {config.task.name} run has none; choose from {choices}"]
    needs = {
        "source_val": (config.holdout, "held-out source rows: set holdout, for example holdout=0.1"),
        "target": (config.target, "unlabelled target rows: set target, or take select=source_val"),
    }
    return [fix for need, (has, fix) in needs.items() if need in VALIDATORS[validator].needs and not has]


def _check_sides(config: RunConfig) -> None:
    """Check that the run has the sides that its method needs, and none that the method must not see."""
    name, method = settings.name_of(config.method), method_class(config)
    given = {"source": config.source, "target": config.target, "init_from": config.init_from}
    named = [side for side, value in given.items() if value]
    for side in method.needs:
        if side == "source_val" and not config.holdout:
            raise ConfigError(f"method {name!r} needs source_val: set holdout, for example holdout=0.1")
        if side in given and side not in named:
            raise ConfigError(f"method {name!r} needs {side}, but the run names none; set {side}")
    for side in ("source", "target"):
        if side in named and side not in method.needs + method.may:
            sees = ", ".join(dict.fromkeys(method.needs + method.may))
            raise ConfigError(f"method {name!r} must not see a {side} ({side}={given[side]!r}); it works on: {sees}")
    if not config.manifest:
        raise ConfigError("manifest is empty; name a folder of stores")
    if not config.test:
        raise ConfigError("test is empty: name the domain to evaluate on (it defaults to the target)")
    if len(set(config.source)) < len(config.source):
        raise ConfigError(f"source={config.source} names a domain twice")
    if config.target in config.source:
        raise ConfigError(
            f"target {config.target!r} is also a source, so the run would see its labels; remove it from source"
        )
    if config.test in config.source and config.train_split == config.test_split:
        raise ConfigError(
            f"the run would test the {config.test_split} rows of {config.test!r} after training on their labels; take "
            "another test domain, or different train_split and test_split"
        )
    if config.holdout and not config.source:
        raise ConfigError(
            f"holdout={config.holdout} is a share of the source rows, but the run has no source; remove holdout"
        )
    if config.holdout and "source_val" not in config.task.validators + method.needs + method.may:
        raise ConfigError(
            f"holdout={config.holdout} has no use: no validator works on a {config.task.name} run. Remove holdout"
        )
    for side, size, parts in zip(("source", "target"), config.batch, (len(config.source), 1), strict=True):
        if side in named and size < parts:
            raise ConfigError(
                f"batch={config.batch} has {size} {side} rows for {parts} {side} domains; take at least one row of each"
            )


def _check_feeds(config: RunConfig) -> None:
    _one_of("preparation.rows", config.preparation.rows, ROWS)
    _one_of("preparation.units", config.preparation.units, UNITS)
    feeds = config.feeds
    if not feeds:
        raise ConfigError("feeds is empty; name at least one modality and its store")
    for modality, feed in feeds.items():
        if not re.fullmatch(r"[\w-]+", modality):
            raise ConfigError(f"feeds: {modality!r} is not a valid name of a modality; use letters, digits, _ and -")
        for role in feed.seen_by.split() or [""]:
            _one_of(f"feeds.{modality}.seen_by", role, ROLES)
        if feed.seen_by.split() == ["test"] and not config.init_from:
            raise ConfigError(
                f"feeds.{modality}.seen_by='test': no training side sees it, so its weights stay random; add source or "
                "target, or set init_from"
            )
        for when, draw, kinds in (("train", feed.train, TRAIN_DRAWS), ("test", feed.test, TEST_DRAWS)):
            kind, _, count = draw.partition(":")
            counted = kind in COUNTED
            if kind not in kinds or counted != bool(re.fullmatch("[1-9][0-9]{0,8}", count)) or (count and not counted):
                choices = ", ".join(f"{kind}:K" if kind in COUNTED else kind for kind in kinds)
                raise ConfigError(f"feeds.{modality}.{when}={draw!r} is not a draw of windows; choose from {choices}")
        named = [feed.store, *feed.views]
        if twice := [store for store in feed.views if named.count(store) > 1]:
            raise ConfigError(f"feeds.{modality} names store {twice[0]!r} twice; name it once, as store or in views")
        if feed.views and feed.seen_by.split() == ["test"]:
            raise ConfigError(
                f"feeds.{modality}.views are used only in training, but seen_by='test'; leave the views out"
            )


def _check_optim(where: str, optim: Optim) -> None:
    _one_of(f"{where}.name", optim.name, ("sgd", "adam"))
    if not optim.lr > 0:
        raise ConfigError(f"{where}.lr={optim.lr} must be above 0")
    for name in ("momentum", "weight_decay", "gamma", "inverse", "clip_norm"):
        _at_least(f"{where}.{name}", getattr(optim, name), 0)
    if optim.nesterov and not (optim.name == "sgd" and optim.momentum > 0):
        raise ConfigError(f"{where}.nesterov needs sgd with a momentum")
    if not all(0 < milestone < 1 for milestone in optim.milestones):
        raise ConfigError(f"{where}.milestones={optim.milestones} must be fractions of the run, between 0 and 1")


def _one_of(where: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{where}={value!r}; choose from {', '.join(choices)}")


def _at_least(where: str, value: float, least: float) -> None:
    if not value >= least:
        raise ConfigError(f"{where}={value} must be at least {least}")
