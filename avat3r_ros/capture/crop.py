"""Square crops of the head: one metric box for all photos, background and shoulders removed.

photo, matte ──► square around the box's projection ──► image_size² pixels
hair that a matte cuts off and others show comes back ──► matte multiplied in
neck plane (head frame) ──► everything below it is background
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from avat3r_ros import native
from avat3r_ros.capture.cut_hair import with_cut_hair
from avat3r_ros.capture.hair_color import hair_pixels
from avat3r_ros.capture.neck_fit import with_neck
from avat3r_ros.capture.outline import shows_crown
from avat3r_ros.capture.rim import without_spill
from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.geometry import crop_and_resize_intrinsics, invert_pose
from avat3r_ros.mattes import SEEN_MASK, parts_touching
from avat3r_ros.parallel import in_threads
from avat3r_ros.rig import CHIN_LANDMARK, HeadTemplate
from avat3r_ros.rig.framing import (
    BOX_CENTER_HEAD_M,
    BOX_SIZE_M,
    NECK_BELOW_CHIN_M,
    SKULL_CENTER_HEAD_M,
    height_over_chin_plane,
)
from avat3r_ros.types import Camera, HeadCrops

HAIR_BELOW_CHIN_M = 0.03
"""`NECK_BELOW_CHIN_M` of what is off the template. Up to `CLOTHES_ABOVE_CHIN_M` it stays only where
it hangs together with hair at eye level, or continues it in colour: collars and shoulders do
not."""

CLOTHES_ABOVE_CHIN_M = 0.06
EYES_ABOVE_CHIN_M = 0.1

HANGS_FROM_M = 0.03
"""Hair beside and below the chin hangs down from this far above it; dark clothes do not."""

HAIR_STRAND_M = 0.008
"""Width above which something off the template is a strand of hair and not the fit's error."""

TIPS = 2
"""Strands end in thinner tips, which stay over so many halves of that width."""

FACE_HALF_WIDTH_M = 0.03
"""So near the middle of the face, between eyes and chin, there is skin whatever the hair."""

NECK_SOFTNESS_M = 0.006
"""Width over which the matte fades at the cut."""


def crop_heads(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    mattes: Sequence[Float[np.ndarray, "_ _"]],
    fit: TemplateFit,
    template: HeadTemplate,
    image_size: int,
) -> HeadCrops:
    """Cut the fitted heads out of their photos.

    Args:
        images: RGB photos, sizes may differ.
        mattes: Share of each pixel that belongs to the person, [0, 1].
        fit: The template fitted to the same photos, in the same order.
        template: The head model of the fit.
        image_size: Side of the crops in pixels.

    Raises:
        ValueError: Numbers or sizes of images, mattes and fitted views do not agree.
    """
    if not len(images) == len(mattes) == len(fit.camera_from_head) > 0:
        raise ValueError(
            f"expected as many images and mattes as fitted views ({len(fit.camera_from_head)}), "
            f"got {len(images)} and {len(mattes)}"
        )
    if image_size < 1:
        raise ValueError(f"expected a positive image size, got {image_size}")
    identity = torch.from_numpy(np.asarray(fit.identity, np.float32))
    codes = torch.from_numpy(np.asarray(fit.codes, np.float32))
    chin = template.landmarks(template.vertices(identity))[CHIN_LANDMARK].numpy()
    for view, (image, matte) in enumerate(zip(images, mattes, strict=True)):
        if image.ndim != 3 or image.shape[2] != 3 or image.shape[:2] != matte.shape:
            raise ValueError(
                f"view {view}: expected an image (H, W, 3) and a matte (H, W), got {image.shape} "
                f"and {matte.shape}"
            )

    def crop(view: int) -> tuple[np.ndarray, ...]:
        """Picture, mask, where the photo is, and intrinsics."""
        square = _crop_square(fit.intrinsics[view], fit.camera_from_head[view])
        k = crop_and_resize_intrinsics(fit.intrinsics[view], *square, image_size)
        picture = _resample(images[view], *square, image_size)
        mask = _resample(mattes[view], *square, image_size).clip(0, 1)
        return picture, mask, _inside(images[view], *square, image_size), k

    pictures, masks, shown, intrinsics = zip(*in_threads(crop, range(len(images))), strict=True)
    masks = with_cut_hair(pictures, masks, shown, intrinsics, fit.camera_from_head, chin)
    if len(identity) == template.num_identity:
        identity = torch.from_numpy(
            with_neck(
                pictures, masks, intrinsics, fit.camera_from_head, identity.numpy(), codes.numpy(),
                chin, template,
            )
        )  # fmt: skip

    def cut(view: int) -> tuple[np.ndarray, ...]:
        """Picture without background and shoulders, mask, hair, and where the mask tells."""
        mask = masks[view]
        picture = without_spill(pictures[view], mask)
        vertices = template.vertices(identity, codes[view]).numpy()
        above, hair = _above_neck_cut(
            vertices, template, intrinsics[view], fit.camera_from_head[view], picture, mask, chin
        )
        mask = mask * above
        pose, told = fit.camera_from_head[view], shown[view]
        if not shows_crown(vertices, fit.intrinsics[view], pose, images[view].shape[:2]):
            # Segmenters round off a head that goes on beyond its photo.
            told = told & ~_over_brows(vertices, template, intrinsics[view], pose, len(mask))
        picture = (picture * mask[..., None]).transpose(2, 0, 1)
        return picture, mask[None], hair[None], told[None]

    crops, masks, hairs, told = zip(*in_threads(cut, range(len(images))), strict=True)
    return HeadCrops(
        images=torch.from_numpy(np.stack(crops)).float().clamp(0, 1),
        masks=torch.from_numpy(np.stack(masks)).float(),
        cameras=Camera(
            intrinsics=torch.from_numpy(np.stack(intrinsics)).float(),
            camera_from_head=torch.from_numpy(np.asarray(fit.camera_from_head)).float(),
            width=image_size,
            height=image_size,
        ),
        codes=codes,
        identity=identity,
        hair=torch.from_numpy(np.stack(hairs)),
        residuals_m=torch.from_numpy(
            fit.residual_px * fit.camera_from_head[:, 2, 3] / fit.intrinsics[:, 0, 0]
        ).float(),
        shown=torch.from_numpy(np.stack(shown)[:, None]),
        told=torch.from_numpy(np.stack(told)),
    )


