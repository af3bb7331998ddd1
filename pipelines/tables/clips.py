"""The answers of two sides to the same questions: McNemar's test, and the classes, clips and queries that differ."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featcache.errors import ConfigError
from featcache.wording import amount, first
from pipelines.evaluation.answers import Texts, both_answers
from pipelines.measures.paired import mcnemar
from pipelines.tables.sides import Sides

CLIPS = 10  #: clips, or queries, that are listed of each side
CLASSES = 10  #: classes that are listed of each side
LETTERS = 60  #: letters of a caption that are shown
LEVEL = 0.05  #: the p below which a seed counts
KIND, SHIFT = "answers", "shift"  #: headings of columns that are left out where all their cells are equal

Cells = list[list[str]]  #: cells of a table, headings first


@dataclass(frozen=True)
class Part:
    """A part of a comparison; a table without lines is not shown."""

    heading: str
    grid: Cells
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """The n questions of one kind and shift, with the answers of S pairs of runs, one pair for each seed.

    The first axis of its answers is the side: A, then B.
    """

    kind: str  #: label kind, branch, or direction
    shift: str
    seeds: tuple[str, ...]
    asked: Texts  #: (n,)
    clip: Texts  #: (n,)
    truth: Texts  #: (n,)
    words: Texts  #: (n,) the texts of captions; "" for clips
    given: Texts  #: (2, S, n) predicted classes, or the answers that come first
    right: NDArray[np.bool_]  #: (2, S, n)
    rank: NDArray[np.float64] | None  #: (2, S, n), from 0; None for classes

    @property
    def gain(self) -> NDArray[np.int64]:
        """The number of seeds in which B has a question right, minus that of A (n,)."""
        times_a, times_b = self.right.sum(1)
        return np.asarray(times_b - times_a, np.int64)


def blocks_of(sides: Sides, stores: Path) -> list[Block]:
    """Read the answers of all runs, kind by kind and shift by shift; kinds that some run does not have are left out."""
    found: dict[tuple[str, str], list[Any]] = {}  # kind, shift -> (answers of A, answers of B) of each seed
    for pair in sides.pairs:
        for kind, both in both_answers(*pair.runs, stores).items():
            found.setdefault((kind, pair.shift), []).append(both)
    blocks = []
    for kind in dict.fromkeys(kind for kind, _ in found):
        for shift in sides.shifts:
            seeds = tuple(pair.seed for pair in sides.pairs if pair.shift == shift)
            answers = found.get((kind, shift), [])
            if len(answers) == len(seeds):
                blocks.append(_stacked(kind, shift, seeds, answers))
    if not blocks:
        raise ConfigError(f"the runs of {first(sides.titles)} share no label")
    return blocks


def _stacked(kind: str, shift: str, seeds: tuple[str, ...], answers: list[Any]) -> Block:
    """Return the answers of all seeds as arrays."""
    first_a = answers[0][0]
    if not all(np.array_equal(a.asked, first_a.asked) for a, _ in answers):
        raise ConfigError(f"the seeds of {shift} were tested on different clips, so they cannot be compared")
    sides = list(zip(*answers, strict=True))  # the answers of A, one for each seed, and those of B
    given, right = (np.array([[getattr(of, name) for of in side] for side in sides]) for name in ("given", "right"))
    rank = None if first_a.rank is None else np.array([[of.rank for of in side] for side in sides])
    asked, clip, truth, words = first_a.asked, first_a.clip, first_a.truth, first_a.words
    return Block(kind, shift, seeds, asked, clip, truth, words, given, right, rank)


def tested(blocks: Sequence[Block], remarks: Iterable[str]) -> Part:
    """McNemar's test of each kind and shift, and of all shifts together."""
    kinds, seeds = _by_kind(blocks), max(len(block.seeds) for block in blocks)
    once = all(sum(map(_answers, of_kind)) == len(_by_clip(of_kind)) for of_kind in kinds.values())
    often = "only" if once else "more often"
    grid = [[KIND, SHIFT, "clips", f"{often} A right", f"{often} B right", "p", f"seeds with p < {LEVEL}"]]
    for kind, of_kind in kinds.items():
        grid += [[kind, block.shift, *_as_text(_by_clip([block])), _by_seed(block)] for block in of_kind]
        if len(of_kind) > 1:
            grid.append([kind, "all", *_as_text(_by_clip(of_kind)), ""])
    if seeds == 1:
        grid = [cells[:-1] for cells in grid]
    right = "the right clip comes first" if blocks[0].rank is not None else "the class is right"
    texts = [
        f"Right: {right}. p: McNemar's exact test, two-sided: the probability of numbers at least as uneven if "
        "neither side were better. It is not corrected for the number of tests."
    ]
    if not once:
        texts.append(
            "Every clip counts once, for the side that has it right more often, because several answers to one clip, "
            "of several seeds or captions, are not independent."
        )
    return Part("McNemar's test", _without_constants(grid), (*texts, *remarks))


