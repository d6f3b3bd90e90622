"""Soft mattes of a person from MediaPipe's selfie segmenter, with edges at photo resolution.

    photo -> square around the head -> 256 x 256 network -> component of the face -> whole face
                      its middle -> the same ────┘            -> guided filter

The network sees a square of a few face sizes only, so that its 256 pixels go to the head; outside
that square the matte is 0.
"""

import itertools
import os
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float

from avat3r_ros.capture.rim import without_background
from avat3r_ros.capture.vision_task import VisionTask
from avat3r_ros.capture.whole_face import with_whole_face
from avat3r_ros.parallel import in_threads
from avat3r_ros.types import FaceState

NETWORK_SIDE_PX = 256

SQUARE_IN_FACES = 3.0
"""Side of the square in sizes of the landmarks' box, which spans brow to chin: hair and the root of
the neck still fit. With 4, 160 drawn photos have a quarter more false area; where a face comes near
the photo's edge much of the square is made up, and faces were lost."""

NEARER_PX = 26
"""The second look leaves out so much of the square on each side, in pixels of the network."""

RISE_IN_FACES = 0.15
"""How far the square's centre lies above the face's: there is more hair above than neck below."""

REFINED_SIDE_PX = 768
"""Longer side at which edges are refined; a head crop has about half of its pixels across."""

PERSON_RANGE = (0.35, 0.95)
"""Network output that becomes 0 and 1. Its borders are wide and lean outwards; untouched they leave
a rim of background around the hair."""

SNAP_RADIUS_NETWORK_PX, SNAP_EPSILON, SNAP_RANGE = 4.0, 1e-5, (0.35, 0.70)
"""First guided filter: as wide as the network's uncertainty, along the faintest edge, decided."""

SOFT_RADIUS_NETWORK_PX, SOFT_EPSILON, SOFT_RANGE = 1.0, 1e-4, (0.15, 0.95)
"""Second guided filter: soft again over the width of hair."""

AROUND_EDGES_NETWORK_PX, GRID_PX = 10.0, 12
"""What the filters see beyond an edge, and the coarsest of their grids that parts keep to."""

DARK_FACE, LIT_FACE = 0.25, 0.45
"""Pictures whose face box is darker than the first are brightened until it has the second."""

TILE_PX = 48
"""Side of the tiles a guided filter works on: only those that the matte's edge crosses."""