def crop_details(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], fit: TemplateFit, image_size: int
) -> Float[torch.Tensor, "v 3 fh fw"]:
    """What crops twice as fine show beyond those of `crop_heads`, background included.

    Args:
        images: RGB photos, sizes may differ.
        fit: The template fitted to the same photos, in the same order.
        image_size: Side of the crops in pixels.
    """

    def details(view: int) -> np.ndarray:
        square = _crop_square(fit.intrinsics[view], fit.camera_from_head[view])
        picture, fine = (_resample(images[view], *square, n * image_size) for n in (1, 2))
        return (fine - picture.repeat(2, 0).repeat(2, 1)).transpose(2, 0, 1)

    return torch.from_numpy(np.stack(in_threads(details, range(len(images)))))


def _crop_square(
    intrinsics: np.ndarray, camera_from_head: np.ndarray
) -> tuple[float, float, float]:
    """Left, top and size in pixels of the square that shows the metric box."""
    center = camera_from_head[:3, :3] @ BOX_CENTER_HEAD_M + camera_from_head[:3, 3]
    x, y, _ = intrinsics @ (center / center[2])
    size = 0.5 * (intrinsics[0, 0] + intrinsics[1, 1]) * BOX_SIZE_M / center[2]
    return x - size / 2, y - size / 2, size


def _resample(image: np.ndarray, left: float, top: float, size: float, out: int) -> np.ndarray:
    """Sample a square of an image on an out x out grid, bytes as [0, 1]; 0 outside the image.

    When shrinking, the image is blurred first to the width of an output pixel.
    """
    scale = size / out
    height, width = image.shape[:2]
    margin = int(np.ceil(4 * scale)) + 2
    x0, y0 = max(int(left) - margin, 0), max(int(top) - margin, 0)
    x1, y1 = min(int(left + size) + margin, width), min(int(top + size) + margin, height)
    if x0 >= x1 or y0 >= y1:
        return np.zeros((out, out, *image.shape[2:]), np.float32)
    part = image[y0:y1, x0:x1].astype(np.float32)
    if image.dtype == np.uint8:
        part /= 255
    if scale > 1:
        part = cv2.GaussianBlur(part, (0, 0), 0.45 * np.sqrt(scale**2 - 1) + 1e-3)
    # OpenCV counts pixel centres at integers: ours are half a pixel further.
    shift_x, shift_y = left - x0 + 0.5 * scale - 0.5, top - y0 + 0.5 * scale - 0.5
    inverse = np.array([[scale, 0, shift_x], [0, scale, shift_y]])
    return cv2.warpAffine(
        part, inverse, (out, out), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderValue=0
    )


def _inside(
    image: np.ndarray, left: float, top: float, size: float, out: int
) -> Bool[np.ndarray, "out out"]:
    """Which pixels of a square on an out x out grid lie inside the image."""
    row, column = (start + size / out * (np.arange(out) + 0.5) for start in (top, left))
    height, width = image.shape[:2]
    return ((row > 1) & (row < height - 1))[:, None] & (column > 1) & (column < width - 1)


