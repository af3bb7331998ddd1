"""Contract tests of extractors, methods, nets and bridges, as classes that you subclass in a pytest file of your own.

    from featcache.testing import MethodTests
    from mine import entropy2                  # a file with Params and METHOD

    class TestEntropy2(MethodTests):
        module = entropy2

`pytest` then runs every test of the contract on the file: the same tests that the files of this repository pass.

    ExtractorTests      a file with Params and EXTRACTOR
    MethodTests         a file with Params and METHOD
    NetTests            a file with Params and NET, a classification net
    RetrievalNetTests   the same for a retrieval net
    ClusteringNetTests  the same for a clustering net
    BridgeTests         a file with KEEPS, read and write

`params` replaces the parameters that the tests run with. Override a test that does not fit your file; its docstring is
the promise, and yours gives the reason why the file does not make it.

This is the only part of `featcache` that imports `heads` and pytest.
"""

# heads.testing comes first, because its error names a missing pytest
from heads.testing import ClusteringNetTests, MethodTests, NetTests, RetrievalNetTests

__all__ = ["BridgeTests", "ClusteringNetTests", "ExtractorTests", "MethodTests", "NetTests", "RetrievalNetTests"]

import pytest

pytest.register_assert_rewrite("featcache.testing.bridges", "featcache.testing.extractors")  # asserts show their values

from featcache.testing.bridges import BridgeTests  # noqa: E402
from featcache.testing.extractors import ExtractorTests  # noqa: E402
