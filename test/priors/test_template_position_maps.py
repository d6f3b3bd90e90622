"""Position maps are the fitted mesh where there is mesh, and agree between views elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from avat3r_ros import native
from avat3r_ros.expression import arkit_code
from avat3r_ros.geometry import intrinsics_matrix, look_at_head
from avat3r_ros.priors.template import OFF_MESH_CONFIDENCE, position_maps
from avat3r_ros.priors.view import ReferenceView
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Camera, HeadCrops

SIZE, FOCAL_PX, DISTANCE_M = 96, 180.0, 0.6
TARGET = np.array([0.0, 0.0, -0.07])


@pytest.fixture(scope="module")
def template():
    return HeadTemplate.load()


def rasterize(template, vertices, pose):
    lashes = template.region_mask("eyelashes").numpy()
    triangles = np.where(lashes[:, None], 0, template.triangles.numpy())
    k = intrinsics_matrix(FOCAL_PX, SIZE / 2, SIZE / 2)
    return native.rasterize_mesh(vertices.numpy(), triangles, k, pose, SIZE, SIZE)


def make_crops(template, yaws_deg, codes=None, grow=None, pitches_deg=None):
    """Crops of the mean head whose mattes are exactly its outline, or `grow(mask)` of it."""
    yaws_deg = list(yaws_deg)
    codes = [arkit_code(**scores) for scores in codes or [{}] * len(yaws_deg)]
    turns = np.radians(np.stack([yaws_deg, pitches_deg or [0.0] * len(yaws_deg)], 1))
    poses = [look_at_head(yaw, pitch, DISTANCE_M, TARGET) for yaw, pitch in turns]
    masks = []
    for pose, code in zip(poses, codes, strict=True):
        vertices = template.vertices(code=torch.from_numpy(code))
        mask = rasterize(template, vertices, pose).triangle_ids >= 0
        masks.append(grow(mask) if grow else mask)
    masks = torch.from_numpy(np.stack(masks).astype(np.float32))[:, None]
    k = torch.from_numpy(intrinsics_matrix(FOCAL_PX, SIZE / 2, SIZE / 2)).float()
    return HeadCrops(
        images=masks.expand(-1, 3, -1, -1).clone(),
        masks=masks,
        cameras=Camera(
            k.expand(len(poses), 3, 3), torch.from_numpy(np.stack(poses)).float(), SIZE, SIZE
        ),
        codes=torch.from_numpy(np.stack(codes)),
        identity=torch.zeros(template.num_identity),
    )


def add_hair(height_px, top_rows=48):
    """Grow a mask upwards and sideways in its upper part."""

    def grow(mask):
        grown = mask.copy()
        for _ in range(height_px):
            upper = grown.copy()
            upper[top_rows:] = False
            grown[:-1] |= upper[1:]
            grown[:, :-1] |= upper[:, 1:]
            grown[:, 1:] |= upper[:, :-1]
        return grown

    return grow


def test_exact_fit_gives_the_rasterized_mesh(template):
    crops = make_crops(template, (-20, 15), [{"jawOpen": 0.6}, {"mouthSmile": 0.5}])
    views = position_maps(crops, template)
    for view in range(2):
        vertices = template.vertices(code=crops.codes[view])
        truth = rasterize(template, vertices, crops.cameras.camera_from_head[view].numpy())
        hit = truth.triangle_ids >= 0
        points = views.position_maps[view].permute(1, 2, 0).numpy()
        corners = vertices.numpy()[template.triangles.numpy()[truth.triangle_ids[hit]]]
        expected = (truth.barycentrics[hit][..., None] * corners).sum(1)
        assert np.abs(points[hit] - expected).max() < 1e-4
        assert (points[~hit] == 0).all()
        assert (views.binding.triangle_ids[view].numpy()[hit] == truth.triangle_ids[hit]).all()
        assert (views.confidence[view, 0].numpy()[~hit] == 0).all()
        # The projection of a pixel's point is that pixel's centre.
        camera = points[hit] @ crops.cameras.camera_from_head[view, :3, :3].numpy().T
        camera += crops.cameras.camera_from_head[view, :3, 3].numpy()
        pixel = FOCAL_PX * camera[:, :2] / camera[:, 2:] + SIZE / 2
        row, column = np.nonzero(hit)
        assert np.abs(pixel - np.stack([column + 0.5, row + 0.5], 1)).max() < 0.05


def test_a_matte_that_misses_half_the_face_says_nothing_of_the_background(template):
    crops = make_crops(template, [0])
    assert ReferenceView(crops, template, 0).outside_m.max() > 0.01
    crops.masks[..., : SIZE // 2] = 0
    view = ReferenceView(crops, template, 0)
    assert view.matte_fails and view.outside_m.max() == 0


def test_points_find_their_pixel_again(template):
    view = ReferenceView(make_crops(template, [20]), template, 0)
    row, column = np.nonzero(view.on_mesh)
    points = view.points[row, column]
    found_row, found_column, inside, depth = view.pixels_of(points)
    assert (found_row == row).all() and (found_column == column).all() and inside.all()
    assert np.abs(depth - view.depth[row, column]).max() < 1e-5
    assert view.sees(points).all()
    assert not view.pixels_of(np.array([[0.5, 0, 0]]))[2].any()


def test_single_view_keeps_everything_it_sees(template):
    views = position_maps(make_crops(template, [10]), template)
    assert (views.confidence[views.masks > 0] > 0.5).all()


def test_claims_are_complementary(template):
    """What one view leaves to another is kept there, and little is kept twice."""
    crops = make_crops(template, (-35, 0, 30))
    views = position_maps(crops, template)
    keep = (views.confidence[:, 0] > 0.5).numpy()
    on = views.masks[:, 0].numpy() > 0
    dilated = np.stack([add_hair(1, SIZE)(mask) for mask in keep])
    left_out, orphans, shared, kept = 0, 0, 0, 0
    for view in range(3):
        row, column = np.nonzero(on[view])
        points = views.position_maps[view].numpy()[:, row, column].T
        elsewhere, twice = np.zeros(len(points), bool), np.zeros(len(points), bool)
        for other in range(3):
            if other == view:
                continue
            pose = crops.cameras.camera_from_head[other].numpy()
            camera = points @ pose[:3, :3].T + pose[:3, 3]
            x, y = (FOCAL_PX * camera[:, :2] / camera[:, 2:] + SIZE / 2).astype(int).T
            x, y = x.clip(0, SIZE - 1), y.clip(0, SIZE - 1)
            there = views.position_maps[other].numpy()[:, y, x].T
            same = np.linalg.norm(there - points, axis=1) < 0.01
            elsewhere |= same & dilated[other, y, x]
            twice |= same & keep[other, y, x]
        own = keep[view, row, column]
        left_out += (~own).sum()
        orphans += (~own & ~elsewhere).sum()
        kept += own.sum()
        shared += (own & twice).sum()
    assert left_out > 500, "three overlapping views must leave pixels to each other"
    assert orphans < 0.02 * left_out, "surface that nobody keeps"
    assert shared < 0.15 * kept, "surface drawn twice"


def test_frontal_view_with_open_eyes_owns_the_middle_of_the_face(template):
    for codes, owner in (([{}, {}], 1), ([{}, {"eyeBlink": 1.0}], 0)):
        kept = kept_of_nose(position_maps(make_crops(template, (-18, 2), codes), template))
        assert kept[owner] > 0.9 and kept[1 - owner] < 0.3


def test_front_is_level_with_the_photos_where_the_camera_stands_below(template):
    crops = make_crops(template, (-20, 2, 20, 2), pitches_deg=[-18, -17, -18, 0])
    kept = kept_of_nose(position_maps(crops, template))
    assert kept[1] > 0.9 and kept[3] < 0.3


def test_front_is_of_a_face_that_the_fit_explains(template):
    """Half a millimetre more off the landmarks outweighs 18 degrees, not 40; of two, nothing."""
    for yaws, owner in (((-18, 2, 45), 0), ((-40, 2, 45), 1), ((-18, 2), 1)):
        residuals = torch.tensor([1e-3, 1.5e-3, 1e-3])[: len(yaws)]
        crops = replace(make_crops(template, yaws), residuals_m=residuals)
        kept = kept_of_nose(position_maps(crops, template))
        assert kept[owner] > 0.9 and kept[1 - owner] < 0.3


def kept_of_nose(views):
    """Share of the pixels around the sellion that each view keeps."""
    nose = ((views.position_maps**2).sum(1) < 0.02**2) & (views.masks[:, 0] > 0)
    kept = views.confidence[:, 0] > 0.5
    return [float(kept[v][nose[v]].float().mean()) for v in range(len(nose))]


def test_hair_stands_on_the_scalp_in_all_views_alike(template):
    """Mattes that reach 4 px (13 mm) beyond the skull lift the scalp by about as much."""
    crops = make_crops(template, (-25, 0, 25), grow=add_hair(4))
    views = position_maps(crops, template)
    bald = position_maps(make_crops(template, (-25, 0, 25)), template)
    scalp = template.region_mask("scalp")
    triangle = views.binding.triangle_ids
    lifted = (views.position_maps - bald.position_maps).norm(dim=1)
    both = (triangle >= 0) & (bald.binding.triangle_ids >= 0)
    on_scalp = both & scalp[triangle.clamp(min=0)]
    # Measured 17 mm: along the rays, which mostly meet the shell at an angle.
    assert 0.008 < lifted[on_scalp].median() < 0.02
    face = both & template.region_mask("lips", "lid_left", "brows")[triangle.clamp(min=0)]
    assert lifted[face].max() < 1e-4
    # Most of the hair beyond the bald outline is now on the shell.
    beyond = (crops.masks[:, 0] > 0) & (bald.binding.triangle_ids < 0)
    assert (triangle[beyond] >= 0).float().mean() > 0.5
    assert (views.confidence[:, 0][beyond & (triangle < 0)] <= OFF_MESH_CONFIDENCE + 1e-6).all()


def test_surface_is_not_torn_where_the_mesh_ends(template):
    """Neighbouring kept pixels across the outline of the mesh are near each other in space."""
    views = position_maps(make_crops(template, [0], grow=add_hair(6)), template)
    points, keep = views.position_maps[0], views.confidence[0, 0] > 0.5
    off = views.binding.triangle_ids[0] < 0
    border = keep[:-1] & keep[1:] & (off[:-1] != off[1:])
    border[SIZE // 2 :] = False
    step = (points[:, 1:] - points[:, :-1]).norm(dim=0)[border]
    assert border.sum() > 20
    # Measured 26 mm at the notch over the ears, 4 mm median.
    assert step.max() < 0.03 and step.median() < 0.005


def test_what_another_photo_shows_as_background_is_dropped(template):
    crops = make_crops(template, (-25, 25))
    crops.masks[0, 0, 10:20, 2:14] = 1  # a lamp beside the head, in one photo only
    views = position_maps(crops, template)
    assert (views.confidence[0, 0, 12:18, 4:12] < 0.5).all()
