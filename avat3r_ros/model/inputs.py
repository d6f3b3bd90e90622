"""What the network sees of every pixel: colour, place, ray, confidence and mask."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from avat3r_ros.geometry import invert_poses, pixel_centers, transform_points, unproject_pixels
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.types import ReferenceViews

POSITION_INPUT_SCALE = 10.0
"""Head-frame metres to network input: a head then spans about +-1.5."""

INPUT_CHANNELS = 3 + 3 + 6 + 1 + 1
"""Image, position map, Plücker ray, confidence, mask."""


def input_maps(views: ReferenceViews, use_position_maps: bool) -> Float[Tensor, "v channels h w"]:
    """Stack what the network sees of each pixel; positions and confidence are 0 if unused."""
    known = float(use_position_maps)
    return torch.cat(
        [
            views.images * 2 - 1,
            views.position_maps * (POSITION_INPUT_SCALE * known),
            plucker_rays(views),
            views.confidence * known,
            views.masks,
        ],
        1,
    )


def shown_tokens(masks: Float[Tensor, "v 1 h w"], grid_size: int) -> Bool[Tensor, "t"]:
    """Which patches of the views show something of the head; `grid_size` of them to a side."""
    return (nn.functional.adaptive_max_pool2d(masks.float(), grid_size) > 0).flatten()


def shown_patches(views: ReferenceViews, config: Avat3rConfig) -> Float[Tensor, "s i"]:
    """What the network sees of each of these patches; half of all patches are background."""
    maps = input_maps(views, config.use_position_maps)
    if maps.shape[-1] != config.image_size:
        maps = nn.functional.adaptive_avg_pool2d(maps, config.image_size)
    if config.input_pooling > 1:
        maps = nn.functional.avg_pool2d(maps, config.input_pooling)
    side = config.patch_size // config.input_pooling
    patches = nn.functional.unfold(maps, side, stride=side).transpose(1, 2).flatten(0, 1)
    return patches[shown_tokens(views.masks, config.grid_size)]


def plucker_rays(views: ReferenceViews) -> Float[Tensor, "v 6 h w"]:
    """Moment (origin x direction, metres) and unit direction of every pixel's ray, head frame."""
    v, _, h, w = views.images.shape
    head_from_camera = invert_poses(views.cameras.camera_from_head.float())
    pixels = pixel_centers(w, h).to(views.images.device).view(1, -1, 2).expand(v, -1, -1)
    ahead = unproject_pixels(
        views.cameras.intrinsics.float(), pixels, torch.ones_like(pixels[..., 0])
    )
    origins = head_from_camera[:, None, :3, 3].expand(-1, h * w, -1)
    directions = nn.functional.normalize(
        transform_points(head_from_camera, ahead) - origins, dim=-1
    )
    rays = torch.cat([torch.cross(origins, directions, dim=-1), directions], -1)
    return rays.transpose(1, 2).reshape(v, 6, h, w)
