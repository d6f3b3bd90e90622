"""The reprojection of libavat3r_native: the bare call; `rendering.reprojection` is its front."""

import ctypes

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from avat3r_ros.native.loader import library
from avat3r_ros.native.splats import instruction_set_index


class _Reprojection(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("num_cameras", "layer_width", "layer_height")),
        *((name, ctypes.c_int32) for name in ("width", "height", "bgr", "with_alpha")),
        ("background", ctypes.c_uint8 * 4),
        *((name, ctypes.c_void_p) for name in ("layer_rgba", "layer_depths", "layer_intrinsics")),
        *((name, ctypes.c_void_p) for name in ("intrinsics", "layer_from_target")),
        *((name, ctypes.c_void_p) for name in ("background_images", "images", "depths")),
    ]


def reproject(
    layer_rgba: UInt8[np.ndarray, "c lh lw 4"],
    layer_depths: Float32[np.ndarray, "c lh lw"],
    layer_intrinsics: Float64[np.ndarray, "c 3 3"],
    intrinsics: Float64[np.ndarray, "c 3 3"],
    layer_from_target: Float64[np.ndarray, "c 4 4"],
    images: UInt8[np.ndarray, "c h w n"],
    *,
    background: tuple[int, int, int] = (0, 0, 0),
    background_images: UInt8[np.ndarray, "c h w 3"] | None = None,
    bgr: bool = False,
    depths: Float32[np.ndarray, "c h w"] | None = None,
    num_threads: int = 1,
    instruction_set: str | None = None,
) -> int:
    """Fill `images` (and `depths`) with the layer as the target cameras see it.

    All arrays are contiguous; poses are rigid, intrinsics without skew and with positive focal
    lengths.

    Args:
        layer_rgba: Premultiplied by alpha.
        layer_depths: z in the layer's cameras, metres; 0 where nothing is.
        layer_intrinsics: Of the layer.
        intrinsics: Of the target.
        layer_from_target: Target camera to layer camera, metres.
        images: Filled; n = 3 with the background, n = 4 with straight alpha instead.
        background: RGB bytes behind the layer.
        background_images: RGB instead of `background`; n = 3 only.
        bgr: Channel order of `images`.
        depths: Filled with z in the target's cameras; 0 where alpha is below one half.
        num_threads: The result does not depend on it.
        instruction_set: One of `instruction_sets()`; None for the best.

    Returns:
        Pixels near the drawn surface that lie beyond the layer's edge; they show the background.

    Raises:
        ValueError: The library refuses the sizes.
        MemoryError: There is not enough memory.
    """
    arrays = (layer_rgba, layer_depths, layer_intrinsics, intrinsics, layer_from_target)
    given = [*arrays, images, *(a for a in (background_images, depths) if a is not None)]
    if not all(array.flags.c_contiguous for array in given):
        raise ValueError("expected contiguous arrays")
    job = _Reprojection(
        len(images),
        *(layer_rgba.shape[2], layer_rgba.shape[1], images.shape[2], images.shape[1]),
        *(bgr, images.shape[3] == 4, (ctypes.c_uint8 * 4)(*background)),
        *(array.ctypes.data for array in arrays),
        None if background_images is None else background_images.ctypes.data,
        images.ctypes.data,
        None if depths is None else depths.ctypes.data,
    )
    index = instruction_set_index(instruction_set)
    uncovered = ctypes.c_int64()
    status = library().avat3r_reproject(
        ctypes.byref(job), num_threads, index, ctypes.byref(uncovered)
    )
    if status == 2:
        raise MemoryError(f"not enough memory to reproject to {images.shape}")
    if status:
        raise ValueError(f"cannot reproject layers {layer_rgba.shape} to images {images.shape}")
    return uncovered.value
