"""Stores -> the sides of a run. Stores must be finished and have the same clips; only rows of the run are read.

`pipelines/data/tiers.py` describes the memory that this takes, and where features are kept that do not fit.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from featcache import FeatureStore, Manifest
from featcache.errors import ConfigError
from featcache.store import DONE
from featcache.wording import first
from heads.batch import Side, Spec
from heads.units import Prepare
from pipelines.config import OWN, Feed, Preparation, RunConfig, method_class, parse_draw
from pipelines.data.captions import RunCaptions, clip_rows
from pipelines.data.checks import check_device, check_views, check_windows, windows_text
from pipelines.data.lacking import SOME_LABELS, LeftOut, featureless
from pipelines.data.rows import Rows, load, sweeps_others
from pipelines.data.seeds import generator
from pipelines.data.stores import open_manifest, open_store
from pipelines.data.tiers import Features, Wanted, open_features
from pipelines.tasks import class_numbers, labelled


@dataclass(frozen=True)
class Opened:
    """The manifest and stores of a run, checked against each other. Features are read when a side is first used."""

    config: RunConfig
    manifest: Manifest
    stores: dict[str, FeatureStore]  #: as in `Feed.stores`: modality -> store, MODALITY/VIEW -> a view's store
    device: str
    memory: int | None = None  #: bytes of RAM that may be used; None: all that are free
    workers: int = 1  #: number of simultaneous runs that share the memory
    tier: str | None = None  #: the tier to use; None: the one that fits
    captions: RunCaptions | None = None  #: in retrieval only
    prepare: Prepare | None = None  #: prepares features; `measure` or the weights of a run give it its units

    @cached_property
    def features(self) -> Features:
        """The opened features of the clips; `.tier` and `.why` are the way in which they are read, and the reason."""
        sides = {"source": self.config.source, "target": (self.config.target,) if self.config.target else ()}
        wanted = []
        for role, domains in sides.items():
            if domains:
                feeds = self._feeds(role)
                swept = {m: feed.test for m, feed in feeds.items()} if sweeps_others(feeds) else {}
                rows = len(self.train_rows(role))
                drawn = {name: feed.train for m, feed in feeds.items() for name in feed.stores(m)}
                wanted.append(Wanted(rows, drawn, swept))
        if self.measures_test_domain:
            rows = len(self.manifest.rows(domain=self.config.test, split=self.config.train_split))
            wanted.append(Wanted(rows, {m: feed.test for m, feed in self._feeds("target").items()}))
        test = self.manifest.rows(domain=self.config.test, split=self.config.test_split)
        wanted.append(Wanted(len(test), {m: feed.test for m, feed in self._feeds("test").items()}))
        stores = {name: store for name, store in self.stores.items() if name not in self.config.captions}
        return open_features(stores, wanted, self.device, memory=self.memory, workers=self.workers, tier=self.tier)

    @property
    def domains(self) -> tuple[str, ...]:
        """The source domains in the run's order, then the target."""
        return self.config.source + ((self.config.target,) if self.config.target else ())

    @cached_property
    def classes(self) -> dict[str, tuple[str, ...]]:
        """Label -> names of the classes that the method learns; {} in retrieval."""
        return self.config.task.taught(self.manifest, self.config.source)

    @cached_property
    def clusters(self) -> int:
        """The number of the target's clusters in a clustering run; 0 in other runs."""
        return self.config.task.clusters(self.manifest, self.config.test)

    @cached_property
    def sides(self) -> dict[str, Rows]:
        """The sides "source", "source_val" and "target" that the run has; only the first two have labels."""
        among = self.train_rows("source") if self.config.holdout and self.config.source else None
        return {
            side: self.load("target", rows) if side == "target" else self.load("source", rows, among, labelled=True)
            for side, rows in self.side_rows.items()
        }

    @cached_property
    def side_rows(self) -> dict[str, list[int]]:
        """The rows of each side of `sides`."""
        config, sides = self.config, dict[str, list[int]]()
        if config.source:
            kept, held = _hold_out(config, self.manifest, self.train_rows("source"))
            sides |= {"source": kept, "source_val": held} if held else {"source": kept}
        if config.target:
            sides["target"] = self.train_rows("target")
        return sides

    @cached_property
    def spec(self) -> Spec:
        """The spec that the method receives.

        Held-out source rows serve `select`. They are included only if the method lists "source_val" in `needs` or
        `may`.
        """
        method = method_class(self.config)
        rows = {s: len(of) for s, of in self.side_rows.items() if s != "source_val" or s in method.needs + method.may}
        if self.captions and "source" in rows:
            rows["captions"] = len(self.captions.of_clips(self.side_rows["source"]))
        return Spec(
            shapes={m: tuple(self.stores[m].row_shape) for m in self.config.feeds},
            windows={
                m: 1 if feed.train == "mean" else parse_draw(feed.train)[1] or self.stores[m].windows
                for m, feed in self.config.feeds.items()
            },
            classes={label: len(names) for label, names in self.classes.items()},
            rows=rows,
            domains=self.domains,
            captions=self.config.captions,
            clusters=self.clusters,
        )

    def sweep(self, side: str) -> Iterator[Side]:
        """Yield every row of a side once. This is the `Sweep` of begin_epoch: it has only the sides of the spec."""
        if side not in self.spec.rows:
            raise ValueError(f"no side {side!r} to sweep; the method of this run has: {', '.join(self.spec.rows)}")
        source = self.sides.get("source")
        if side == "captions" and source and source.captions:
            return source.captions.sweep()
        return self.sides[side].sweep()

    @property
    def measures_test_domain(self) -> bool:
        """True if the units of the test domain are its own, and no side of the run has its rows."""
        return self.config.preparation.units == "domain" and self.config.test not in self.domains

    def measure(self) -> None:
        """Measure the units of the features over the train rows of the run, without labels.

        With units by source, a run without a source keeps those of the run it starts from.
        """
        if not self.prepare or self.config.preparation.units == "none":
            return
        source, target = (self.sides[s].prepared(None) if s in self.sides else None for s in ("source", "target"))
        if not source and self.config.preparation.units == "source":
            return
        parts = [part for part in (source, source and source.captions) if part]
        other = self._test_domain().sweep() if self.measures_test_domain else ()
        self.prepare.measure(
            chain.from_iterable(part.sweep() for part in parts), target.sweep() if target else (), other
        )

    def test_domain_rows(self) -> list[int]:
        """Return the train rows of a test domain that is on no side of the run; ConfigError if it has none."""
        test, split = self.config.test, self.config.train_split
        if not self.manifest.rows(domain=test, split=split):
            raise ConfigError(
                f"preparation.units='domain' measures the {split} rows of {test!r}, but it has none; take units=source"
            )
        return self.train_rows("target", test)

    def _test_domain(self) -> Rows:
        """Load the train rows of a test domain that is on no side of the run, unprepared and without labels."""
        rows = self.test_domain_rows()
        domain = torch.full((len(rows),), -1, device=self.device)
        return load(self.features, self._feeds("target"), rows, {}, domain, trained=False)

    def test(self, *domains: str) -> Rows:
        """Load the test rows of these domains (default: the run's test domain), without labels."""
        return self.load("test", self.check_test(*domains))

    def check_test(self, *domains: str) -> list[int]:
        """Return `test_rows`; ConfigError if there are too few for a test."""
        domains, split = domains or (self.config.test,), self.config.test_split
        self.check_measured(*domains)
        where = f"{split} rows of {', '.join(domains)} in manifest {self.manifest.name!r}"
        rows = self.test_rows(*domains)
        if not rows:
            if count := len(self.manifest.rows(domain=domains, split=split)):
                raise ConfigError(
                    f"all {count} {where} {self._lack}, so nothing can be tested; repair their sources and extract "
                    "again, or take another test domain"
                )
            raise ConfigError(
                f"no {where}; give clips the split {split!r}, or set test_split=train to test the train clips, to "
                "which methods adapt without their labels (transductive); in a table with rows that learn the target's "
                "labels, name the other rows with --only"
            )
        if len(rows) < self.clusters:
            raise ConfigError(
                f"{len(rows)} {split} rows of {', '.join(domains)} are fewer than its {self.clusters} clusters; take "
                "another test_split"
            )
        return rows

    def check_measured(self, *domains: str) -> None:
        """Raise ConfigError if the features of a domain need units of its own that were not measured."""
        unmeasured = set(domains) - {*self.domains, self.config.test}
        if unmeasured and self.config.preparation.units == "domain":
            raise ConfigError(
                f"preparation.units='domain', but the units of {first(sorted(unmeasured))} were not measured: the run "
                f"has {', '.join(dict.fromkeys((*self.domains, self.config.test)))}; name one of these domains"
            )

    def test_rows(self, *domains: str) -> list[int]:
        """Return the test rows of these domains (default: the run's test domain) that `absent` leaves to the run."""
        rows = self.manifest.rows(domain=domains or (self.config.test,), split=self.config.test_split)
        return self._complete("test", rows)

    @cached_property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The clips that `absent` leaves out: of each training domain, of the test, and of the test's captions."""
        sides = {"source": self.config.source, "target": (self.config.target,) if self.config.target else ()}
        wanted = [(role, d, self.config.train_split) for role, domains in sides.items() for d in domains]
        wanted.append(("test", self.config.test, self.config.test_split))
        found = []
        for role, domain, split in wanted if self.config.absent != "refuse" else []:
            rows = self.manifest.rows(domain=domain, split=split)
            kept = set(self._complete(role, rows))
            ids = tuple(self.manifest.clips[row].clip_id for row in rows if row not in kept)
            found.append(LeftOut(role, domain, ids, len(rows), whole=self.config.absent == "mask"))
        if self.captions:
            ids, count = self.captions.unusable(self.test_rows())
            found.append(LeftOut("captions", self.config.test, ids, count))
        return tuple(each for each in found if each.ids)

    def load(self, role: str, rows: list[int], among: list[int] | None = None, *, labelled: bool = False) -> Rows:
        """Load rows with the modalities that this role sees, to the memory of the tier. among: as in `rows.load`."""
        self.check_rows(role, rows)
        number = {domain: k for k, domain in enumerate(self.domains)}
        domain = torch.tensor([number.get(self.manifest.clips[row].domain, -1) for row in rows], device=self.device)
        y = self.labels(rows) if labelled else {}
        trained = role in ("source", "target")
        loaded = load(self.features, self._feeds(role), rows, y, domain, trained=trained, among=among)
        if self.captions and role != "target":
            loaded = replace(loaded, captions=self.captions.load(role, rows, domain, among))
        return loaded.prepared(self.prepare)

    def labels(self, rows: list[int]) -> dict[str, torch.Tensor]:
        """Return label -> class numbers of these rows; ConfigError for a row without the label."""
        return {
            label: torch.from_numpy(class_numbers(self.manifest, rows, label, classes)).to(self.device)
            for label, classes in self.classes.items()
        }

    def check_rows(self, role: str, rows: list[int]) -> None:
        """Check that a role has rows, and that they have the windows that its feeds draw."""
        feeds = self._feeds(role)
        if not rows:
            raise ConfigError(f"the {role} of this run has no rows in manifest {self.manifest.name!r}")
        trained = role in ("source", "target")
        for m, feed in feeds.items():
            for when in ("train", "test") if trained else ("test",):
                self._refuse_padding(m, when, getattr(feed, when), rows)
            if trained and feed.views:
                self._refuse_other_windows(m, feed, rows)

    def _refuse_other_windows(self, modality: str, feed: Feed, rows: list[int]) -> None:
        """Raise ConfigError if a row has other windows in a view than in the store of the feed."""
        store, index = self.stores[modality], np.asarray(rows)
        for name, view in feed.stores(modality).items():
            other = self.stores[name]
            moved = np.abs(other.window_start[index] - store.window_start[index]) > 0  # False where one is nan: unknown
            differ = (other.length[index] != store.length[index]) | moved.any(1)
            if differ.any():
                row = int(index[differ.argmax()])
                raise ConfigError(
                    f"{differ.sum()} of {len(rows)} clips have other windows in view {view!r} than in store "
                    f"{feed.store!r}, the first: {self.manifest.clips[row].clip_id!r} "
                    f"({view}: {windows_text(other, row)}; {feed.store}: {windows_text(store, row)}); repair it and "
                    f"extract again, or leave {view} out of feeds.{modality}.views"
                )

    def _refuse_padding(self, modality: str, when: str, draw: str, rows: list[int]) -> None:
        """Raise ConfigError if a draw of all windows would pad rows that have fewer than T."""
        length, T = self.stores[modality].length[rows], self.stores[modality].windows
        short = int(((length > 0) & (length < T)).sum())
        if short and self.config.absent != "mask" and parse_draw(draw)[0] in ("all", "each"):
            raise ConfigError(
                f"store {self.config.feeds[modality].store!r} has fewer than its {T} windows in {short} of {len(rows)} "
                f"rows, which feeds.{modality}.{when}={draw} would pad; take segments:K, mean or (in train) random:K, "
                "or set absent=mask if the net reads `present`"
            )

    def _feeds(self, role: str) -> dict[str, Feed]:
        """Return modality -> feed, for the modalities of clips that this role sees."""
        feeds = {m: f for m, f in self.config.feeds.items() if role in f.seen_by.split() and not f.captions}
        if not feeds:
            raise ConfigError(f"the {role} sees no feed; change `seen_by` of {', '.join(self.config.feeds)}")
        return feeds

    def train_rows(self, role: str, *domains: str) -> list[int]:
        """Return the train rows of "source" or "target", by domain; ConfigError for a domain without any.

        domains: instead of the run's own. The rows have the modalities that the role sees, and rows of a source the
        labels that it teaches.
        """
        config, rows = self.config, list[int]()
        target = (config.target,) if config.target else ()
        for domain in domains or (config.source if role == "source" else target):
            domain_rows = self.manifest.rows(domain=domain, split=config.train_split)
            complete = self._complete(role, domain_rows)
            usable = labelled(self.manifest, complete, self.classes) if role == "source" else complete
            if not usable:
                reason = f", because all {len(domain_rows)} {self._lack}" if domain_rows else ""
                if complete:
                    self.labels(complete)  # raises for a label that all or some lack
                    reason = f", because none of its {len(complete)} clips has all of {', '.join(self.classes)}"
                raise ConfigError(
                    f"domain {domain!r} of the {role} has no {config.train_split} rows to train on{reason}"
                )
            rows += usable
        return rows

    @property
    def untaught(self) -> tuple[str, ...]:
        """Sentences "KIND: explanation" about train clips of the source that are left out because they lack labels."""
        config, texts = self.config, list[str]()
        for domain in config.source:
            rows = self._complete("source", self.manifest.rows(domain=domain, split=config.train_split))
            if lacking := len(rows) - len(labelled(self.manifest, rows, self.classes)):
                have = "clips have" if lacking > 1 else "clip has"
                text = f"{lacking} of {len(rows)} {config.train_split} {have} no label in {domain}"
                texts.append(f"{SOME_LABELS}: {text}, so heads do not learn from them")
        return tuple(texts)

    @property
    def _lack(self) -> str:
        """The reason why `absent` leaves clips out."""
        return "have no features" if self.config.absent == "mask" else "lack a modality"

    def _complete(self, role: str, rows: list[int]) -> list[int]:
        """Return the rows to use: `absent` decides about rows that lack a modality; no row is without any."""
        feeds, index = self._feeds(role), np.asarray(rows, dtype=np.int64)
        if self.config.absent == "mask":
            empty = featureless([self.stores[m] for m in feeds], index)
            return index[~empty].tolist()
        lacking = {int(row): m for m in feeds for row in index[self.stores[m].state[index] != DONE]}
        if self.captions and role == "source":
            lacking |= {int(row): "caption" for row in index[~self.captions.captioned(index)]}
        if not lacking:
            return rows
        if self.config.absent == "drop":
            return [row for row in rows if row not in lacking]
        row = min(lacking)
        reason = "or none with features"
        if lacking[row] in feeds:
            reason = self.stores[lacking[row]].failures.get(row, "unknown reason")
        raise ConfigError(
            f"{len(lacking)} of {len(rows)} clips lack a modality, the first: {self.manifest.clips[row].clip_id!r} has "
            f"no {lacking[row]} ({reason}); repair it and extract again, or set absent=drop, or absent=mask if the "
            "net reads `present`"
        )


