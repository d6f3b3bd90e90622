"""The network: identity at the start, caching, gradients, order of views, what it refuses."""

import dataclasses

import pytest
import torch

from avat3r_ros.expression import arkit_code
from avat3r_ros.model import Avat3r, preset, subset_prefix
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.evidence import cross_view_evidence
from avat3r_ros.types import Gaussians

DEBUG = preset("debug")
STILL = dataclasses.replace(
    DEBUG,
    upsampler="none",
    self_attention_layers=0,
    cross_attention_layers=0,
    expression_basis=0,
)
VARIANTS = {
    "pixel": DEBUG,
    "linear": dataclasses.replace(DEBUG, upsampler="linear"),
    "grm": dataclasses.replace(DEBUG, upsampler="grm"),
    "interleaved": dataclasses.replace(
        DEBUG, layout="interleaved", self_attention_layers=2, cross_attention_layers=2
    ),
    "paper-like": dataclasses.replace(
        DEBUG,
        upsampler="grm",
        motion_prior="none",
        condition_on_reference_codes=False,
        expression_basis=0,
    ),
    "no evidence": dataclasses.replace(DEBUG, evidence_features=0, evidence_layers=0),
    "still": STILL,
    "still, without attention": dataclasses.replace(STILL, evidence_layers=0),
    "no skips": dataclasses.replace(
        DEBUG, motion_prior="none", position_skip=False, color_skip=False, use_position_maps=False
    ),
}
FIELDS = tuple(Gaussians.__dataclass_fields__)
CODE = torch.from_numpy(arkit_code(jawOpen=0.7, eyeBlink=0.3))


def network_of(config, template, perturbed=False):
    torch.manual_seed(0)
    network = Avat3r(config, template).eval()
    if perturbed:
        for layer in network.output_layers():
            torch.nn.init.normal_(layer.weight, std=0.1)
    return network


def assert_equal(a, b):
    for name in FIELDS:
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def assert_close(a, b, atol=1e-5):
    for name in FIELDS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=atol, rtol=1e-4)


@pytest.fixture(params=VARIANTS)
def config(request):
    return VARIANTS[request.param]


def test_an_untrained_network_returns_the_base_guess_bit_for_bit(config, template, views):
    network = network_of(config, template)
    assert network.is_untrained()
    prefix = network.encode(views)
    assert_equal(network.decode(prefix, CODE), prefix.base_gaussians(CODE))


def test_a_changed_output_layer_changes_every_attribute(config, template, views):
    network = network_of(config, template, perturbed=True)
    assert not network.is_untrained()
    prefix = network.encode(views)
    changed, base = network.decode(prefix, CODE), prefix.base_gaussians(CODE)
    for name in FIELDS:
        # What is the same in every expression turns nothing: the rig does.
        turns = config.has_tokens or name != "quats_wxyz"
        assert torch.equal(getattr(changed, name), getattr(base, name)) != turns, name
    # Template Gaussians have no pixel: they keep their looks, and follow the pixels around them.
    tail = slice(prefix.base.num_pixels, None)
    for name in ("opacities", "colors", "scales"):
        assert torch.equal(getattr(changed, name)[tail], getattr(base, name)[tail]), name


def test_decoding_without_gradients_is_the_same(config, template, views, monkeypatch):
    """Some pixels after the other, with the heads as one: only the order of sums differs."""
    monkeypatch.setattr("avat3r_ros.model.pixel_decoder.CHUNK", 100)
    network = network_of(config, template, perturbed=True)
    prefix = network.encode(views)
    with_gradients = network.decode(prefix, CODE)
    assert with_gradients.means.requires_grad and prefix.base.num_pixels > 200
    with torch.no_grad():
        assert_close(network.decode(prefix, CODE), with_gradients)


def test_pixels_means_are_those_of_the_whole(config, template, views):
    network = network_of(config, template, perturbed=True)
    with torch.no_grad():
        prefix = network.encode(views)
        codes = torch.stack([CODE, 0.3 * CODE])
        means = network.decode_pixel_means(prefix, codes)
        for code, own in zip(codes, means, strict=True):
            expected = network.decode(prefix, code).means[: prefix.base.num_pixels]
            torch.testing.assert_close(own, expected, atol=1e-6, rtol=1e-5)


def test_template_gaussians_follow_pixels_that_all_move_alike(template, views):
    network = network_of(DEBUG, template)
    with torch.no_grad():
        network.expression_path.upsampler.heads["position"].bias.copy_(
            torch.tensor([0.3, -0.2, 0.1])
        )
        prefix = network.encode(views)
        moved = network.decode(prefix, CODE).means - prefix.base_gaussians(CODE).means
    expected = torch.tensor([0.003, -0.002, 0.001]).expand_as(moved)
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
    assert len(prefix.base) > prefix.base.num_pixels


