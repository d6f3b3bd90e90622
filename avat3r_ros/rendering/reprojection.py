"""Layers: pictures with depth that can be shown from where the viewer is by now.

    Gaussians ─FrameRenderer.render_layer─► Layer ─reproject(newest cameras)─► image

Drawing Gaussians takes longer than a display waits; a drawn layer is warped to another camera in a
millisecond or two. It can have another resolution than the image and reach beyond its edges
(overscan), so that a viewer who turns does not look past it. Geometry and limits are described in
native/src/reproject_types.h; the method is the inverse warp by fixed-point iteration of Bowles et
al., "Iterative Image Warping", 2012, started from a coarse forward warp.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from avat3r_ros import native
from avat3r_ros.types import Camera


@dataclass(frozen=True)
class Layer:
    """What C cameras see, without background.

    Attributes:
        rgba: Premultiplied by alpha, channels last.
        depth_m: z in the camera frame; 0 where (almost) nothing is.
        camera: C cameras.
    """

    rgba: UInt8[np.ndarray, "c h w 4"]
    depth_m: Float32[np.ndarray, "c h w"]
    camera: Camera

    def __post_init__(self) -> None:
        shape = (len(self.camera.intrinsics), self.camera.height, self.camera.width)
        if self.rgba.shape != (*shape, 4) or self.depth_m.shape != shape:
            raise ValueError(
                f"expected rgba {(*shape, 4)} and depth_m {shape} for these cameras, got "
                f"{self.rgba.shape} and {self.depth_m.shape}"
            )


@dataclass(frozen=True)
class Reprojected:
    """A layer seen from other cameras.

    Attributes:
        images: RGB or BGR over the background, or with straight alpha and without background.
        depth_m: z in the camera frame, 0 where alpha is below one half; None if not wanted.
        num_uncovered: Pixels near the drawn surface that lie beyond the layer's edge.
    """

    images: UInt8[np.ndarray, "c h w n"]
    depth_m: Float32[np.ndarray, "c h w"] | None
    num_uncovered: int


def layer_camera(camera: Camera, *, overscan: float = 0.0, scale: float = 1.0) -> Camera:
    """The cameras of a layer for images of `camera`: wider, and coarser or finer.

    Args:
        camera: C cameras.
        overscan: Margin on each side, as a share of the image's width and height.
        scale: Layer pixels for each image pixel.

    Raises:
        ValueError: A negative overscan or a scale that is not positive.
    """
    if not overscan >= 0 or not scale > 0:
        raise ValueError(f"expected overscan >= 0 and scale > 0, got {overscan} and {scale}")
    intrinsics = camera.intrinsics.clone()
    sizes = []
    for axis, size in enumerate((camera.width, camera.height)):
        margin_px = round(overscan * size)
        sizes.append(max(1, round((size + 2 * margin_px) * scale)))
        intrinsics[..., axis, 2] += margin_px
        # Sizes are whole: the scale that results is exact, and not quite the same on both axes.
        intrinsics[..., axis, :] *= sizes[-1] / (size + 2 * margin_px)
    return replace(camera, intrinsics=intrinsics, width=sizes[0], height=sizes[1])


def reproject(
    layer: Layer,
    camera: Camera,
    *,
    background: Float[np.ndarray, "3"] | None = None,
    background_images: UInt8[np.ndarray, "c h w 3"] | None = None,
    order: str = "rgb",
    depth: bool = False,
    num_threads: int = 1,
) -> Reprojected:
    """Show a layer from other cameras.

    Args:
        layer: What was drawn.
        camera: As many cameras as the layer has; poses in the same head frame.
        background: RGB in [0, 1]; None for black.
        background_images: RGB, instead of `background`.
        order: "rgb" or "bgr" over the background; "rgba" or "bgra" without background.
        depth: Also return the depth.
        num_threads: Of the native library.

    Raises:
        ValueError: Another number of cameras, numbers that are not finite, an unknown order, a
            background of another shape or beside an order with alpha.
    """
    if order not in ("rgb", "bgr", "rgba", "bgra"):
        raise ValueError(f"expected order 'rgb', 'bgr', 'rgba' or 'bgra', got {order!r}")
    shape = (len(layer.rgba), camera.height, camera.width)
    intrinsics, poses = _numbers(camera)
    layer_intrinsics, layer_poses = _numbers(layer.camera)
    if len(poses) != len(layer.rgba):
        raise ValueError(f"expected {len(layer.rgba)} camera(s) as the layer has, got {len(poses)}")
    if background_images is not None and (
        len(order) == 4 or background_images.shape != (*shape, 3)
    ):
        raise ValueError(
            f"expected background_images {(*shape, 3)} and an order without alpha, got "
            f"{background_images.shape} and {order!r}"
        )
    color = np.zeros(3) if background is None else np.asarray(background, np.float64)
    if color.shape != (3,) or not ((color >= 0) & (color <= 1)).all():
        raise ValueError(f"expected a background of 3 numbers in [0, 1], got {background}")
    images = np.empty((*shape, len(order)), np.uint8)
    depth_m = np.empty(shape, np.float32) if depth else None
    num_uncovered = native.reproject(
        layer.rgba,
        layer.depth_m,
        layer_intrinsics,
        intrinsics,
        np.ascontiguousarray(layer_poses @ np.linalg.inv(poses)),
        images,
        background=tuple(np.rint(255 * color).astype(int).tolist()),
        background_images=background_images,
        bgr=order.startswith("bgr"),
        depths=depth_m,
        num_threads=num_threads,
    )
    return Reprojected(images, depth_m, num_uncovered)


def _numbers(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Intrinsics (C, 3, 3) and poses (C, 4, 4), float64."""
    found = []
    for tensor, size in ((camera.intrinsics, 3), (camera.camera_from_head, 4)):
        array = tensor.detach().to("cpu", torch.float64).reshape(-1, size, size).numpy()
        if not np.isfinite(array).all():
            raise ValueError(f"expected finite cameras, got {array.tolist()}")
        found.append(np.ascontiguousarray(array))
    if not (found[0][:, [0, 1], [0, 1]] > 0).all():
        raise ValueError(f"expected fx, fy > 0, got {found[0].tolist()}")
    return found[0], found[1]