def _over_brows(
    vertices: np.ndarray,
    template: HeadTemplate,
    intrinsics: np.ndarray,
    camera_from_head: np.ndarray,
    size: int,
) -> Bool[np.ndarray, "size size"]:
    """Which pixels of a square crop look over the brows, as deep as the middle of the skull."""

    def pixel(point: np.ndarray) -> np.ndarray:
        ray = intrinsics @ (camera_from_head[:3, :3] @ point + camera_from_head[:3, 3])
        return ray[:2] / ray[2]

    brows = vertices[template.region_vertices("brows")]
    level = np.array([0.0, brows[:, 1].max(), SKULL_CENTER_HEAD_M[2]])
    along = pixel(level + [0.01, 0, 0]) - pixel(level)
    up = pixel(level + [0, 0.01, 0]) - pixel(level)
    above = np.array([along[1], -along[0]])
    above *= np.sign(above @ up)
    x, y = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    return (np.stack([x, y], -1) - pixel(level)) @ above > 0


def _above_neck_cut(
    vertices: np.ndarray,
    template: HeadTemplate,
    intrinsics: np.ndarray,
    camera_from_head: np.ndarray,
    picture: np.ndarray,
    mask: np.ndarray,
    chin: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """1 above the neck plane, 0 below and on clothes, in every pixel of a square crop; and hair.

    A pixel on the template is where its surface point is, and only the neck and scalp are ever cut,
    so that an open jaw stays whole. Others (hair, clothes) are taken to be as far away as the
    middle of the neck.
    """
    size = len(mask)
    ids, weights, _ = native.rasterize_mesh(
        vertices, template.triangles.int().numpy(), intrinsics, camera_from_head, size, size
    )
    on_head = ids >= 0
    head_from_camera = invert_pose(camera_from_head)
    axis = camera_from_head[:3, :3] @ [0, chin[1], BOX_CENTER_HEAD_M[2]] + camera_from_head[:3, 3]
    column, row = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    rays = np.stack([column, row, np.ones_like(row)], -1) @ np.linalg.inv(intrinsics).T
    elsewhere = (rays * axis[2]) @ head_from_camera[:3, :3].T + head_from_camera[:3, 3]
    corners = vertices[template.triangles.numpy()[ids[on_head]]]
    points = elsewhere
    points[on_head] = np.einsum("nk,nkc->nc", weights[on_head], corners)
    over_chin = height_over_chin_plane(points, chin)
    below_chin = np.where(on_head, NECK_BELOW_CHIN_M, HAIR_BELOW_CHIN_M)
    above = ((over_chin + below_chin) / NECK_SOFTNESS_M + 0.5).clip(0, 1)
    may_be_cut = template.region_mask("neck", "scalp").numpy()
    above = np.where(on_head & ~may_be_cut[np.maximum(ids, 0)], 1.0, above)

    strand_px = max(int(round(HAIR_STRAND_M * intrinsics[0, 0] / axis[2] / 2)), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * strand_px + 1, 2 * strand_px + 1))
    # Gaps of a pixel or two, as between ear and skull, belong to the head.
    closed = cv2.morphologyEx(on_head.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    off_head = ((closed == 0) & (mask > 0.1)).astype(np.uint8)
    over_eyes = over_chin > EYES_ABOVE_CHIN_M
    strands = parts_touching(cv2.erode(off_head, disc) > 0, over_eyes)
    hair = cv2.dilate(strands.astype(np.uint8), disc) > 0
    on_scalp = on_head & template.region_mask("scalp").numpy()[np.maximum(ids, 0)]
    middle = (np.abs(points[..., 0]) < FACE_HALF_WIDTH_M) & (over_chin > 0)
    hair |= hair_pixels(
        picture,
        mask > SEEN_MASK,
        certain=(on_scalp | (off_head > 0)) & (mask > 0.9) & over_eyes,
        skin=on_head & ~on_scalp & middle & ~over_eyes,
    )
    from_above = over_chin > HANGS_FROM_M
    # A shaded jaw leads from hair to dark clothes: below, hair on the head does not count.
    along = (hair & ((off_head > 0) | from_above)).astype(np.uint8)
    hanging = parts_touching(cv2.erode(along, disc) > 0, from_above)
    hanging = cv2.dilate(hanging.astype(np.uint8), disc, iterations=1 + TIPS) > 0
    hair &= (off_head == 0) | from_above | hanging
    clothes = (off_head > 0) & ~hair & (over_chin < CLOTHES_ABOVE_CHIN_M)
    return np.where(clothes, 0.0, above).astype(np.float32), hair