class Matting(VisionTask):
    """Cuts a person out of photos; close it, or use it as a context manager.

    Args:
        model_path: selfie_segmenter.tflite; searched for if None (model_files.py).

    Raises:
        RuntimeError: mediapipe is not installed.
        FileNotFoundError: The model file is nowhere; the message has the remedy.
        ValueError: The model file is not the published one.
    """

    def __init__(self, model_path: str | os.PathLike | None = None) -> None:
        super().__init__(
            kind="ImageSegmenter",
            method="segment",
            purpose="matting",
            model="selfie_segmenter",
            model_path=model_path,
            side_px=NETWORK_SIDE_PX,
            output_confidence_masks=True,
            output_category_mask=False,
        )

    def matte(
        self,
        image: np.ndarray,
        face_box: tuple[float, float, float, float] | None = None,
        landmarks_px: Float[np.ndarray, "n 2"] | None = None,
    ) -> Float[np.ndarray, "h w"]:
        """Soft matte of the person whose face is in the box.

        Args:
            image: (H, W, 3) uint8 RGB.
            face_box: Left, top, right, bottom of the face landmarks, pixels. Without it the whole
                image is segmented at once and the largest person kept.
            landmarks_px: Of the face in the box: it is inside whatever the network sees.

        Returns:
            Opacity of the person, float32 in [0, 1], of the image's size; all 0 where none is seen.

        Raises:
            ValueError: Another image type, or a box that is empty or outside the image.
            RuntimeError: Closed.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"expected an image (H, W, 3) uint8 RGB, got {image.shape} {image.dtype}"
            )
        height, width = image.shape[:2]
        if face_box is None:
            return self._refined(image, None, None, np.s_[:height, :width])
        left, top, right, bottom = face_box
        if not (left < right and top < bottom and right > 0 and bottom > 0):
            raise ValueError(f"expected a face box (left, top, right, bottom), got {face_box}")
        if left >= width or top >= height:
            raise ValueError(f"face box {face_box} lies outside the {width}x{height} image")
        size = max(right - left, bottom - top)
        side = max(8, round(SQUARE_IN_FACES * size))
        x = round((left + right - side) / 2)
        y = round((top + bottom - side) / 2 - RISE_IN_FACES * size)
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
        # The person goes on beyond the photo's edge; black bars would look like a background.
        square = cv2.copyMakeBorder(
            image[y0:y1, x0:x1], y0 - y, y + side - y1, x0 - x, x + side - x1, cv2.BORDER_REPLICATE
        )
        box = (left - x, top - y, right - x, bottom - y)
        square = _well_lit(square, box)
        photo = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
        matte = np.zeros((height, width), np.float32)
        landmarks = None if landmarks_px is None else landmarks_px - [x, y]
        matte[y0:y1, x0:x1] = self._refined(square, box, landmarks, photo)[photo]
        return matte

    def _refined(
        self,
        image: np.ndarray,
        face_box: tuple[float, float, float, float] | None,
        landmarks_px: np.ndarray | None,
        wanted: tuple[slice, slice],
    ) -> np.ndarray:
        """Matte of a picture, refined in a part of it."""
        height, width = image.shape[:2]
        small = _network_sized(image)
        coarse = self._probability(small)
        if face_box is not None:
            # What fills its picture the network knows best: another look from nearer by.
            rim = round(width * NEARER_PX / NETWORK_SIDE_PX)
            nearer = image[rim : height - rim, rim : width - rim]
            again = self._probability(_network_sized(nearer))
            inner = coarse[NEARER_PX:-NEARER_PX, NEARER_PX:-NEARER_PX]
            inner += cv2.resize(again, inner.shape, interpolation=cv2.INTER_AREA)
            inner /= 2
        scale = np.array([NETWORK_SIDE_PX / width, NETWORK_SIDE_PX / height] * 2)
        coarse = only_one_person(coarse, None if face_box is None else np.array(face_box) * scale)
        if landmarks_px is not None:
            coarse = with_whole_face(small, coarse, landmarks_px * scale[:2])
        factor = min(1.0, REFINED_SIDE_PX / max(width, height))
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        guide = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
        rows, columns = (
            slice(int((part.start or 0) * factor), int(np.ceil(part.stop * factor)) + 1)
            for part in wanted
        )
        matte = refined_edges(guide, coarse, (rows, columns))
        return cv2.resize(matte, (width, height), interpolation=cv2.INTER_LINEAR)

    def _probability(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of a network-sized picture.

        The network is not symmetric; the mean with the mirrored image halves its quirks.
        """
        return (self._segment(image) + self._segment(image[:, ::-1])[:, ::-1]) / 2

    def _segment(self, image: np.ndarray) -> np.ndarray:
        """Foreground probability of a network-sized image, so that MediaPipe resamples nothing."""
        mask = self._result(image).confidence_masks[0].numpy_view()
        return np.array(mask, np.float32).reshape(image.shape[:2])


def _network_sized(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (NETWORK_SIDE_PX, NETWORK_SIDE_PX), interpolation=cv2.INTER_AREA)


def _well_lit(image: np.ndarray, face_box: tuple[float, float, float, float]) -> np.ndarray:
    """Brighten a picture until its face is as bright as most."""
    left, top, right, bottom = np.round(face_box).astype(int).clip(0)
    level = float(image[top : max(bottom, top + 1), left : max(right, left + 1)].mean()) / 255
    if level >= DARK_FACE:
        return image
    gamma = np.log(LIT_FACE) / np.log(max(level, 0.02))
    return cv2.LUT(image, (255 * (np.arange(256) / 255) ** gamma + 0.5).astype(np.uint8))


