"""Where a face rests, learned while it is followed: people mostly rest."""

from collections import deque

import numpy as np
from jaxtyping import Float

SAMPLE_S, MAX_SAMPLES = 0.2, 300
"""Between two looks at what may be rest, and how many are kept: a minute."""

BELIEVED_SAMPLES = 10
"""As many looks weigh as much as what was believed before."""


class LearnedRest:
    """The resting values of somebody's measurements.

    Args:
        quantile: Of what was seen in the last minute; 0.5 where a part moves both ways.
    """

    def __init__(self, quantile: float) -> None:
        self._quantile = quantile
        self.forget()

    def forget(self) -> None:
        """Somebody else may come."""
        self._samples: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=MAX_SAMPLES)
        self._last_s = -np.inf

    def learn(
        self, seen: Float[np.ndarray, "n"], believed: Float[np.ndarray, "n"], stamp_s: float
    ) -> None:
        """See one image's values; images sooner than SAMPLE_S after the last are left out.

        Args:
            seen: Measured now.
            believed: What the values at rest would be if the scores of this image were right.
            stamp_s: Acquisition time.
        """
        if stamp_s < self._last_s + SAMPLE_S:
            return
        self._last_s = stamp_s
        self._samples.append((seen, believed))
        all_seen, all_believed = map(np.stack, zip(*self._samples, strict=True))
        share = len(all_seen) / (len(all_seen) + BELIEVED_SAMPLES)
        self.values = share * np.quantile(all_seen, self._quantile, axis=0)
        self.values += (1 - share) * all_believed.mean(0)
