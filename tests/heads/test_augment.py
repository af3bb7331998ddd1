"""Views of skeletons: what they keep, what they change, and that they draw from torch's stream."""

import numpy as np
import pytest
import torch

from heads.augment import crop, mask_parts, mirrored, shear
from heads.skeletons import skeleton

torch.set_num_threads(1)


def clips(B=4, T=12, V=15, M=2, seed=0):
    return torch.randn(B, 3, T, V, M, generator=torch.Generator().manual_seed(seed))


VIEWS = {
    "shear": lambda x: shear(x, 0.5),
    "crop": lambda x: crop(x, 3),
    "mask": lambda x: mask_parts(x, 0.3),
}
EVERY = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)


@EVERY
@pytest.mark.parametrize(("B", "T", "V", "M"), [(1, 50, 25, 2), (3, 7, 20, 1), (5, 1, 15, 3)])
def test_shapes_are_kept_and_absent_bodies_stay_absent(view, B, T, V, M):
    x = clips(B, T, V, M)
    x[..., -1] = 0
    before = x.clone()
    seen = view(x)
    assert (seen.shape, seen.dtype) == (x.shape, x.dtype)
    assert torch.equal(x, before)
    assert not seen[..., -1].any()


@EVERY
def test_equal_seeds_give_equal_views_and_each_row_draws_for_itself(view):
    x = clips(1).expand(6, -1, -1, -1, -1)
    torch.manual_seed(1)
    first, second = view(x), view(x)
    torch.manual_seed(1)
    assert torch.equal(view(x), first)
    assert not torch.equal(first, second)
    assert not all(torch.equal(row, first[0]) for row in first)


def test_shear_is_one_matrix_for_all_joints_of_a_row():
    x, beta = clips(), 0.5
    seen = shear(x, beta)
    for row, after in zip(x, seen, strict=True):
        R = torch.linalg.lstsq(row.flatten(1).T, after.flatten(1).T).solution.T
        assert torch.allclose(torch.einsum("cd,dtvm->ctvm", R, row), after, atol=1e-5)
        assert torch.allclose(R.diagonal(), torch.ones(3), atol=1e-5)
        assert (R - torch.eye(3)).abs().max() <= beta + 1e-5
    assert torch.equal(shear(x, 0.0), x)


def test_entries_of_shear_are_uniform():
    x = torch.eye(3)[None, :, None, :, None].expand(4000, -1, -1, -1, -1)  # R itself is seen
    R = shear(x, 2.0)[:, :, 0, :, 0]
    off = R[:, ~torch.eye(3, dtype=torch.bool)]
    assert off.mean(0).abs().max() < 0.1
    assert torch.allclose(off.square().mean(0), torch.tensor(4 / 3), rtol=0.1)
    correlation = np.corrcoef(off.T.numpy()) - np.eye(6)
    assert np.abs(correlation).max() < 0.1  # six draws, not one


@pytest.mark.parametrize(("T", "gamma"), [(12, 3), (12, 6), (50, 6), (5, 1), (2, 3)])
def test_crops_are_windows_of_the_mirrored_clip_and_all_occur(T, gamma):
    x = torch.arange(1.0, T + 1)[None, None, :, None, None].expand(400, 3, T, 15, 2)
    most = T // gamma
    padded = np.pad(np.arange(1, T + 1), most, mode="symmetric")  # the edge stands twice
    windows = {tuple(padded[first : first + T]) for first in range(2 * most + 1)}
    seen = crop(x, gamma)
    assert torch.equal(seen, seen[:, :1, :, :1, :1].expand_as(seen))
    assert {tuple(row) for row in seen[:, 0, :, 0, 0].int().tolist()} == windows


def test_mirrored_is_numpys_symmetric_padding():
    assert mirrored(torch.arange(-5, 10), 5).tolist() == np.pad(np.arange(5), 5, mode="symmetric").tolist()


@pytest.mark.parametrize("V", [25, 20, 15])
def test_masks_take_whole_parts_of_a_frame_and_of_each_body_by_itself(V):
    x = clips(40, 12, V).abs() + 1
    seen = mask_parts(x, 0.3)
    kept = seen != 0
    assert torch.equal(seen[kept], x[kept])
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    bodies = np.corrcoef(kept[:, 0, :, 0].flatten(0, 1).T.numpy())
    assert abs(bodies[0, 1]) < 0.2
    by_part = [kept[:, 0, :, joints, 0] for joints in skeleton(V).parts]
    for part in by_part:
        assert torch.equal(part.any(2), part.all(2))
    masked = torch.stack([~part[..., 0] for part in by_part]).float()
    assert masked.mean().item() == pytest.approx(0.3, abs=0.03)
    assert np.abs(np.corrcoef(masked.flatten(1).numpy()) - np.eye(5)).max() < 0.2  # parts are drawn one by one
    assert masked.var(2).mean() > 0.1  # and frames


def test_no_mask_and_a_whole_one():
    x = clips()
    assert torch.equal(mask_parts(x, 0.0), x)
    assert not mask_parts(x, 1.0).any()
