"""CDAN on keels, and pseudo-captions: what they look at, against loops."""

import dataclasses

import pytest
import torch

from heads.batch import Batch, gather
from heads.losses.prototypes import log_assignment
from heads.methods import capq, cdan_keels, source_only
from heads.methods._keels import visual_vector
from heads.nets import ce
from heads.testing.problems import without
from tests.helpers.retrieval_problems import EXPERTS, SPEC, batch, clips, sweep

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:method.:UserWarning")
EACH = pytest.mark.parametrize(("module", "params"), [(cdan_keels, {"K": 4}), (capq, {})], ids=["cdan_keels", "capq"])


def begun(module, look=None, **params):
    torch.manual_seed(0)
    method = module.METHOD(module.Params(**params), SPEC, ce.NET(ce.Params(dim=6), SPEC)).eval()
    with torch.no_grad():
        method.begin_epoch(0, look or sweep())
    return method


@EACH
def test_every_parameter_gets_a_gradient_also_where_rows_are_missing(module, params):
    method, b = begun(module, **params).train(), batch()
    sum(method(b, 0.5).values()).backward()
    assert [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()] == []
    gone = Batch(*(without(side, "action", [0, 1]) for side in (b.source, b.target)))
    for m in EXPERTS:
        gone = Batch(gone.source, without(gone.target, m, [3]))
    for case in (gone, batch(rows=1)):
        method.zero_grad()
        terms = method(case, 0.5)
        sum(terms.values()).backward()
        assert all(term.isfinite() for term in terms.values())
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


def test_the_discriminator_sees_the_outer_product_with_the_keel_assignment():
    method, t = begun(cdan_keels, K=4), clips()
    f = method.net.encode(t)
    h = method.given_keel(t, f)
    for i in range(8):
        a = log_assignment(visual_vector(SPEC, t)[i : i + 1], method.keels.centroids, 0.1).exp()[0]
        expected = [v * w for v in f["visual"][i].tolist() for w in (a / a.norm()).tolist()]
        assert torch.allclose(h[i], torch.tensor(expected), atol=1e-6)


def test_the_discriminator_learns_at_full_rate_and_the_net_reversed():
    method, b = begun(cdan_keels, K=4, lambda_d=0.5), batch()

    def gradients(progress):
        method.zero_grad()
        method(b, progress)["L_d"].backward()
        return method.discriminator[0].weight.grad.clone(), method.net.reduce["object"].weight.grad.clone()

    (D_0, net_0), (D_1, net_1) = gradients(0.0), gradients(1.0)
    assert torch.equal(D_0, D_1)
    assert not net_0.any()
    assert net_1.any()


def test_keels_do_not_change_with_the_net():
    method = begun(cdan_keels, K=4)
    before = method.keels.centroids.clone()
    for p in method.net.parameters():
        p.data += 1
    method.begin_epoch(1, lambda name: pytest.fail(f"swept {name}"))
    assert torch.equal(method.keels.centroids, before)


def test_a_clip_has_the_caption_that_fits_it_best():
    look = sweep()
    method = begun(capq, look, keep=0.25)
    visual = gather(look("target"), method.net.encode)["visual"]
    text = gather(look("captions"), method.net.encode)["text"]
    words = gather(look("captions"), lambda side: side.x)
    best = []
    for n in range(18):
        fits = [method.net.similarity(text[c : c + 1], visual[n : n + 1]).item() for c in range(48)]
        best.append(max(fits))
        c = max(range(48), key=fits.__getitem__)
        assert method.caption[n] == c
        for m in SPEC.captions:
            assert torch.equal(method.get_buffer(f"x:{m}")[n], words[m][c])
    surest = sorted(range(18), key=lambda n: -best[n])[:4]  # a quarter of 18, rounded
    assert sorted(surest) == torch.nonzero(method.counts).squeeze(1).tolist()


def test_pseudo_captions_that_do_not_count_add_nothing_and_equal_ones_are_no_negatives():
    method, b = begun(capq), batch()
    ramped = method(b, 0.2)["L_pl"]
    assert ramped > 0
    assert ramped < method(b, 0.9)["L_pl"]
    assert method(b, 0.0)["L_pl"] == 0
    kept = method.counts.clone()
    method.counts[:] = False
    assert method(b, 0.5)["L_pl"] == 0
    method.counts = kept
    method.caption[:] = 7
    assert method(b, 0.5)["L_pl"] == 0


def test_a_clip_without_anything_has_no_caption():
    plain = sweep()

    def look(name):
        for side in plain(name):
            for m in EXPERTS if name == "target" else ():
                side = without(side, m, [0])
            yield side

    method = begun(capq, look, keep=1.0)
    assert method.counts.tolist() == [n % 7 != 0 for n in range(18)]  # sweeps give rows by sevens


def test_tests_may_show_other_windows_than_training():
    plain = sweep()

    def look(name):
        for side in plain(name):
            if name == "captions":
                twice = [{m: torch.cat([v, v], 1) for m, v in values.items()} for values in (side.x, side.present)]
                side = dataclasses.replace(side, x=twice[0], present=twice[1])
            yield side

    method = begun(capq, look)
    assert method.get_buffer("x:words").shape == (18, 10, 7)
    assert method(batch(), 0.5)["L_pl"].isfinite()


def test_more_keels_than_clips_are_refused():
    with pytest.raises(ValueError, match="method.K=19 keels .* 18 clips of the target; choose at most 18"):
        begun(cdan_keels, K=19)


@pytest.mark.parametrize("params", [{"smoothing": 0.1}, {"per_modality": True}], ids=lambda params: next(iter(params)))
def test_source_only_has_no_parameters_without_classes(params):
    with pytest.raises(ValueError, match=f"{next(iter(params))}.*has none; keep the defaults"):
        begun(source_only, **params)
