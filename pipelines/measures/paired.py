"""Tests of paired answers: two runs that answer the same questions."""


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the two-sided p of McNemar's exact test: of questions that one run has right and the other wrong.

    only_a, only_b: the number of questions that only the first, only the second run has right. If the runs were equally
    good, each of these would be right in either run with probability 1/2 [McNemar 1947].

    >>> mcnemar(0, 5), mcnemar(3, 3), mcnemar(0, 0)
    (0.0625, 1.0, 1.0)
    """
    from scipy.stats import binomtest

    return float(binomtest(only_b, only_a + only_b).pvalue) if only_a + only_b else 1.0
