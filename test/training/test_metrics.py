import math

import pytest
import torch
from skimage.metrics import structural_similarity

from avat3r_ros.training.evaluation import _cut_at_neck, _picture_scores
from avat3r_ros.training.losses import (
    LossWeights,
    geometry_loss,
    photometric_losses,
    regularity_losses,
    total_loss,
)
from avat3r_ros.training.metrics import (
    flicker,
    mean_distance_mm,
    moving_points,
    perceptual_distance,
    psnr,
    ssim,
    ssim_map,
)
from avat3r_ros.types import Gaussians


def picture(seed=0, size=(40, 52)):
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(seed))


def test_psnr_of_a_constant_error():
    image = torch.full((2, 3, 8, 8), 0.5)
    assert psnr(image + 0.1, image) == pytest.approx([20.0, 20.0], abs=1e-4)
    assert math.isinf(float(psnr(image, image)[0]))


def test_psnr_counts_only_the_mask():
    image, target = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    image[..., :4] = 1.0
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1.0
    assert math.isinf(float(psnr(image, target, mask)))
    assert float(psnr(image, target, 1 - mask)) == pytest.approx(0.0, abs=1e-5)


def test_ssim_equals_that_of_skimage_away_from_the_border():
    image = picture()
    noisy = image + 0.1 * torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    noisy = noisy.clamp(0, 1)
    expected = structural_similarity(
        image[0].permute(1, 2, 0).numpy(), noisy[0].permute(1, 2, 0).numpy(), channel_axis=2,
        data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True,
    )[1].mean(2)  # fmt: skip
    actual = ssim_map(image, noisy)[0, 0].numpy()
    inside = (slice(6, -6), slice(6, -6))
    assert abs(actual - expected)[inside].max() < 1e-5  # measured 8e-7


def test_ssim_is_one_for_equal_pictures_and_has_a_gradient():
    image = picture().requires_grad_()
    assert float(ssim(image.detach(), image.detach())) == pytest.approx(1.0, abs=1e-5)
    (1 - ssim_map(image, picture(2))).mean().backward()
    assert torch.isfinite(image.grad).all()


def test_moving_points_are_those_that_truly_move():
    before = torch.zeros(3, 3)
    truth = torch.tensor([[0.0, 0, 0], [0.0019, 0, 0], [0, 0.01, 0]])
    moving = moving_points(truth, before)
    assert moving.tolist() == [False, False, True]
    assert float(mean_distance_mm(before, truth, moving)) == pytest.approx(10.0)


def test_geometry_is_zero_at_the_truth_and_weighs_motion():
    truth = torch.rand(1, 4, 3)
    still, moved = torch.zeros(1, 4, 3), torch.zeros(1, 4, 3)
    moved[:, :2] = 0.05
    assert float(geometry_loss(truth, truth, moved)) < 1e-3
    wrong = truth.clone()
    wrong[:, :2] += 0.002
    assert geometry_loss(wrong, truth, moved) > 1.3 * geometry_loss(wrong, truth, still)


def test_pictures_of_the_truth_cost_nothing_over_any_background():
    image, mask = picture(), torch.zeros(1, 1, 40, 52)
    mask[..., 10:30, 10:30] = 1.0
    background = torch.tensor([0.9, 0.1, 0.5])
    over = image * mask + (1 - mask) * background[:, None, None]
    terms = photometric_losses(over, mask, image * mask, mask, background)
    assert max(float(value) for value in terms.values()) < 1e-5
    # A hole shows on any background but its own colour.
    holed = mask.clone()
    holed[..., 15:20, 15:20] = 0.0
    over = image * holed + (1 - holed) * background[:, None, None]
    worse = photometric_losses(over, holed, image * mask, mask, background)
    assert min(float(value) for value in worse.values()) > 1e-3
    # Where nothing is compared, a hole costs nothing; SSIM looks five pixels around.
    counted = torch.ones_like(mask, dtype=torch.bool)
    counted[..., 9:26, 9:26] = False
    left_out = photometric_losses(over, holed, image * mask, mask, background, counted)
    assert max(float(value) for value in left_out.values()) < 1e-5


