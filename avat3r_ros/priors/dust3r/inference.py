"""Running the network on all pairs of some images."""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.priors.dust3r.network import Dust3r
from avat3r_ros.priors.dust3r.pairs import PairPoints, all_pairs

GPU_BATCH = 12
"""Images or pairs at once on a GPU: all pairs of four photos."""


def predict_pairs(
    network: Dust3r,
    images: Float[Tensor, "v 3 h w"],
    *,
    progress: Callable[[float], None] | None = None,
) -> PairPoints:
    """Predict the points of every image with every other one, in both orders.

    Each image is encoded once. On a GPU the transformer runs in bfloat16 and the head in float32;
    on a CPU everything runs in float32, one pair after the other.

    Args:
        network: Its device is where everything happens.
        images: RGB in [0, 1], at least two; sides are multiples of the patch size.
        progress: Called with the fraction done in [0, 1]; it may raise to stop.

    Raises:
        ValueError: Fewer than two images.
    """
    if len(images) < 2:
        raise ValueError(f"expected at least 2 images, got {len(images)}")
    device = network.device
    on_gpu = device.type == "cuda"
    size = GPU_BATCH if on_gpu else 1
    pairs = all_pairs(len(images)).to(device)
    # Encoding an image costs about half of decoding a pair.
    total = len(images) / 2 + len(pairs)
    done = 0.0

    def steps(items: Tensor, cost: float) -> Iterator[Tensor]:
        nonlocal done
        for batch in items.split(size):
            yield batch
            done += cost * len(batch)
            if progress is not None:
                progress(min(done / total, 1.0))

    height, width = images.shape[-2:]
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
        tokens = torch.cat([network.encode(one) for one in steps(images.to(device), 0.5)])
        parts = [network.decode(tokens, some, height, width) for some in steps(pairs, 1.0)]
    # Out of inference mode, so that the alignment may compute gradients with them.
    return PairPoints.joined([PairPoints(*(t.clone() for t in vars(p).values())) for p in parts])
