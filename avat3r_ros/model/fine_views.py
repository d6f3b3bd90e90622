"""Reference views twice as fine: what the photos show of each quarter of a pixel."""

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.types import Camera, ReferenceViews

TIMES = 2


def finer_pixels(values: Float[Tensor, "v c h w"]) -> Float[Tensor, "v c fh fw"]:
    """Repeat every pixel for its quarters."""
    return values.repeat_interleave(TIMES, 2).repeat_interleave(TIMES, 3)


def finer_pictures(views: ReferenceViews) -> Float[Tensor, "v 3 fh fw"]:
    """Return the references' pictures twice as fine; the same pixels where nobody looked closer."""
    pictures = finer_pixels(views.images.float())
    return pictures if views.details is None else (pictures + views.details).clamp(0, 1)


def finer_camera(camera: Camera) -> Camera:
    """Return the camera of a picture twice as fine."""
    scale = torch.diag(camera.intrinsics.new_tensor([TIMES, TIMES, 1.0]))
    return Camera(
        scale @ camera.intrinsics,
        camera.camera_from_head,
        TIMES * camera.width,
        TIMES * camera.height,
    )