def test_views_without_pictures_of_the_head_do_not_disturb(template, head):
    """Batches of people with different numbers of tokens give what each gives alone."""
    full = head.fake_views(template, [arkit_code()] * 3)
    masks = full.masks.clone()
    masks[0] = 0
    part = dataclasses.replace(full, masks=masks, images=full.images * masks)
    network = network_of(DEBUG, template, perturbed=True)
    together = network.encode_many([full, part])
    for one, prefix in zip((full, part), together, strict=True):
        alone = network.encode(one)
        torch.testing.assert_close(prefix.tokens, alone.tokens, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_parameter(config, template, head):
    views = head.fake_views(template, [arkit_code(mouthSmile=0.3), arkit_code(), arkit_code()])
    network = network_of(config, template, perturbed=True)
    gaussians = network.forward([views], CODE[None, None])[0][0]
    loss = sum((getattr(gaussians, name) * torch.randn_like(getattr(gaussians, name))).sum()
               for name in FIELDS)  # fmt: skip
    loss.backward()
    without = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool((p.grad != 0).any())
    ]
    assert not without


def test_decoding_a_prefix_equals_the_whole_pass(config, template, views, head):
    network = network_of(config, template, perturbed=True)
    other = head.fake_views(template, seed=1)
    codes = torch.stack([CODE, torch.zeros(52)])
    with torch.no_grad():
        batched = network.forward([views, other], codes.expand(2, -1, -1))
        for person, one in zip(batched, (views, other), strict=True):
            prefix = network.encode(one)
            for gaussians, code in zip(person, codes, strict=True):
                # Large turns are made of rounded sums.
                assert_close(gaussians, network.decode(prefix, code), atol=1e-4)


def test_the_expression_is_heard_from_the_start(template, views):
    """A change of code changes the output by some percent of what a change of pixel does.

    Measured: 0.087; with PyTorch's default start of the expression encoder 0.002.
    """
    network = network_of(VARIANTS["paper-like"], template, perturbed=True)
    with torch.no_grad():
        prefix = network.encode(views)
        a, b = network.decode(prefix, CODE), network.decode(prefix, torch.zeros(52))
    by_pixel = (b.means - prefix.base.gaussians.means).std(0).norm()
    assert (a.means - b.means).norm(dim=-1).mean() > 0.03 * by_pixel


@pytest.mark.parametrize("name", ["linear", "interleaved"])
def test_the_order_of_the_views_does_not_matter(name, template, head):
    """Windows of the GRM upsampler run on across views, so it makes no such promise."""
    codes = [arkit_code(), arkit_code(jawOpen=0.5), arkit_code(mouthSmile=0.4)]
    views = head.fake_views(template, codes)
    order = torch.tensor([2, 0, 1])
    turned = views[order]
    network = network_of(VARIANTS[name], template, perturbed=True)
    with torch.no_grad():
        results = []
        for one in (views, turned):
            prefix = network.encode(one)
            gaussians = network.decode(prefix, CODE)
            # Undo the permutation by sorting each set along the pixel it came from.
            pixels = prefix.base.pixel_indices
            size = views.images.shape[-1] ** 2
            view = pixels // size if one is views else order[pixels // size]
            by_pixel = torch.argsort(view * size + pixels % size)
            results.append((gaussians, by_pixel))
    (a, order_a), (b, order_b) = results
    assert len(a) == len(b)
    for field in FIELDS:
        torch.testing.assert_close(
            getattr(a, field)[order_a], getattr(b, field)[order_b], atol=2e-5, rtol=1e-3
        )


@pytest.mark.parametrize("count", [3, 6])
def test_three_to_six_views_are_accepted(count, template, head):
    views = head.fake_views(template, num_views=count)
    network = network_of(VARIANTS["grm"], template)
    with torch.no_grad():
        assert len(network.decode(network.encode(views), CODE)) > 100 * count


@pytest.mark.parametrize("count", [1, 2, 7])
def test_other_numbers_of_views_are_refused(count, template, head):
    with pytest.raises(ValueError, match=f"3 to 6 reference views, got {count}"):
        network_of(DEBUG, template).encode(head.fake_views(template, num_views=count))


@pytest.mark.parametrize("name", ["grm", "pixel", "linear"])
def test_finer_references_give_finer_heads_that_change_alike(name, template, head):
    """A network for 32x32 says of a head in 48x48 pixels what it says of the head in 32x32."""
    network = network_of(dataclasses.replace(DEBUG, upsampler=name), template, perturbed=True)
    moved, counts = [], []
    for size in (32, 48):
        views = head.fake_views(template, size=size)
        with torch.no_grad():
            prefix = network.encode(views)
            change = network.decode(prefix, CODE).means - prefix.base_gaussians(CODE).means
        pixels = prefix.base.num_pixels
        counts.append(pixels)
        moved.append(float(change[:pixels].norm(dim=-1).mean()))
    assert counts[1] > 2 * counts[0]
    assert moved[1] == pytest.approx(moved[0], rel=0.3)