def open_run(
    config: RunConfig,
    stores: Path,
    device: str = "cpu",
    *,
    memory: int | None = None,
    workers: int = 1,
    tier: str | None = None,
) -> Opened:
    """Open a run's manifest and stores, and check that they fit together.

    memory: bytes of RAM that may be used; default: all that are free. workers: number of simultaneous runs that share
    them. tier: the way in which features are read; default: the one that fits (`pipelines/data/tiers.py`), which
    `Opened.features` holds with the reason.
    """
    check_device(device)
    manifest = open_manifest(stores, config.manifest)
    config.task.check_manifest(config, manifest)
    caption_manifests = {feed.captions for feed in config.feeds.values()} - {"", OWN}
    captions_manifest = open_manifest(stores, caption_manifests.pop()) if caption_manifests else manifest
    opened: dict[str, FeatureStore] = {}
    for m, feed in config.feeds.items():
        clips = captions_manifest if feed.captions else manifest
        opened |= {name: open_store(stores / clips.name, store, clips) for name, store in feed.stores(m).items()}
    check_windows(config, opened)
    check_views(config, opened)
    captions = _captions(config, captions_manifest, manifest, opened, device) if config.captions else None
    run = Opened(config, manifest, opened, device, memory, workers, tier, captions)
    return replace(run, prepare=preparation(config, {m: tuple(opened[m].row_shape) for m in config.feeds}, device))


