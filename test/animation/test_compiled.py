"""The compiled path against the full one, in memory and through a file."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avat3r_ros.animation import Animator, CompileConfig, basis_fit, compile_avatar, thin_avatar
from avat3r_ros.animation.codes import compile_codes, driven_codes
from avat3r_ros.animation.compiled import KEY, restore_parts
from avat3r_ros.animation.reference import TorchAnimation
from avat3r_ros.avatar_file import avatar_from_bytes, avatar_to_bytes
from avat3r_ros.expression import arkit_code
from avat3r_ros.model import Avat3r, build_avatar, preset
from avat3r_ros.types import Gaussians

FIELDS = tuple(Gaussians.__dataclass_fields__)
CONFIG = CompileConfig(num_codes=80, prune_below_px=0.0, num_test_codes=3, num_test_pairs=4)
CODES = {
    "neutral": {},
    "jaw": {"jawOpen": 1.0},
    "half a blink": {"eyeBlink": 0.5},
    "both": {"jawOpen": 0.7, "eyeBlink": 0.9},
}


def with_network(views, template, seed=0):
    torch.manual_seed(seed)
    network = Avat3r(preset("debug"), template).eval()
    for layer in network.output_layers():
        torch.nn.init.normal_(layer.weight, std=0.003)
    return build_avatar(views, network)


@pytest.fixture(scope="module")
def base(views, template):
    avatar = build_avatar(views, Avat3r(preset("debug"), template))
    return compile_avatar(avatar, CONFIG, template=template)


@pytest.fixture(scope="module")
def network(views, template):
    config = replace(CONFIG, num_codes=90)
    return compile_avatar(with_network(views, template), config, template=template)


def both_paths(avatar, template):
    return Animator(avatar, path="full", template=template), Animator(avatar, path="compiled")


@pytest.mark.parametrize("scores", CODES.values(), ids=CODES.keys())
def test_the_rig_comes_back_within_tolerance(base, template, scores):
    """The base guess is linear but for closed forms: nothing is left but rank and half floats."""
    full, compiled = both_paths(base, template)
    order = restore_parts(base).order
    wanted, got = full.animate(arkit_code(**scores)), compiled.animate(arkit_code(**scores))
    assert sorted(order.tolist()) == list(range(full.num_gaussians))
    # Measured: 0.008 mm; 0.03 mm^2 of the lid's 18 mm^2, as half floats of its limits; 0.003.
    assert float((wanted.means[order] - got.means).abs().max()) < 5e-5
    assert float((covariances(wanted, order) - covariances(got)).abs().max()) < 6e-8
    assert float((wanted.opacities[order] - got.opacities).abs().max()) < 0.01
    assert float((wanted.colors[order] - got.colors).abs().max()) < 0.001


def covariances(g, order=slice(None)):
    from avat3r_ros.geometry import matrices_from_quats_wxyz

    axes = matrices_from_quats_wxyz(g.quats_wxyz[order]) * g.scales[order][:, None]
    return axes @ axes.transpose(1, 2)


def test_a_lid_fades_in_both_paths(base, template):
    full, compiled = both_paths(base, template)
    fading = restore_parts(base).order[: len(base.tensors["fading"])]
    assert set(fading.tolist()) == set(base.tensors["fading"].tolist())
    seen = []
    for score in (0.0, 0.2, 1.0):
        code = arkit_code(eyeBlinkLeft=score)
        wanted, got = full.animate(code).opacities[fading], compiled.animate(code).opacities
        torch.testing.assert_close(got[: len(fading)], wanted, atol=0.01, rtol=0.01)
        seen.append(float(wanted.mean()))
    assert seen[0] < 0.5 * seen[2], "the lid of this head must fade, or nothing is tested"


def test_a_network_comes_back_nearly(network, template):
    full, compiled = both_paths(network, template)
    order = restore_parts(network).order
    neutral = full.animate(np.zeros(52))
    moved = errors = 0.0
    for code in driven_codes("arkit_52", 12):
        wanted, got = full.animate(code), compiled.animate(code)
        moved += float((wanted.means - neutral.means).norm(dim=-1).mean())
        errors += float((wanted.means[order] - got.means).norm(dim=-1).mean())
        # Colours of a random network change by 0.3; measured worst mean error 0.006.
        assert float((wanted.colors[order] - got.colors).abs().mean()) < 0.02
        assert float((wanted.opacities[order] - got.opacities).abs().mean()) < 0.02
    # Measured 5 %: few codes, and a random network.
    assert errors < 0.1 * moved


def test_accuracy_is_measured_and_kept(base, network):
    for avatar, least_db in ((base, 45.0), (network, 30.0)):
        about = avatar_from_bytes(avatar_to_bytes(avatar)).config[KEY]
        accuracy = about["accuracy"]
        assert least_db < accuracy["min_psnr_db"] <= accuracy["mean_psnr_db"]
        assert 0 < accuracy["mean_moving_error_mm"] <= accuracy["max_moving_error_mm"] < 2.0
        assert len(accuracy["worst_pairs"]) == 5 and "+" in accuracy["worst_pairs"][0][0]
    assert base.config[KEY]["held_out_input_error"] < 1e-3
    assert base.config[KEY]["num_products"] == 0, "the rig is linear and needs no corrections"


def test_native_and_torch_agree(network, base):
    for avatar in (base, network):
        parts = restore_parts(avatar)
        reference, native = TorchAnimation(parts), Animator(avatar, path="compiled")
        for code in driven_codes("arkit_52", 3):
            wanted, got = reference.animate(code), native.animate(code)
            # Sums in another order; opacity is steepest where a lid unfolds.
            for name, limit in (("means", 1e-7), ("scales", 1e-7), ("opacities", 1e-4)):
                assert float((getattr(wanted, name) - getattr(got, name)).abs().max()) < limit
            assert float((covariances(wanted) - covariances(got)).abs().max()) < 3e-10
            torch.testing.assert_close(wanted.colors, got.colors, atol=1e-5, rtol=0)


def test_a_file_keeps_the_compiled_path(base, template):
    loaded = avatar_from_bytes(avatar_to_bytes(base))
    code = arkit_code(jawOpen=0.6, eyeBlink=0.3)
    before, after = (Animator(a, path="compiled").animate(code) for a in (base, loaded))
    for name in FIELDS:
        assert torch.equal(getattr(before, name), getattr(after, name))
    full = Animator(loaded, path="full", template=template)
    assert full.animate(code).means.shape == before.means.shape


def test_auto_takes_the_compiled_path_where_it_fits(base, template, caplog):
    uncompiled = replace(
        base,
        tensors={n: t for n, t in base.tensors.items() if not n.startswith("compiled.")},
        config={name: value for name, value in base.config.items() if name != KEY},
    )
    assert Animator(uncompiled, template=template).path == "full"
    assert not caplog.records
    assert Animator(base).path == "compiled"
    for change in ({"version": 2}, {"code_space": "ava256_256"}):
        other = replace(base, config=base.config | {KEY: base.config[KEY] | change})
        assert Animator(other, template=template).path == "full"
        assert "another version or code space" in caplog.text
        with pytest.raises(ValueError, match="avat3r compile"):
            Animator(other, path="compiled")
        caplog.clear()
    with pytest.raises(ValueError, match="no compiled path"):
        Animator(uncompiled, path="compiled")
    with pytest.raises(ValueError, match="'auto', 'full', 'compiled'.*'fast'"):
        Animator(base, path="fast")


def test_a_thin_avatar_animates_without_template_or_weights(base):
    thin = avatar_from_bytes(avatar_to_bytes(thin_avatar(base)))
    assert len(avatar_to_bytes(thin)) < len(avatar_to_bytes(base))
    code = arkit_code(jawOpen=0.6)
    assert torch.equal(Animator(thin).animate(code).means, Animator(base).animate(code).means)
    with pytest.raises(ValueError, match="compiled path only"):
        Animator(thin, path="full")
    with pytest.raises(ValueError, match="no compiled path"):
        thin_avatar(replace(base, config={}))


def test_results_are_not_overwritten_while_anybody_holds_them(base):
    animator = Animator(base, path="compiled")
    first = animator.animate(arkit_code(jawOpen=1.0)).means  # the other tensors are given up
    kept = first.clone()
    addresses = set()
    for i in range(6):
        gaussians = animator.animate(arkit_code(jawOpen=i / 10))
        addresses.add(gaussians.means.data_ptr())
    assert torch.equal(first, kept)
    assert len(addresses) <= 2, "buffers that nobody holds must be used again"


def test_compiling_again_replaces_what_was_there(base, template):
    again = compile_avatar(base, replace(CONFIG, seed=1), template=template)
    assert set(again.tensors) == set(base.tensors)
    assert again.config[KEY]["settings"]["seed"] == 1


def test_pruning_takes_out_what_nobody_sees(views, template):
    avatar = build_avatar(views, Avat3r(preset("debug"), template))
    # A speck inside the head, behind everything.
    hidden = 5
    tensors = {name: tensor.clone() for name, tensor in avatar.tensors.items()}
    tensors["opacities"][hidden] = 1e-3
    avatar = replace(avatar, tensors=tensors)
    pruned = compile_avatar(avatar, replace(CONFIG, prune_below_px=0.3), template=template)
    order = restore_parts(pruned).order.tolist()
    assert hidden not in order
    behind = (tensors["means"][:, 2] < -0.07) & (tensors["opacities"] > 0.5)
    behind = behind.nonzero()[:, 0].tolist()
    assert behind and set(behind) <= set(order), "one direction sees them, so they must stay"
    count = pruned.config[KEY]["num_pruned"]
    assert 0 <= pruned.config[KEY]["pruned_mean_change_bound"] <= 0.3 * count / 384**2
    assert 1 <= count < len(tensors["means"]) // 4
    assert Animator(pruned).num_gaussians == len(tensors["means"]) - count
    assert pruned.config[KEY]["accuracy"]["min_psnr_db"] > 35


def test_size_is_bounded_by_coarser_components(base, template, monkeypatch):
    tolerances, fit_blocks = [], basis_fit.fit_blocks

    def large_unless_coarse(*args):
        tolerances.append(args[-1])
        found = fit_blocks(*args)
        if tolerances[-1] < 2:
            return replace(found, stream=torch.zeros(10**6, dtype=torch.half))
        return found

    monkeypatch.setattr(basis_fit, "fit_blocks", large_unless_coarse)
    small = compile_avatar(base, replace(CONFIG, max_mb=2.0), template=template)
    assert tolerances == [1.0, 1.5, 2.25]
    assert small.config[KEY]["tolerance"] == 2.25
    with pytest.raises(ValueError, match="raise max_mb"):
        compile_avatar(base, replace(CONFIG, max_mb=0.1), template=template)


def test_progress_rises_to_one(views, template):
    avatar = build_avatar(views, Avat3r(preset("debug"), template))
    seen = []
    compile_avatar(avatar, CONFIG, template=template, progress=lambda *step: seen.append(step))
    fractions = [fraction for _, fraction in seen]
    assert fractions == sorted(fractions) and seen[-1] == ("done", 1.0)
    assert {"evaluating codes", "measuring accuracy"} <= {stage for stage, _ in seen}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("compiled.map", lambda t: t[:-1], "rows of the map"),
        ("compiled.stream", lambda t: t[:-16], "rows of the stream"),
        ("compiled.ranks", lambda t: t + 70, "ranks up to 64"),
        ("compiled.counts", lambda t: t * 0 + 255, "blocks hold|rows of the stream"),
        ("compiled.weights", lambda t: t[:, :-1], "compiled.weights"),
        ("compiled.means", lambda t: t * float("nan"), "not finite"),
        ("compiled.colors", lambda t: t.float(), "float16"),
        ("compiled.order", None, "missing"),
    ],
)
def test_damaged_tensors_are_named(base, name, change, message):
    tensors = dict(base.tensors)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name])
    with pytest.raises(ValueError, match=message):
        Animator(replace(base, tensors=tensors), path="compiled")


def test_codes_start_with_neutral_and_units_and_repeat():
    codes = compile_codes("arkit_52", 100)
    assert codes.shape == (100, 52) and codes.min() >= 0 and codes.max() <= 1
    assert not codes[0].any() and np.array_equal(codes[1:53], np.eye(52))
    assert np.array_equal(codes, compile_codes("arkit_52", 100))
    assert not np.array_equal(codes, compile_codes("arkit_52", 100, seed=1))
    assert len(compile_codes("arkit_52", 10)) == 54, "one more than the units, to check the fit by"
    other = compile_codes("ava256_256", 400)
    assert other.shape == (400, 256)


@pytest.mark.parametrize(
    ("field", "value"), [("num_codes", -1), ("prune_below_px", -1.0), ("num_test_codes", 0)]
)
def test_settings_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        CompileConfig(**{field: value})
