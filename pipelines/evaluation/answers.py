"""The answers of a run to the questions of its test, one by one, and the check that two runs had the same questions.

A question is a test clip, once for each label kind; in retrieval it is a query, once for each direction.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.manifest import Manifest
from featcache.wording import first
from pipelines.config import OWN
from pipelines.data.stores import open_manifest
from pipelines.evaluation.evaluate import compared, predictions, ranked
from pipelines.training.runs import NotTrainedError, Run

ACTION = "action"  #: the name, in metrics too, of all label kinds at once
SHARED = ("manifest", "test", "test_split")  #: settings of which two runs with the same questions have the same value

Texts = NDArray[np.object_]


@dataclass(frozen=True)
class Answers:
    """A run's answers to n questions of one kind."""

    asked: Texts  #: (n,) ids of the test clips; of captions where these are the queries
    clip: Texts  #: (n,) ids of the clips that the questions are about: a clip may have several captions
    truth: Texts  #: (n,) classes; for captions the ids of their clips, for clips the texts of their captions
    right: NDArray[np.bool_]  #: (n,)
    given: Texts  #: (n,) predicted classes; of queries the answers that come first, in the form of `truth`
    words: Texts  #: (n,) the texts of captions; "" for clips
    rank: NDArray[np.float64] | None = None  #: (n,) rank of the right answer to each query, from 0; None for classes


def answers(folder: Path, stores: Path) -> dict[str, Answers]:
    """Return the answers of a finished run at the last of its selected points, by label kind.

    In clustering they are by branch, and in retrieval by direction, without test clips that have no captions.
    FeatcacheError if the run is missing or damaged, or if its manifest has changed.
    """
    run = Run.open(folder)
    return _of_queries(run, stores) if run.config.captions else _of_classes(run, stores)


def _of_classes(run: Run, stores: Path) -> dict[str, Answers]:
    """Label kind, or branch -> predicted classes; with several label kinds also those of all kinds at once."""
    scored, _ = compared(run, stores)
    asked = _ids(open_manifest(stores, run.config.manifest), scored.outputs["rows"])
    found = dict[str, Answers]()
    labels = tuple(run.facts.spec.classes)
    for label, branch in product(labels, run.config.task.branches(run.outputs)):
        p = predictions(run.folder, stores, label, branch)
        names, right = np.array(p.classes, object), p.truth == p.predicted
        found[branch or label] = Answers(asked, asked, names[p.truth], right, names[p.predicted], _empty(asked))
    if len(labels) > 1 and ACTION not in labels:
        parts = list(found.values())
        truth, given = (_joined([getattr(part, name) for part in parts]) for name in ("truth", "given"))
        found[ACTION] = Answers(
            asked, asked, truth, np.logical_and.reduce([part.right for part in parts]), given, _empty(asked)
        )
    return found


def _joined(names: list[Texts]) -> Texts:
    """Return the names of several label kinds as one text per clip, such as "cut, onion"."""
    return np.array([", ".join(of_clip) for of_clip in zip(*names, strict=True)], object)


def _of_queries(run: Run, stores: Path) -> dict[str, Answers]:
    """Direction -> the rank of the right answer to each query, and the answer that comes first."""
    clips, captions = manifests(run, stores)
    own = _ids(clips, run.outputs["rows"])
    asked = {"t2v": _ids(captions, run.outputs["captions"]), "v2t": own}
    clip = {"t2v": own[run.outputs["clip"]], "v2t": own}
    texts = np.array([captions.clips[row].caption for row in run.outputs["captions"].tolist()], object)
    words = {"t2v": texts, "v2t": _empty(own)}
    named = np.where(texts == "", asked["t2v"], texts)  # captions without a text by their ids
    truth, answer = {"t2v": clip["t2v"], "v2t": _captions_of(run, named)}, {"t2v": own, "v2t": named}
    found = dict[str, Answers]()
    for way, (rank, first_row) in ranked(run.folder, stores).items():
        made = ~np.isnan(rank)
        given, rank = answer[way][first_row[made]], rank[made]
        ids, of, right, said = (texts_n[way][made] for texts_n in (asked, clip, truth, words))
        found[way] = Answers(ids, of, right, rank == 0, given, said, rank)
    return found


