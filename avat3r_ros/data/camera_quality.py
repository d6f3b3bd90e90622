"""What cameras lose of a picture: resolution, noise, JPEG."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

SHARPEST, SOFTEST = 1.0, 0.3
"""Resolution of a bad camera, as a share of the photo's: small webcam pictures are enlarged."""

NOISE = (0.004, 0.02)
"""Standard deviation in a bad camera's own pixels, sRGB."""

JPEG_QUALITY = (40, 95)


@dataclass(frozen=True)
class CameraQuality:
    """One camera.

    Attributes:
        resolution: Share of the photo's that it has.
        noise: Standard deviation in its own pixels, sRGB.
        jpeg: Quality of JPEG in [1, 100]; None for none.
    """

    resolution: float = 1.0
    noise: float = 0.006
    jpeg: int | None = None

    def taken(
        self, image: Float[np.ndarray, "h w 3"], grain: Float[np.ndarray, "h w 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Return the photo that this camera takes, of the same size.

        Args:
            image: What is before it, sRGB in [0, 1].
            grain: Noise of spread 1; a coarse camera has as much of it as it has pixels.
        """
        height, width = image.shape[:2]
        if self.resolution < 1:
            small = tuple(max(1, round(self.resolution * side)) for side in (width, height))
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = image + self.noise * grain[: image.shape[0], : image.shape[1]]
        photo = (image * 255 + 0.5).clip(0, 255).astype(np.uint8)
        if self.jpeg is not None:
            saved = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])[1]
            photo = np.ascontiguousarray(cv2.imdecode(saved, cv2.IMREAD_COLOR)[..., ::-1])
        if photo.shape[:2] != (height, width):
            photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_CUBIC)
        return photo


def random_quality(rng: np.random.Generator) -> CameraQuality:
    """Half of the cameras are good, the others webcams and messengers."""
    if rng.random() < 0.5:
        return CameraQuality()
    return CameraQuality(
        resolution=float(np.exp(rng.uniform(np.log(SOFTEST), np.log(SHARPEST)))),
        noise=float(rng.uniform(*NOISE)),
        jpeg=int(rng.integers(*JPEG_QUALITY)),
    )
