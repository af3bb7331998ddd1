"""Benchmark of the training loop against the loop that a user of PyTorch would write.

The user keeps a file for each clip and modality, or an HDF5 file for each modality, and reads them with a `DataLoader`
for each domain. Features, shapes, losses, optimiser and number of steps are those of the run. All files are in the page
cache. The costs are core-seconds, of this process and the loaders' workers, and not wall time.
"""

import resource
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from featcache.store import FeatureStore
from heads.methods import dann, rna
from heads.nets import adapter
from heads.schedules import dann as schedule
from pipelines.bench._lines import Line
from pipelines.bench.training import WIDTH, run, trained, write
from pipelines.config import Feed
from pipelines.data.opening import open_run

MODALITIES = ("rgb", "flow")
SIZE, CLASSES = 64, 8  #: rows of a side, classes
STEPS = {64: 150, 1024: 40}  #: dim -> steps of a round
ROUNDS = 3
METHODS: dict[str, Any] = {"RNA": rna.Params(), "DANN": dann.Params()}
WAYS = (("npy", 0), ("npy", 2), ("HDF5", 0), ("HDF5", 2))  #: files of the user, workers of each of the two loaders


def loaders(folder: Path) -> Iterator[Line]:
    """RNA and DANN on two modalities of 5 x 1024, batches of 64 + 64 rows, against the loop of a user."""
    stores, files = folder / "loaders_stores", folder / "loaders_files"
    write(stores)
    write_files(stores, files)
    torch.set_num_threads(1)
    feeds = {m: Feed(m, train="mean", test="mean") for m in MODALITIES}
    for dim, steps in STEPS.items():
        for name, params in METHODS.items():
            config = run(params, feeds, adapter.Params(dim=dim), (SIZE, SIZE), steps, "t")
            opened = open_run(config, stores)
            ours = [partial(trained, replace(config, steps=count), opened) for count in (steps, 0)]
            users = [partial(plain, files, *way, name, dim, steps) for way in WAYS]
            whole, rest, *theirs = core_seconds([*ours, *users])  # the rest is the evaluation after the last step
            for (kind, workers), seconds in zip(WAYS, theirs, strict=True):
                measured = f"train {name}, an adapter of {dim}, core-seconds"
                against = f"a DataLoader over {kind}, {workers} workers"
                yield measured, against, whole - rest, seconds, lambda s: f"{1000 * s / steps:.1f} ms"  # noqa: B023


def core_seconds(ways: list[Callable[[], object]]) -> list[float]:
    """Median core-seconds of each way, called in turns after a warm-up; of ended child processes, too."""

    def now() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in used)

    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(ROUNDS + 1):
        for way, costs in zip(ways, seconds, strict=True):
            began = now()
            way()
            costs.append(now() - began)
    return [statistics.median(costs[1:]) for costs in seconds]


# ------------------------------------------------------------------------------------------------------ the user's way


def write_files(stores: Path, folder: Path) -> None:
    """Write the features of the stores as a .npy file per clip, and as an HDF5 file with a data set per clip."""
    for m in MODALITIES:
        store = FeatureStore.open(stores / "heads" / f"{m}.zarr")
        (folder / m).mkdir(parents=True)
        with h5py.File(folder / f"{m}.h5", "w") as file:
            for clip, features in zip(store.clip_ids, store.read(), strict=True):
                np.save(folder / m / f"{clip}.npy", features)
                file[clip] = features


class Clips(Dataset[tuple[dict[str, Tensor], int]]):
    """The clips of a domain, read one by one: the means of their windows in float32, and the label."""

    def __init__(self, folder: Path, kind: str, domain: str) -> None:
        self.folder, self.kind, self.files = folder, kind, dict[str, h5py.File]()
        self.ids = [f"{domain}{k}" for k in range(len(list((folder / "rgb").glob(f"{domain}*"))) - 100)]
        self.labels = [k % CLASSES for k in range(len(self.ids))]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, k: int) -> tuple[dict[str, Tensor], int]:
        x = {m: torch.from_numpy(self.read(m, self.ids[k])).float().mean(0) for m in MODALITIES}
        return x, self.labels[k]

    def read(self, modality: str, clip: str) -> np.ndarray[Any, Any]:
        """Read the windows of a clip (5, 1024)."""
        if self.kind == "npy":
            features: np.ndarray[Any, Any] = np.load(self.folder / modality / f"{clip}.npy")
            return features
        if modality not in self.files:  # opened in the worker that reads it
            self.files[modality] = h5py.File(self.folder / f"{modality}.h5")
        return np.asarray(self.files[modality][clip])


class Reverse(torch.autograd.Function):
    """Gradient reversal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficient: float) -> Tensor:
        """Return x."""
        ctx.coefficient = coefficient
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the reversed gradient."""
        return -ctx.coefficient * gradient, None


