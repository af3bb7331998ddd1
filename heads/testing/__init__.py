"""Contract tests of methods and nets, to subclass in your own test file; `featcache.testing` describes their use."""

try:
    import pytest
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the contract tests need pytest; install it with: pip install pytest") from error

pytest.register_assert_rewrite("heads.testing.methods", "heads.testing.nets")  # so that asserts show their values

from heads.testing.methods import MethodTests  # noqa: E402
from heads.testing.nets import ClusteringNetTests, NetTests, RetrievalNetTests  # noqa: E402

__all__ = ["ClusteringNetTests", "MethodTests", "NetTests", "RetrievalNetTests"]
