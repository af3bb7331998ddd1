"""Functions of training progress in [0, 1)."""

import math


def dann(progress: float) -> float:
    """Return 2 / (1 + exp(-10 p)) - 1: from 0 to nearly 1, half way at p = 0.11 [Ganin and Lempitsky 2015, Sec. 4.1].

    >>> dann(0.0), round(dann(1.0), 4)
    (0.0, 0.9999)
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1