def cut_out_heads(images: Sequence[np.ndarray], faces: Sequence[FaceState]) -> list[np.ndarray]:
    """Matte the person around each face, (H, W) float32 in [0, 1]."""
    images = [np.ascontiguousarray(image) for image in images]
    with Matting() as matting:
        return in_threads(
            matting.matte,
            images,
            [face.box_px for face in faces],
            [face.landmarks_px for face in faces],
        )


def only_one_person(
    matte: Float[np.ndarray, "h w"], face_box: Float[np.ndarray, "4"] | None
) -> Float[np.ndarray, "h w"]:
    """Keep the connected person that covers most of the face box, or the largest without a box.

    Soft values belong to the person whose solid part (above 0.5) is nearest.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((matte > 0.5).astype(np.uint8))
    if count <= 2:
        return matte if count == 2 else np.zeros_like(matte)
    votes = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    if face_box is not None:
        left, top, right, bottom = np.round(face_box).astype(int).clip(0)
        inside = labels[top : max(bottom, top + 1), left : max(right, left + 1)]
        covered = np.bincount(inside.ravel(), minlength=count)
        votes = covered if covered[1:].any() else votes
    chosen = 1 + int(np.argmax(votes[1:]))
    to_chosen = cv2.distanceTransform((labels != chosen).astype(np.uint8), cv2.DIST_L2, 3)
    others = (labels != chosen) & (labels != 0)
    to_others = cv2.distanceTransform((~others).astype(np.uint8), cv2.DIST_L2, 3)
    return np.where(to_chosen <= to_others, matte, 0.0).astype(np.float32)


def refined_edges(
    image: np.ndarray,
    matte: Float[np.ndarray, "h w"],
    wanted: tuple[slice, slice] = np.s_[:, :],
) -> Float[np.ndarray, "h w"]:
    """Move the wide edge of an enlarged network output onto the image's own edges.

    Two guided filters, from wide and decided to narrow and soft; then what the rim shows of the
    background goes.

    Args:
        image: RGB uint8.
        matte: The network's output, enlarged.
        wanted: Rows and columns to do this in; elsewhere edges stay wide.
    """
    network_px = max(matte.shape) / NETWORK_SIDE_PX
    matte = _stretched(matte, PERSON_RANGE)
    part = _around_edges(matte, wanted, AROUND_EDGES_NETWORK_PX * network_px)
    if part is not None:
        guide = image[part].astype(np.float32) / 255.0
        matte[part] = _snapped(guide, matte[part], network_px)
    return matte


def _around_edges(
    matte: np.ndarray, wanted: tuple[slice, slice], margin_px: float
) -> tuple[slice, slice] | None:
    """Rows and columns around all places in a wanted part where a matte changes, if any."""
    margin = int(np.ceil(margin_px / GRID_PX)) * GRID_PX
    changes = np.zeros(matte.shape, bool)
    changes[wanted] = cv2.morphologyEx(matte, cv2.MORPH_GRADIENT, np.ones((3, 3)))[wanted] > 0
    if not changes.any():
        return None
    places = [np.flatnonzero(changes.any(axis)) // GRID_PX * GRID_PX for axis in (1, 0)]
    return tuple(slice(max(at[0] - margin, 0), at[-1] + GRID_PX + margin) for at in places)


def _snapped(guide: np.ndarray, matte: np.ndarray, network_px: float) -> np.ndarray:
    """`refined_edges` of a part of a picture."""
    radius = max(1, round(SNAP_RADIUS_NETWORK_PX * network_px))
    matte = _stretched(guided_filter(guide, matte, radius, SNAP_EPSILON), SNAP_RANGE)
    radius = max(1, round(SOFT_RADIUS_NETWORK_PX * network_px))
    matte = _stretched(guided_filter(guide, matte, radius, SOFT_EPSILON), SOFT_RANGE)
    return without_background(guide, matte, network_px)


def guided_filter(
    guide: Float[np.ndarray, "h w 3"],
    values: Float[np.ndarray, "h w"],
    radius_px: int,
    epsilon: float,
) -> Float[np.ndarray, "h w"]:
    """Smooth values so that they change only where the guide's colour does.

    In each window the values are fitted as `a . colour + b`; each pixel takes the mean fit of its
    windows. Wide windows are fitted on a coarser grid, which changes little and costs much less.
    Our own because the colour version in OpenCV 5.0.0 (ximgproc) ignores its guide.

    Args:
        guide: Float32, [0, 1].
        values: Float32.
        radius_px: Windows are 2 radius + 1 wide.
        epsilon: Added to the colour variance; larger smooths over fainter edges.

    Source: He, Sun, Tang, "Guided Image Filtering", ECCV 2010, section 3.5 (colour); He, Sun, "Fast
    Guided Filter", 2015.
    """
    height, width = values.shape
    step = max(1, radius_px // 4)
    grid = (max(1, round(width / step)), max(1, round(height / step)))
    colours = cv2.resize(guide, grid, interpolation=cv2.INTER_AREA)
    targets = cv2.resize(values, grid, interpolation=cv2.INTER_AREA)
    radius = max(1, round(radius_px / step))
    fit = np.zeros((*targets.shape, 4), np.float32)
    fit[..., 3] = targets
    for tile, around, inner in _tiles_that_vary(targets, 2 * radius):
        fit[tile] = _window_fits(colours[around], targets[around], radius, epsilon)[inner]
    fit = cv2.resize(fit, (width, height), interpolation=cv2.INTER_LINEAR)
    of_red, of_green, of_blue = (fit[..., i] * guide[..., i] for i in range(3))
    return of_red + of_green + of_blue + fit[..., 3]


def _tiles_that_vary(
    values: Float[np.ndarray, "h w"], margin: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
    """Tiles of a picture; the same with a margin; and where in that they are.

    Those whose values are all equal, as most of a matte's are, are left out.
    """
    for y, x in itertools.product(*(range(0, side, TILE_PX) for side in values.shape)):
        tile = (slice(y, y + TILE_PX), slice(x, x + TILE_PX))
        y0, x0 = max(y - margin, 0), max(x - margin, 0)
        around = (slice(y0, y + TILE_PX + margin), slice(x0, x + TILE_PX + margin))
        if np.ptp(values[around]) > 0:
            yield tile, around, tuple(slice(at, at + TILE_PX) for at in (y - y0, x - x0))


def _window_fits(
    colours: Float[np.ndarray, "h w 3"],
    targets: Float[np.ndarray, "h w"],
    radius: int,
    epsilon: float,
) -> Float[np.ndarray, "h w 4"]:
    """Mean over the windows around each pixel of their fits `a . colour + b`, float32."""
    # Double precision: the covariance of two flat colours has rank 1, and only epsilon inverts it.
    colours, targets = colours.astype(np.float64), targets.astype(np.float64)

    def mean(array: np.ndarray) -> np.ndarray:
        size = (2 * radius + 1, 2 * radius + 1)
        return cv2.boxFilter(array, -1, size, borderType=cv2.BORDER_REFLECT)

    colour, target = mean(colours), mean(targets)
    cross = mean(colours * targets[..., None]) - colour * target[..., None]
    rr, rg, rb, gg, gb, bb = (
        mean(colours[..., i] * colours[..., j]) - colour[..., i] * colour[..., j]
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    )
    rr, gg, bb = rr + epsilon, gg + epsilon, bb + epsilon
    # Inverse of the symmetric 3x3 colour covariance by cofactors.
    c00, c01, c02 = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb
    c11, c12, c22 = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c00 + rg * c01 + rb * c02
    x, y, z = cross[..., 0], cross[..., 1], cross[..., 2]
    a = np.stack(
        [c00 * x + c01 * y + c02 * z, c01 * x + c11 * y + c12 * z, c02 * x + c12 * y + c22 * z], -1
    )
    a /= determinant[..., None]
    return mean(np.dstack([a, target - (a * colour).sum(-1)])).astype(np.float32)


def _stretched(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    low, high = limits
    return ((values - low) / (high - low)).clip(0.0, 1.0).astype(np.float32)
