"""Every file of featcache/extractors keeps the contract of an extractor (featcache/testing/extractors.py)."""

import dataclasses

import numpy as np
import pytest
import torch

from featcache import extractors
from featcache.errors import ConfigError
from featcache.extractors import Runtime
from featcache.extractors._frozen import Frozen
from featcache.testing import ExtractorTests
from featcache.testing.extractors import is_network

#: parameters with which a network is quick, and a table has the columns of `raw_window`
CHANGED = {
    "resnext101": {"count": 2},
    "densenet161-places": {"count": 2},
    "r2plus1d-34": {"count": 4},
    "i3d-rgb": {"count": 9},
    "i3d-flow": {"count": 9, "method": "dis"},
    "tbn-flow": {"method": "dis"},
    "vector": {"dims": 6},
}
#: large networks: the fast suite checks all but their rows, and the rows of TBN's streams and I3D
SLOW = ("densenet161-places", "i3d-flow", "r2plus1d-34", "resnext101")
TESTED_ELSEWHERE = {
    "hf": "has no model of its own: test_extractors_hf.py makes some",
    "sentence-bert": "its default model has to be fetched: test_extractors_sentence_bert.py runs another",
}


def load(name):
    params = dataclasses.replace(extractors.default_params(name), **CHANGED.get(name, {}))
    return extractors.load(name, params)


class TestLargeNetworks(ExtractorTests):
    """Tests that need no rows, of the networks whose rows are checked in the slow suite: nothing is built."""

    @pytest.fixture(scope="class", params=SLOW)
    @classmethod
    def extractor(cls, request):
        extractor = load(request.param)
        extractor.build = torch.nn.Identity
        return extractor.ready(Runtime("untrained"))

    @pytest.fixture
    def rows(self):
        pytest.skip("the slow suite has its rows")

    @pytest.fixture
    def one_by_one(self):
        pytest.skip("the slow suite has its rows")


class TestExtractors(ExtractorTests):
    @pytest.fixture(
        scope="class",
        params=[pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in extractors.names()],
    )
    @classmethod
    def extractor(cls, request):
        if request.param in TESTED_ELSEWHERE:
            pytest.skip(TESTED_ELSEWHERE[request.param])
        return load(request.param).ready(Runtime("untrained"))

    def test_modality_is_one_of_ours(self, extractor):
        assert extractor.name in extractors.names()
        assert extractor.modality in ("rgb", "flow", "audio", "text", "skeleton", "vector")

    def test_a_network_has_a_device_and_no_weights_no_licence(self, extractor):
        assert is_network(extractor) == isinstance(extractor, Frozen)
        assert extractor.facts["licence"] == "no weights"
        assert extractor.facts.get("device", "") == ("cpu" if isinstance(extractor, Frozen) else "")


def test_rows_that_differ_in_large_batches_break_the_contract():
    hog = extractors.load("hog", extractors.default_params("hog"))

    class Blocked(type(hog)):
        """An extractor that computes batches of more than 32 windows in another way."""

        def __call__(self, windows):
            return super().__call__(windows) * np.float32(1.0001 if len(windows) > 32 else 1)

    extractor = Blocked(hog.params)
    prepared = np.stack([ExtractorTests.prepare(extractor, seed) for seed in range(7)])
    with pytest.raises(AssertionError, match="a row differs in a batch of 33"):
        ExtractorTests().test_rows_do_not_depend_on_the_batch(extractor, prepared, extractor(prepared))


def test_an_unknown_extractor_lists_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean 'hog'. there are: hog, "):
        extractors.load("hogg")
