"""Back-ends of the lift by name, ready to be called."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from avat3r_ros.lift import gan, heads
from avat3r_ros.priors.networks import Licence
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import FaceState, HeadCrops


@dataclass(frozen=True)
class Lift:
    """A back-end that knows the head's shape: one fitted photo in, the photo and more views out.

    Attributes:
        name: Of the back-end; kept in avatars.
        function: What is called.
        licence: Of weights that do not ship with this package; None if there are none.
    """

    name: str
    function: Callable[[HeadCrops, HeadTemplate], HeadCrops]
    licence: Licence | None = None

    def __call__(self, crops: HeadCrops, template: HeadTemplate) -> HeadCrops:
        """Add views of the same head, exactly where their cameras say, in the same expression."""
        return self.function(crops, template)


@dataclass(frozen=True)
class PictureLift:
    """A back-end that only draws pictures, which are then fitted like photos.

    Attributes:
        name: Of the back-end; kept in avatars.
        licence: Of its weights.
        focal_px: Focal length of its pictures.
        function: What is called.
    """

    name: str
    licence: Licence
    focal_px: float
    function: Callable[..., list[np.ndarray]]

    def __call__(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        matte: Float[np.ndarray, "h w"],
        face: FaceState,
        track: gan.Track,
    ) -> list[UInt8[np.ndarray, "s s 3"]]:
        """Draw the photo's person from other sides; arguments as for `gan.lift`."""
        return self.function(image, matte, face, track)


HEADS = Lift("heads", heads.lift)
"""The default."""

EG3D = Licence(
    "whatever you got the generator under",
    "https://github.com/NVlabs/eg3d",
    "EG3D's own weights are for non-commercial research only",
)

LIFTS = ("heads", "eg3d", "off")


def single_image_lift(name: str, weights: str | Path | None = None) -> Lift | PictureLift | None:
    """Make a back-end ready; None for "off".

    Args:
        name: One of `LIFTS`.
        weights: TorchScript file of the generator, for "eg3d" (`gan.py`).

    Raises:
        ValueError: Unknown name, weights for a back-end without any, or unusable weights.
        FileNotFoundError: There are no weights.
    """
    if name not in LIFTS:
        raise ValueError(f"unknown lift {name!r}, expected one of {LIFTS}")
    if name == "eg3d":
        if weights is None:
            raise FileNotFoundError(
                "the lift 'eg3d' needs a 3D GAN as a TorchScript file; docs/single_image.md says "
                "what it must do"
            )
        generator = gan.load_generator(weights)
        function = partial(gan.lift, generator=generator)
        return PictureLift("eg3d", EG3D, generator.focal_px, function)
    if weights is not None:
        raise ValueError(f"the lift {name!r} needs no weights, got {weights}")
    return HEADS if name == "heads" else None
