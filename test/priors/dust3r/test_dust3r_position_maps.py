"""From crops to reference views, with a stand-in for the network that knows the truth."""

import pytest
import torch

from avat3r_ros.geometry import invert_poses, transform_points
from avat3r_ros.priors import template as template_prior
from avat3r_ros.priors.dust3r import position_maps as dust3r_prior
from avat3r_ros.priors.dust3r.alignment import AlignmentConfig
from avat3r_ros.priors.dust3r.inference import predict_pairs
from avat3r_ros.priors.dust3r.pairs import PairPoints, all_pairs

QUICK = AlignmentConfig(iterations=60, max_grid=16)
SIZE = 64


@pytest.fixture(scope="module")
def crops(make_exact_crops):
    return make_exact_crops((-28, 4, 30), [{"jawOpen": 0.5}, {}, {"mouthSmile": 0.6}], size=SIZE)


@pytest.fixture(scope="module")
def drawn(crops, template):
    return template_prior.position_maps(crops, template)


@pytest.fixture
def answer(monkeypatch, crops, tiny_network):
    """Make the network say where things are, at another scale for each pair."""
    return lambda *args, **kwargs: answering(monkeypatch, crops, tiny_network, *args, **kwargs)


def answering(monkeypatch, crops, network, true_maps, *, log_confidence=1.5):
    def predict(network, images, progress=None):
        inside = crops.masks[:, 0] > 0
        said = [[], [], [], []]
        for number, (i, j) in enumerate(all_pairs(len(images)).tolist()):
            for side, k in enumerate((i, j)):
                points = true_maps[k].flatten(1).T
                local = transform_points(crops.cameras.camera_from_head[i], points)
                said[2 * side].append((2 + number) * local.view(SIZE, SIZE, 3))
                trust = torch.where(inside[k], torch.tensor(float(log_confidence)).exp(), 1.01)
                said[2 * side + 1].append(trust)
        return PairPoints(all_pairs(len(images)), *(torch.stack(values) for values in said))

    monkeypatch.setattr(dust3r_prior, "predict_pairs", predict)
    return network


def run(network, crops, template, **options):
    return dust3r_prior.position_maps(crops, template, network, alignment=QUICK, **options)


@pytest.mark.parametrize("cameras_known", [True, False])
def test_true_points_come_out_in_the_head_frame(answer, crops, drawn, template, cameras_known):
    network = answer(drawn.position_maps)
    views = run(network, crops, template, cameras_known=cameras_known)
    inside = crops.masks[:, 0] > 0
    off_m = (views.position_maps - drawn.position_maps).norm(dim=1)[inside]
    # Measured medians 0.1 and 1.2 mm; a head is 200 mm high.
    assert off_m.median() < (0.001 if cameras_known else 0.003)
    assert (views.position_maps.abs().sum(1)[~inside] == 0).all()
    assert (views.confidence[:, 0][~inside] == 0).all()
    # Every point lies on the ray of its own pixel, in the cameras that come with it.
    camera = transform_points(
        views.cameras.camera_from_head, views.position_maps.flatten(2).transpose(1, 2)
    )
    pixels = (camera / camera[..., 2:]) @ views.cameras.intrinsics.transpose(1, 2)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    centers = torch.stack([column, row], -1).flatten(0, 1) + 0.5
    assert (pixels[..., :2] - centers).norm(dim=-1)[inside.flatten(1)].max() < 1e-2


def test_shape_comes_from_the_network_and_motion_from_the_template(answer, crops, drawn, template):
    """The top of the head is 5 cm nearer than the template says: it lies there, unbound."""
    triangles = drawn.binding.triangle_ids
    top = (triangles >= 0) & (drawn.position_maps[:, 1] > 0.06)
    centers = invert_poses(crops.cameras.camera_from_head)[:, :3, 3, None, None]
    rays = torch.nn.functional.normalize(drawn.position_maps - centers, dim=1)
    network = answer(drawn.position_maps - 0.05 * top[:, None] * rays)
    views = run(network, crops, template)
    moved = (views.position_maps - drawn.position_maps).norm(dim=1)
    assert abs(moved[top].median() - 0.05) < 0.004
    assert (views.binding.triangle_ids[top & (moved > 0.035)] == -1).all()
    face = (triangles >= 0) & ~top
    assert moved[face].median() < 0.002
    assert torch.equal(views.binding.triangle_ids[face], triangles[face])


def test_confidence_is_the_logarithm_and_respects_claims(answer, crops, drawn, template):
    inside = crops.masks[:, 0] > 0
    network = answer(drawn.position_maps, log_confidence=0.7)
    claimed = run(network, crops, template).confidence[:, 0]
    everything = run(network, crops, template, all_confident=True).confidence[:, 0]
    core = torch.nn.functional.max_pool2d(1 - crops.masks, 5, 1, 2)[:, 0] == 0
    assert torch.allclose(everything[core], torch.tensor(0.7), atol=1e-3)
    assert (claimed <= everything + 1e-6).all() and (claimed <= drawn.confidence[:, 0] + 1e-6).all()
    # The paper keeps every view's pixels, the claims one view's per surface.
    assert (everything > 0.5).sum() > 1.3 * (claimed > 0.5).sum() > 0
    assert ((everything > 0.5) <= inside).all()


def test_a_network_that_knows_nothing_is_refused(answer, crops, drawn, template):
    network = answer(drawn.position_maps, log_confidence=0.3)
    with pytest.raises(ValueError, match="confident of only 0 landmarks"):
        run(network, crops, template)


def test_a_scene_that_is_no_head_is_refused(answer, crops, drawn, template):
    flat = drawn.position_maps.clone()
    flat[:, 0] += 0.15 * torch.sin(60 * flat[:, 1])
    network = answer(flat)
    with pytest.raises(ValueError, match=r"miss the landmarks of the head by \d+ mm"):
        run(network, crops, template, cameras_known=False)


# ── running the network ──────────────────────────────────────────────────────────────────────


def test_each_image_is_encoded_once_and_progress_is_told(tiny_network, monkeypatch):
    encoded, fractions = [], []
    encode = tiny_network.encode
    monkeypatch.setattr(
        tiny_network, "encode", lambda images: encoded.append(len(images)) or encode(images)
    )
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pairs = predict_pairs(tiny_network, images, progress=fractions.append)
    assert encoded == [1, 1, 1]
    assert pairs.pairs.tolist() == all_pairs(3).tolist()
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(fractions) == 9
    with torch.no_grad():
        alone = tiny_network.decode(encode(images), torch.tensor([[2, 0]]), 32, 32)
    row = pairs.pairs.tolist().index([2, 0])
    assert torch.allclose(pairs.points_second[row], alone.points_second[0], atol=1e-5)


def test_progress_may_stop_the_network(tiny_network):
    class StopError(Exception):
        pass

    def stop(fraction):
        raise StopError

    with pytest.raises(StopError):
        predict_pairs(tiny_network, torch.zeros(2, 3, 16, 16), progress=stop)


def test_one_image_is_refused(tiny_network):
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        predict_pairs(tiny_network, torch.zeros(1, 3, 16, 16))


def test_a_real_network_with_random_weights_ends_in_a_clear_refusal(crops, template, tiny_network):
    with pytest.raises(ValueError, match="DUSt3R|network saw"):
        dust3r_prior.position_maps(crops, template, tiny_network, alignment=QUICK)
