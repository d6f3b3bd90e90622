"""Hair told from skin and clothes by its colour.

What lies above the eyes beside the face is hair. From there hair continues as far as its colours do
without a gap: long hair hangs over ears and cheeks down to the shoulders, while skin of ears and
neck parts short hair from a collar.
"""

import numpy as np
from jaxtyping import Bool, Float

from avat3r_ros.capture.color_examples import (
    MAX_COLOR_DISTANCE,
    MIN_EXAMPLES,
    color_examples,
    smooth_lab,
)
from avat3r_ros.mattes import parts_touching

UNLIKE_QUANTILE, APART = 0.67, 16.0
"""There is hair where the scalp's pixels that are least like skin are so far from it (CIELAB).
Measured: 7 to 13 on three drawn bald heads, 20 and more on ten with hair."""


def hair_pixels(
    picture: Float[np.ndarray, "h w 3"],
    inside: Bool[np.ndarray, "h w"],
    certain: Bool[np.ndarray, "h w"],
    skin: Bool[np.ndarray, "h w"],
) -> Bool[np.ndarray, "h w"]:
    """Find the hair in a picture of a person.

    Args:
        picture: RGB in [0, 1].
        inside: Person.
        certain: Hair, but for what of the forehead is among it; a part of `inside`.
        skin: Skin for certain, likewise.

    Returns:
        That hair, and what hangs together with it and has one of its colours, unless that
        is rather one of the skin's.
    """
    if certain.sum() < MIN_EXAMPLES:
        return certain
    lab = smooth_lab(picture)
    skin_known = skin.sum() >= MIN_EXAMPLES
    if skin_known:
        certain = certain & ~_foreign(lab, certain, skin)
    asked = np.flatnonzero(inside & ~certain)
    colors = lab.reshape(-1, 3)[asked]
    to_hair, _ = color_examples(lab[certain]).query(colors, distance_upper_bound=MAX_COLOR_DISTANCE)
    alike = np.isfinite(to_hair)
    if skin_known:
        to_skin, _ = color_examples(lab[skin]).query(
            colors[alike], distance_upper_bound=MAX_COLOR_DISTANCE
        )
        alike[alike] = to_hair[alike] < to_skin
    hair = certain.copy()
    hair.flat[asked] = alike
    return parts_touching(hair, certain)


def _foreign(
    lab: Float[np.ndarray, "h w 3"], hair: Bool[np.ndarray, "h w"], skin: Bool[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels that look more like skin than like hair, where the two differ: a forehead."""
    usual_skin = np.median(lab[skin], axis=0)
    to_skin = np.linalg.norm(lab - usual_skin, axis=-1)
    unlike = hair & (to_skin >= np.quantile(to_skin[hair], UNLIKE_QUANTILE))
    if np.linalg.norm(np.median(lab[unlike], axis=0) - usual_skin) < APART:
        return np.zeros_like(hair)
    # Once more with all that is nearer to it: what is most unlike skin is not the usual hair.
    examples = unlike
    for _ in range(2):
        to_hair = np.linalg.norm(lab - np.median(lab[examples], axis=0), axis=-1)
        examples = hair & (to_hair <= to_skin)
    return to_skin < to_hair
