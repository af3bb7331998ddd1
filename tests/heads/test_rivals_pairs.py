"""ACP's rivals on generated pairs do what they claim: on clips nobody trained on, domains differ less, as they see it.

Adversaries do so least: what their discriminators cannot tell apart any more, a kernel SVM still can, a little worse.
"""

import pytest
import torch

from heads.losses.moments import coral, mean_gap, mmd
from heads.losses.transport import sinkhorn_divergence
from heads.methods import cdan_keels, dann, sinkhorn, source_only
from heads.methods import coral as coral_method
from heads.methods import mmd as mmd_method
from pipelines.evaluation.embeddings import a_distance
from tests.helpers.pairs import sides, train

torch.set_num_threads(1)
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:method.:UserWarning")]
SHIFT = "mean"


def told_apart(f_SD, f_TD, *_):
    """How well a kernel SVM tells the domains of clips."""
    return a_distance(f_SD.numpy(), f_TD.numpy())


RIVALS = {  # the file, its parameters, the gap, and what of it is left at most
    "MMD": (mmd_method, {"gamma": 0.0}, lambda *pair: mmd(*pair, 0.0), 0.8),
    "CORAL": (coral_method, {"lambda_coral": 1000.0}, lambda *pair: coral(*pair) + mean_gap(*pair), 0.8),
    "OT": (sinkhorn, {}, lambda *pair: sinkhorn_divergence(*pair, 0.1, 50), 0.8),
    "DANN": (dann, {}, told_apart, 0.95),
    "CDAN": (cdan_keels, {"K": 16}, told_apart, 0.95),
}
STEPS = 400


@torch.no_grad()
def embedded(method, seed):
    """Test clips of source and target, all of which count."""
    f = [method.net.encode(sides(domain, "test", seed)[0])["visual"] for domain in ("source", SHIFT)]
    return (*f, *(torch.ones(len(rows), dtype=torch.bool) for rows in f))


@pytest.fixture(scope="module", params=range(3))
def plain(request):
    """The seed, and what source-only makes of the clips."""
    method = train(source_only, source_only.Params(), SHIFT, seed=request.param, steps=STEPS)
    return request.param, embedded(method, request.param)


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_lowers_the_gap_that_it_is_made_for(name, plain):
    module, params, gap, left = RIVALS[name]
    seed, before = plain
    after = embedded(train(module, module.Params(**params), SHIFT, seed=seed, steps=STEPS), seed)
    assert gap(*after) < left * gap(*before)
