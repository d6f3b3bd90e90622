"""Triangle-mesh rasterization: which triangle each pixel sees, where on it, and how far away."""

import ctypes
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from avat3r_ros.native.loader import library


class MeshFragments(NamedTuple):
    """What every pixel of one camera sees.

    Attributes:
        triangle_ids: Row of `triangles`; -1 where no triangle is seen.
        barycentrics: Weights of the triangle's corners at the surface point (perspective-correct),
            summing to 1; 0 where no triangle is seen.
        depth_m: z of the surface point in the camera frame; infinite where no triangle is seen.
    """

    triangle_ids: Int[np.ndarray, "h w"]
    barycentrics: Float[np.ndarray, "h w 3"]
    depth_m: Float[np.ndarray, "h w"]


def rasterize_mesh(
    vertices_head: Float[np.ndarray, "v 3"],
    triangles: Int[np.ndarray, "f 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    camera_from_head: Float[np.ndarray, "4 4"],
    width: int,
    height: int,
    cull_backfaces: bool = False,
) -> MeshFragments:
    """Find the nearest triangle at every pixel centre (+0.5).

    Triangles that reach behind the camera are drawn as far as they are visible; surfaces nearer
    than 1 mm and triangles with a non-finite corner are not drawn.

    Args:
        vertices_head: Metres.
        triangles: Rows of `vertices_head`, counter-clockwise seen from outside.
        intrinsics: Pixels; [[fx, s, cx], [0, fy, cy], [0, 0, 1]].
        camera_from_head: OpenCV camera axes, metres.
        width: Pixels.
        height: Pixels.
        cull_backfaces: Leave out triangles seen from inside.

    Raises:
        ValueError: A shape is wrong, a triangle names a vertex that is not there, or a camera has
            non-finite entries.
    """
    vertices_head = np.ascontiguousarray(vertices_head, np.float32)
    triangles = np.ascontiguousarray(triangles, np.int32)
    intrinsics = np.ascontiguousarray(intrinsics, np.float64)
    camera_from_head = np.ascontiguousarray(camera_from_head, np.float64)
    for name, array, shape in (
        ("vertices_head", vertices_head, (None, 3)),
        ("triangles", triangles, (None, 3)),
        ("intrinsics", intrinsics, (3, 3)),
        ("camera_from_head", camera_from_head, (4, 4)),
    ):
        if array.ndim != 2 or array.shape != tuple(shape[i] or array.shape[i] for i in (0, 1)):
            raise ValueError(f"expected {name} {shape}, got {array.shape}".replace("None", "n"))
    if width < 1 or height < 1:
        raise ValueError(f"expected a positive image size, got {width}x{height}")
    if not (np.isfinite(intrinsics).all() and np.isfinite(camera_from_head).all()):
        raise ValueError("expected finite intrinsics and camera_from_head, got nan or infinity")
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < len(vertices_head):
        raise ValueError(
            f"expected triangles of vertices 0..{len(vertices_head) - 1}, got "
            f"{triangles.min()}..{triangles.max()}"
        )

    fragments = MeshFragments(
        np.empty((height, width), np.int32),
        np.empty((height, width, 3), np.float32),
        np.empty((height, width), np.float32),
    )
    status = library().avat3r_rasterize_mesh(
        *(ctypes.c_void_p(vertices_head.ctypes.data), ctypes.c_int64(len(vertices_head))),
        *(ctypes.c_void_p(triangles.ctypes.data), ctypes.c_int64(len(triangles))),
        ctypes.c_void_p(intrinsics.ctypes.data),
        ctypes.c_void_p(camera_from_head.ctypes.data),
        *(ctypes.c_int32(width), ctypes.c_int32(height), ctypes.c_int32(cull_backfaces)),
        *(ctypes.c_void_p(array.ctypes.data) for array in fragments),
    )
    if status:
        raise RuntimeError(f"avat3r_rasterize_mesh failed with status {status}")
    return fragments