def _answers(block: Block) -> int:
    """Return the number of answers of a side."""
    return block.right[0].size


def _by_clip(blocks: Iterable[Block], seed: int | None = None) -> NDArray[np.int64]:
    """Return for each clip the number of its answers that B has right, minus that of A, in all seeds or in one."""
    total = Counter[str]()
    for block in blocks:
        right = block.right if seed is None else block.right[:, seed : seed + 1]
        times_a, times_b = right.sum(1)
        for clip, gain in zip(block.clip.tolist(), (times_b - times_a).tolist(), strict=True):
            total[clip] += gain
    return np.array([*total.values()], np.int64)


def _without_constants(grid: Cells) -> Cells:
    """Return a table without its columns KIND and SHIFT where all their cells are equal."""
    columns = [column for column in zip(*grid, strict=True) if column[0] not in (KIND, SHIFT) or len({*column[1:]}) > 1]
    return [list(cells) for cells in zip(*columns, strict=True)]


def _named(kind: str, kinds: Collection[str]) -> str:
    """Return the beginning of a sentence about one of these kinds; nothing if there is only one."""
    return f"{kind}: " if len(kinds) > 1 else ""


def _by_kind(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    """Return kind -> its blocks, one for each shift."""
    kinds: dict[str, list[Block]] = {}
    for block in blocks:
        kinds.setdefault(block.kind, []).append(block)
    return kinds


def _as_text(gain: NDArray[np.int64]) -> list[str]:
    """Return the number of questions, those that A and that B has right more often, and McNemar's p, as text."""
    only_a, only_b = int((gain < 0).sum()), int((gain > 0).sum())
    p = mcnemar(only_a, only_b)
    return [str(len(gain)), str(only_a), str(only_b), f"{p:.2g}" if p >= 0.0001 else "< 0.0001"]


def _by_seed(block: Block) -> str:
    """Return the number of seeds in which a side is better with p < LEVEL, such as "B 2 of 3"."""
    better = Counter[str]()
    for seed in range(len(block.seeds)):
        gain = _by_clip([block], seed)
        only_a, only_b = int((gain < 0).sum()), int((gain > 0).sum())
        if mcnemar(only_a, only_b) < LEVEL:
            better["A" if only_a > only_b else "B"] += 1
    return ", ".join(f"{side} {better[side]} of {len(block.seeds)}" for side in "AB" if better[side]) or "none"


def classes(blocks: Sequence[Block]) -> Part:
    """The classes of which one side has more clips right, those that B wins first."""
    grid, texts = [[KIND, "class", "clips", "A", "B", "B - A"]], []
    kinds = _by_kind(blocks)
    for kind, of_kind in kinds.items():
        clips: dict[str, set[str]] = {}
        right: dict[str, list[NDArray[np.floating]]] = {}  # class -> (2, S, clips of the class), for each shift
        for block in of_kind:
            for name in dict.fromkeys(block.truth.tolist()):
                rows = block.truth == name
                clips.setdefault(name, set()).update(block.asked[rows].tolist())
                right.setdefault(name, []).append(100.0 * block.right[:, :, rows].reshape(2, -1))
        shares = {name: np.concatenate(parts, 1).mean(1) for name, parts in right.items()}
        changed = {name: (a, b) for name, (a, b) in shares.items() if a != b}
        order = sorted(changed, key=lambda name: (changed[name][0] - changed[name][1], name))
        shown = order if len(order) <= 2 * CLASSES else [*order[:CLASSES], *order[-CLASSES:]]
        for name in shown:
            a, b = changed[name]
            grid.append([kind, name, str(len(clips[name])), f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}"])
        won = sum(b > a for a, b in changed.values())
        between = f"; {len(order) - len(shown)} between the listed ones" if len(shown) < len(order) else ""
        texts.append(
            f"{_named(kind, kinds)}B is better in {won} of {len(shares)} classes, A in {len(changed) - won}{between}."
        )
    texts.append("A and B: the clips of the class that are right, in per cent, over all seeds and shifts.")
    return Part("Classes won and lost", _without_constants(grid), tuple(texts))


def one_sided(blocks: Sequence[Block]) -> Part:
    """The clips that one side gets right and the other wrong, those that B gets right in more seeds first."""
    grid, texts = [[KIND, SHIFT, "clip", "truth", "A", "B"]], []
    often = "and the other side wrong" if all(len(block.seeds) == 1 for block in blocks) else "in more seeds"
    kinds = _by_kind(blocks)
    for kind, of_kind in kinds.items():
        for side, sign in (("B", 1), ("A", -1)):
            found = [
                (sign * int(gain), block, k)
                for block in of_kind
                for k, gain in enumerate(block.gain.tolist())
                if sign * gain > 0
            ]
            found.sort(key=lambda each: -each[0])
            for _, block, k in found[:CLIPS]:
                given = [counted(block.given[s, :, k].tolist()) for s in (0, 1)]
                grid.append([kind, block.shift, block.asked[k], block.truth[k], *given])
            listed = f", of which {CLIPS} are listed" if len(found) > CLIPS else ""
            texts.append(f"{_named(kind, kinds)}{side} is right {often} for {amount(len(found), 'clip')}{listed}.")
    if any(len(block.seeds) > 1 for block in blocks):
        texts.append("A and B: the predicted class, with the number of its seeds in parentheses where seeds differ.")
    texts.append("`featcache compare ... --clips FILE` writes all of them.")
    return Part("Clips that only one side gets right", _without_constants(grid), tuple(texts))


def counted(given: list[str]) -> str:
    """Return the answers of all seeds, such as "cut" if they are equal, else "cut (2), stir (1)"."""
    counts = Counter(given).most_common()
    return counts[0][0] if len(counts) == 1 else ", ".join(f"{name} ({count})" for name, count in counts)


def moved(blocks: Sequence[Block]) -> Part:
    """The queries whose right answer moved most, in ranks that count from 1 and are means over seeds."""
    grid, texts = [[KIND, SHIFT, "query", "right answer", "rank in A", "rank in B", "B - A"]], []
    kinds = _by_kind(blocks)
    for kind, of_kind in kinds.items():
        found = []
        for block in of_kind:
            assert block.rank is not None
            for k, (a, b) in enumerate(block.rank.mean(1).T.tolist()):
                if a != b:
                    found.append((b - a, a + 1, b + 1, block, k))
        found.sort(key=lambda each: -abs(each[0]))
        for move, a, b, block, k in found[: 2 * CLIPS]:
            query = shorten(block.words[k], LETTERS, placeholder="…") or block.asked[k]
            answer = shorten(block.truth[k], LETTERS, placeholder="…")
            grid.append([kind, block.shift, query, answer, f"{a:.4g}", f"{b:.4g}", f"{move:+.4g}"])
        better = sum(move < 0 for move, *_ in found)
        texts.append(
            f"{_named(kind, kinds)}{better} queries have a better rank in B, {len(found) - better} a better one in A."
        )
    texts.append("Queries have no classes. `featcache compare ... --clips FILE` writes all queries whose rank differs.")
    return Part("Queries whose rank moved most", _without_constants(grid), tuple(texts))


def lines(blocks: Sequence[Block]) -> Iterator[list[str]]:
    """Yield a line of the file of clips for each answer that is right on one side only, or whose rank differs."""
    named = {(False, False): "neither", (True, False): "A", (False, True): "B", (True, True): "both"}
    for block in blocks:
        differs = block.right[0] != block.right[1] if block.rank is None else block.rank[0] != block.rank[1]
        for seed, k in np.argwhere(differs).tolist():
            given = (
                block.given[:, seed, k] if block.rank is None else [f"{rank + 1:g}" for rank in block.rank[:, seed, k]]
            )
            a, b = block.right[:, seed, k].tolist()
            yield [block.kind, block.shift, block.seeds[seed], block.asked[k], block.truth[k], *given, named[a, b]]
