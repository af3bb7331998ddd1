"""Tools that the papers' tables share: shifts, printed numbers, and the average of EPIC-8's checkpoints.

>>> printed('''
...                     D1→D2  D2→D1  mean
...     source-only      42.0   42.5  42.3
...     RNA (UDA)           –      –  51.7
... ''')
{'source-only': {'D1→D2': 42.0, 'D2→D1': 42.5, 'mean': 42.3}, 'RNA (UDA)': {'mean': 51.7}}
>>> retrieved("R@1 MedR", "msvd→lsmdc", "ACP  2.6 161 | 3.4 160")
{'ACP': {'msvd→lsmdc': {'t2v/R@1': 2.6, 't2v/MedR': 161.0, 'v2t/R@1': 3.4, 'v2t/MedR': 160.0}}}
"""

from typing import Any

#: EPIC-8: the mean of nine checkpoints, 50 steps apart, the last of which is the end (MM-SADA's code)
LAST_NINE: dict[str, Any] = {"eval_every": 50, "keep": 9, "select": "mean"}
#: domain -> number of training clips
EPIC8 = {"D1": 1543, "D2": 2495, "D3": 3897}
UCF_HMDB = {"ucf": 1438, "hmdb": 840}


def shifts(text: str) -> tuple[tuple[str, str], ...]:
    """The (source, target) pairs of a table's heading.

    >>> shifts("D1→D2 D2→D1")
    (('D1', 'D2'), ('D2', 'D1'))
    """
    pairs = (shift.split("→") for shift in text.split())
    return tuple((source, target) for source, target in pairs)


def printed(text: str) -> dict[str, dict[str, float]]:
    """Parse a table as a paper prints it -> row -> column -> number; – is a cell without a number.

    The first line has the columns, every other line a row's name and one number per column.
    """
    head, *lines = (line.split() for line in text.strip().splitlines())
    names = [" ".join(words[: -len(head)]) for words in lines]
    numbers = [zip(head, words[-len(head) :], strict=True) for words in lines]
    return {
        name: {column: float(number) for column, number in cells if number != "–"}
        for name, cells in zip(names, numbers, strict=True)
    }


def retrieved(metrics: str, shifts: str, text: str) -> dict[str, dict[str, dict[str, float]]]:
    """Parse a retrieval table as ACP prints it -> row -> shift -> metric -> number, in both directions.

    A line has a row's name, then for each shift, separated by ||, the metrics of text to video | of video to text.
    """
    keys = [f"{way}/{metric}" for way in ("t2v", "v2t") for metric in metrics.split()]
    numbers: dict[str, dict[str, dict[str, float]]] = {}
    for line in text.strip().splitlines():
        first, *others = (cells.replace("|", " ").split() for cells in line.split("||"))
        by_shift = [first[-len(keys) :], *others]
        numbers[" ".join(first[: -len(keys)])] = {
            shift: dict(zip(keys, map(float, cells), strict=True))
            for shift, cells in zip(shifts.split(), by_shift, strict=True)
        }
    return numbers