def _captions_of(run: Run, named: Texts) -> Texts:
    """Return the captions of each test clip as one text: the first one, and the number of the others."""
    captions: list[list[str]] = [[] for _ in run.outputs["rows"]]
    for row, name in zip(run.outputs["clip"].tolist(), named.tolist(), strict=True):
        captions[row].append(name)
    return np.array([first(names, 1) for names in captions], object)


def _empty(like: Texts) -> Texts:
    """Return as many empty texts."""
    return np.full(len(like), "", object)


def _ids(manifest: Manifest, rows: NDArray[np.integer]) -> Texts:
    """Return the ids of the clips of these rows."""
    return np.array([manifest.clips[row].clip_id for row in rows.tolist()], object)


def manifests(run: Run, stores: Path) -> tuple[Manifest, Manifest]:
    """Read the manifests of clips and captions; NotTrainedError if one of them has changed since the run was made."""
    name = next(run.config.feeds[m].captions for m in run.config.captions)
    clips = open_manifest(stores, run.config.manifest)
    captions = clips if name == OWN else open_manifest(stores, name)
    for kind, manifest in (("manifest", clips), ("captions", captions)):
        if run.facts.read.get(kind) != manifest.sha256:
            raise NotTrainedError(
                f"manifest {manifest.name!r} has changed since run {run.config.id} was made; train it again"
            )
    return clips, captions


def both_answers(one: Run, other: Run, stores: Path) -> dict[str, tuple[Answers, Answers]]:
    """Return kind of question -> the answers of two runs, for the kinds that both have, in the same order.

    ConfigError if they were not asked the same questions.
    """
    of_one, of_other = answers(one.folder, stores), answers(other.folder, stores)
    pairs = {kind: (of_one[kind], of_other[kind]) for kind in of_one if kind in of_other}
    for a, b in pairs.values():
        if not (np.array_equal(a.asked, b.asked) and np.array_equal(a.truth, b.truth)):
            raise _incomparable(
                one,
                other,
                f"they were tested on different clips or captions ({len(a.asked)} and {len(b.asked)}) of "
                f"{one.config.test}; the settings absent and feeds decide which clips are left out",
            )
    if not pairs:
        raise _incomparable(one, other, f"they share no label: {', '.join(of_one)}; {', '.join(of_other)}")
    return pairs


def check_same_questions(one: Run, other: Run) -> None:
    """Raise ConfigError if two runs are the same, or have different tests by their settings and what they read."""
    if one.config.id == other.config.id:
        raise ConfigError(
            f"run {one.config.id} is compared with itself (equal settings have equal ids); name two different runs"
        )
    tasks = [run.config.task.name for run in (one, other)]
    if tasks[0] != tasks[1]:
        raise _incomparable(one, other, f"one is a {tasks[0]} run, the other a {tasks[1]} run")
    for name in SHARED:
        values = [getattr(run.config, name) for run in (one, other)]
        if values[0] != values[1]:
            raise _incomparable(one, other, f"{name} is {values[0]!r} of one and {values[1]!r} of the other")
    for name, words in {
        "manifest": f"manifest {one.config.manifest!r}",
        "captions": "the manifest of captions",
    }.items():
        if one.facts.read.get(name) != other.facts.read.get(name):
            raise _incomparable(
                one, other, f"{words} differs or has changed between them; `featcache train-head` trains old runs again"
            )


def _incomparable(one: Run, other: Run, reason: str) -> ConfigError:
    return ConfigError(f"runs {one.config.id} and {other.config.id} cannot be compared: {reason}")