def preparation(config: RunConfig, shapes: dict[str, tuple[int, ...]], device: str) -> Prepare | None:
    """Return what prepares the features of a run, still without its units; None if they are read as they are.

    shapes: modality -> shape of a row.
    """
    if config.preparation == Preparation():
        return None
    rows, units = config.preparation.rows, config.preparation.units
    domains = len(config.source) + bool(config.target)
    return Prepare(rows, units, shapes, domains, config.captions).to(device)


def _captions(
    config: RunConfig, captions: Manifest, clips: Manifest, stores: dict[str, FeatureStore], device: str
) -> RunCaptions:
    """Return the captions of the run's feeds, each with its clip."""
    own = captions is clips
    clip = np.arange(len(clips)) if own else clip_rows(captions, clips)
    feeds = {m: config.feeds[m] for m in config.captions}
    return RunCaptions(captions, clip, feeds, {m: stores[m] for m in feeds}, config.absent, device, own)


def _hold_out(config: RunConfig, manifest: Manifest, rows: list[int]) -> tuple[list[int], list[int]]:
    """Split rows into (kept, held): a seeded share of every class and domain is held; a class keeps at least one row.

    With several labels the first one (by name) is stratified; without labels only the domains are.
    """
    if not config.holdout:
        return rows, []
    label = next(iter(manifest.classes), "")
    groups: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        clip = manifest.clips[row]
        groups.setdefault((clip.domain, clip.labels.get(label, "")), []).append(row)
    shuffle, held = generator(config.seed, "holdout"), set()
    for _, members in sorted(groups.items()):
        count = min(round(config.holdout * len(members)), len(members) - 1)
        held |= {members[k] for k in torch.randperm(len(members), generator=shuffle)[:count].tolist()}
    if not held:
        raise ConfigError(f"holdout={config.holdout} of {len(rows)} rows is less than one row of any class; raise it")
    return [row for row in rows if row not in held], [row for row in rows if row in held]
