"""A contract that is given the wrong file names the mistake before any test runs."""

import pytest

from heads.methods import rna
from heads.nets import adapter, ce
from heads.testing import MethodTests, NetTests, RetrievalNetTests


@pytest.mark.parametrize(
    ("base", "module", "message"),
    [
        (MethodTests, None, "Mine.module is not set; write `module = your_file`"),
        (MethodTests, rna.METHOD, "Rna.*has no Params and no METHOD; `module` must be a Python file with"),
        (NetTests, rna, "heads.methods.rna.*has no NET; `module` must be a Python file with Params and NET"),
        (NetTests, ce, "is a retrieval net, but Mine tests classification nets"),
        (RetrievalNetTests, adapter, "Adapter is a classification net, but Mine tests retrieval nets"),
    ],
    ids=["no file", "a class", "a method", "a retrieval net", "a classification net"],
)
def test_a_file_that_does_not_fit_is_named(base, module, message):
    tests = type("Mine", (base,), {} if module is None else {"module": module})
    with pytest.raises(pytest.Collector.CollectError, match=message):
        tests.checked_modules()
