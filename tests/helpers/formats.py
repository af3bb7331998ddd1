"""What the tests of single formats share."""

import numpy as np
import pytest

from featcache.errors import FormatError


def rows(*lengths, size=3, dtype=np.float32):
    return [np.arange(t * size, dtype=dtype).reshape(t, size) + 10 * k for k, t in enumerate(lengths)]


def refused(bridge, path, words, ids=None):
    with pytest.raises(FormatError, match=words) as error:
        [table.row(k) for table in bridge.read(path, ids).values() for k in range(len(table.ids))]
    assert str(path) in str(error.value)