def test_wrong_size_code_space_and_features_are_refused(template, views, head):
    network = network_of(DEBUG, template)
    with pytest.raises(ValueError, match="expected references of 32x32 or finer, got 16x16"):
        network.encode(head.fake_views(template, size=16))
    with pytest.raises(ValueError, match="arkit_52"):
        network.encode(dataclasses.replace(views, code_space="ava256_256"))
    with pytest.raises(ValueError, match="use_features=False"):
        network.encode(views, features=torch.zeros(3, 8, 4, 4))


def test_features_reach_the_output(template, views):
    config = dataclasses.replace(DEBUG, use_features=True, feature_channels=8)
    network = network_of(config, template, perturbed=True)
    with pytest.raises(ValueError, match="got no feature maps"):
        network.encode(views)
    with torch.no_grad():
        a = network.decode(network.encode(views, torch.zeros(3, 8, 6, 6)), CODE)
        b = network.decode(network.encode(views, torch.ones(3, 8, 6, 6)), CODE)
    assert not torch.equal(a.means, b.means)


def test_bilinear_changes_vanish_at_the_references_code(template, head):
    code = arkit_code(jawOpen=0.5)
    views = head.fake_views(template, [code] * 3)
    network = network_of(DEBUG, template)
    for layer in network.expression_path.basis_decoder.heads.values():
        torch.nn.init.normal_(layer.weight, std=0.1)
    prefix = network.encode(views)
    same = torch.from_numpy(code)
    assert_equal(network.decode(prefix, same), prefix.base_gaussians(same))
    moved = network.decode(prefix, CODE).means - prefix.base_gaussians(CODE).means
    assert moved.abs().max() > 1e-6


def test_every_view_is_told_the_difference_to_its_own_code(template, views):
    """Other cross-attention input for one view's code changes that view's pixels and no others."""
    config = dataclasses.replace(DEBUG, expression_basis=0)
    network = network_of(config, template, perturbed=True)
    prefix = network.encode(views)
    codes = prefix.base.codes.clone()
    codes[1] = torch.from_numpy(arkit_code(mouthSmile=0.8))  # moves nothing in the fake rig
    other = dataclasses.replace(prefix, base=dataclasses.replace(prefix.base, codes=codes))
    pixels = slice(0, prefix.base.num_pixels)
    change = (network.decode(other, CODE).means - network.decode(prefix, CODE).means)[pixels]
    of_view = prefix.base.code_rows[pixels] == 1
    assert (change[of_view].norm(dim=-1) > 0).all()
    assert (change[~of_view] == 0).all()


def test_a_sample_of_gaussians_decodes_like_all_of_them(config, template, views):
    network = network_of(config, template, perturbed=True)
    base = build_base_guess(views, config, template)
    with torch.no_grad():
        prefix = network.encode(views, base=base)
        # Template Gaussians follow the pixels that are left, so only pixels stay as they were.
        indices = torch.arange(0, base.num_pixels, 7)
        sample = network.decode(subset_prefix(prefix, indices), CODE)
        whole = network.decode(prefix, CODE)
    for name in FIELDS:
        torch.testing.assert_close(
            getattr(sample, name), getattr(whole, name)[indices], atol=1e-6, rtol=1e-5
        )
    with pytest.raises(ValueError, match="strictly increasing"):
        subset_prefix(prefix, indices.flip(0))


def test_still_changes_are_the_same_in_every_expression(template, views):
    """Where only the rig follows the expression, a frame is the base guess and what stays."""
    network = network_of(VARIANTS["still"], template, perturbed=True)
    with torch.no_grad():
        prefix = network.encode(views)
        pixels = prefix.base.num_pixels
        shifts = [
            (network.decode(prefix, code).means - prefix.base_gaussians(code).means)[:pixels]
            for code in (CODE, torch.zeros(52))
        ]
    assert shifts[0].abs().max() > 1e-4
    torch.testing.assert_close(*shifts, atol=1e-6, rtol=1e-4)


def test_evidence_that_the_caller_keeps_is_used(template, views):
    """Made once per person, and cut to the pixels that are asked about."""
    network = network_of(VARIANTS["still"], template, perturbed=True)
    with torch.no_grad():
        whole = network.encode(views)
        known = cross_view_evidence(views, whole.base, whole.motion, template)
        rows = torch.arange(0, whole.base.num_pixels, 7)
        some = whole.base.subset(rows)
        (part,) = network.encode_many([views], bases=[some], evidence=[known.subset(rows)])
    torch.testing.assert_close(part.still, whole.still[rows])
    with pytest.raises(ValueError, match="no still changes"):
        network.prefix_from_tokens(None, whole.base, views.identity, 3)