class Head(nn.Module):
    """A layer, a classifier and a discriminator of the domain for each modality."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.ModuleDict({m: nn.Linear(WIDTH, dim) for m in MODALITIES})
        self.classifier = nn.ModuleDict({m: nn.Linear(dim, CLASSES) for m in MODALITIES})
        self.domain = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(dim, 100), nn.ReLU(), nn.Linear(100, 2)) for m in MODALITIES}
        )
        self.dropout = nn.Dropout(0.5)

    def features(self, x: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return modality -> features (B, dim)."""
        return {m: F.relu(self.layer[m](x[m])) for m in MODALITIES}

    def logits(self, f: dict[str, Tensor]) -> Tensor:
        """Return the sum of the modalities' logits (B, classes)."""
        return torch.stack([self.classifier[m](self.dropout(f[m])) for m in MODALITIES]).sum(0)

    def domain_loss(self, f_s: dict[str, Tensor], f_t: dict[str, Tensor], coefficient: float) -> Tensor:
        """Cross entropy of the discriminators behind the gradient reversal."""
        is_target = torch.cat([torch.zeros(SIZE, dtype=torch.long), torch.ones(SIZE, dtype=torch.long)])
        losses = []
        for m in MODALITIES:
            f = Reverse.apply(torch.cat([f_s[m], f_t[m]]), coefficient)
            losses.append(F.cross_entropy(self.domain[m](f), is_target))
        return torch.stack(losses).sum()


def dann_loss(head: Head, x_s: dict[str, Tensor], y_s: Tensor, x_t: dict[str, Tensor], progress: float) -> Tensor:
    """The objective of DANN."""
    f_s, f_t = head.features(x_s), head.features(x_t)
    return F.cross_entropy(head.logits(f_s), y_s) + head.domain_loss(f_s, f_t, schedule(progress))


def rna_loss(head: Head, x_s: dict[str, Tensor], y_s: Tensor, x_t: dict[str, Tensor], progress: float) -> Tensor:
    """The objective of RNA."""
    f_s, f_t = head.features(x_s), head.features(x_t)
    z_s, z_t = head.logits(f_s), head.logits(f_t)
    p_t = z_t.softmax(1)
    mean_t = p_t.mean(0)
    information = -(p_t * p_t.clamp_min(1e-8).log()).sum(1).mean() + (mean_t * mean_t.clamp_min(1e-8).log()).sum()
    loss = F.cross_entropy(z_s, y_s) + 0.1 * information + head.domain_loss(f_s, f_t, 0.2 * schedule(progress))
    in_s, in_t = F.one_hot(y_s, CLASSES).float(), F.one_hot(z_t.argmax(1), CLASSES).float()
    pairs = [((f_s["rgb"], in_s), (f_s["flow"], in_s)), ((f_t["rgb"], in_t), (f_t["flow"], in_t))]
    pairs += [((f_s[m], in_s), (f_t[m], in_t)) for m in MODALITIES]
    for u, v in pairs:
        loss = loss + norm_loss(*u, *v)
    return loss


def norm_loss(f_u: Tensor, in_u: Tensor, f_v: Tensor, in_v: Tensor) -> Tensor:
    """Ratio of the mean norms of two groups of features, over all rows and over the classes that both have."""
    u, v = f_u.norm(dim=1), f_v.norm(dim=1)
    count_u, count_v = in_u.sum(0), in_v.sum(0)
    in_both = (count_u > 0) & (count_v > 0)
    of_class = ratio((u @ in_u)[in_both] / count_u[in_both], (v @ in_v)[in_both] / count_v[in_both])
    return ratio(u.mean(), v.mean()) + 0.1 * of_class.sum()


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return (a/b - b/a)²."""
    return (a / b - b / a) ** 2


def endless(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of a loader, pass after pass."""
    while True:
        yield from loader


def plain(folder: Path, kind: str, workers: int, method: str, dim: int, steps: int) -> None:
    """Train a head as a user would, on batches of two loaders."""
    torch.manual_seed(0)
    source, target = (
        endless(
            DataLoader(
                Clips(folder, kind, domain),
                SIZE,
                shuffle=True,
                drop_last=True,
                num_workers=workers,
                persistent_workers=workers > 0,
            )
        )
        for domain in "st"
    )
    head, objective = Head(dim).train(), {"RNA": rna_loss, "DANN": dann_loss}[method]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for step in range(steps):
        (x_s, y_s), (x_t, _) = next(source), next(target)
        loss = objective(head, x_s, y_s, x_t, step / steps)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 5.0)
        optimizer.step()


BENCHMARKS = {"loaders": loaders}