def test_regularity_is_about_changes():
    base = Gaussians(
        torch.zeros(5, 3), torch.zeros(5, 4), torch.full((5, 3), 0.01), torch.full((5,), 0.5),
        torch.zeros(5, 3),
    )  # fmt: skip
    assert all(float(v) == 0 for v in regularity_losses(base, base).values())
    grown = Gaussians(base.means, base.quats_wxyz, base.scales * math.e, base.opacities + 0.1,
                      base.colors)  # fmt: skip
    terms = regularity_losses(grown, base)
    assert float(terms["growth"]) == pytest.approx(1.0, abs=1e-5)
    assert float(terms["fading"]) == pytest.approx(0.01, abs=1e-6)
    weights = LossWeights(growth=2.0, fading=10.0)
    assert float(total_loss(terms, weights)) == pytest.approx(2.1, abs=1e-5)


def test_weights_are_not_negative():
    with pytest.raises(ValueError, match="l1 >= 0"):
        LossWeights(l1=-1.0)


def test_perceptual_distance_tells_blur_from_a_small_change_of_colour():
    torch.manual_seed(0)
    target = torch.rand(2, 3, 64, 64)
    mask = torch.ones(2, 1, 64, 64)
    blurred = torch.nn.functional.avg_pool2d(target, 5, 1, 2)
    assert torch.equal(perceptual_distance(target, target, mask), torch.zeros(2))
    lighter = perceptual_distance(target * 0.95, target, mask)
    softer = perceptual_distance(blurred, target, mask)
    assert bool((lighter < 0.1 * softer).all())
    # What lies outside the mask does not count.
    half = mask.clone()
    half[..., 32:] = 0
    spoilt = target.clone()
    spoilt[..., 32:] = 0.5
    assert torch.equal(perceptual_distance(spoilt, target, half), torch.zeros(2))


def test_flicker_sees_jitter_and_no_even_change():
    ramp = torch.linspace(0.2, 0.8, 9)[:, None, None, None].expand(-1, 3, 4, 4)
    assert flicker(ramp) < 1e-3
    jitter = ramp + 0.01 * torch.tensor([1.0, -1.0] * 4 + [1.0])[:, None, None, None]
    # A second difference of +-1, -+1, +-1 hundredths is four of them.
    assert flicker(jitter) == pytest.approx(0.04 * 255, rel=1e-3)


def test_what_sticks_out_of_the_head_costs_around_it_only():
    image, mask = torch.full((1, 3, 128, 128), 0.6), torch.zeros(1, 1, 128, 128)
    mask[..., 32:96, 40:88] = 1.0
    truth = image * mask
    rim = torch.nn.functional.max_pool2d(mask, 5, 1, 2)
    fat = _picture_scores(image * rim, truth, mask)
    thin = _picture_scores(truth, truth, mask)
    assert fat["psnr"] == thin["psnr"] > 60
    assert fat["psnr_around"] < 30 < thin["psnr_around"]
    # Farther away than 8 pixels nothing counts.
    far = truth.clone()
    far[..., :3, :] = 1.0
    assert _picture_scores(far, truth, mask)["psnr_around"] == thin["psnr_around"]


def test_the_neck_below_the_cut_is_not_judged():
    """Avatars go on where true pictures are cut; beside the neck nothing is forgiven."""
    image, mask = torch.full((1, 3, 128, 128), 0.6), torch.zeros(1, 1, 128, 128)
    mask[..., 32:96, 40:88] = 1.0
    neck = torch.zeros_like(mask)
    neck[..., 96:120, 44:84] = 1.0
    truth = image * mask
    with_neck = image * (mask + neck)
    beside = with_neck.clone()
    beside[..., 40:80, 88:92] = 0.6
    short = truth.clone()
    short[..., 92:96, :] = 0.0

    def around(picture, necks):
        return _picture_scores(_cut_at_neck(picture, mask, necks), truth, mask)["psnr_around"]

    assert around(with_neck, None) < 30
    assert around(with_neck, neck) > 60
    assert around(beside, neck) < 30
    # A head that lacks its lowest rows is not spared for being next to the neck.
    assert around(short, neck) < 30
