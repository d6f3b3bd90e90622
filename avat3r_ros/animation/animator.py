"""The full path: the cached prefix of an avatar, and per code the rest of the network.

An avatar without trained weights is moved by its rig alone, through the same interface.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.expression import validate_code
from avat3r_ros.model import Avat3r, restore_avatar
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Avatar, Gaussians


class Animator:
    """Animates one avatar. Set once, query often.

    Args:
        avatar: Built or loaded; nothing else is needed.
        device: Where Gaussians are computed and returned.
        template: Head template; the shipped one if None.
        network: The avatar's network, if the caller already has it in memory.

    Raises:
        ValueError: The avatar is incomplete or needs a head template or weights that are not here.
    """

    def __init__(
        self,
        avatar: Avatar,
        *,
        device: torch.device | str = "cpu",
        template: HeadTemplate | None = None,
        network: Avat3r | None = None,
    ) -> None:
        self._code_space = avatar.code_space
        self._device = torch.device(device)
        self._prefix, self._network = restore_avatar(
            avatar, device=device, template=template, network=network
        )

    @property
    def code_space(self) -> str:
        """Code space that `animate` expects, a key of `expression.CODE_SPACES`."""
        return self._code_space

    @property
    def num_gaussians(self) -> int:
        """Gaussians in every result."""
        return len(self._prefix.base)

    @torch.no_grad()
    def animate(self, code: Float[np.ndarray, "*e"] | Float[Tensor, "*e"]) -> Gaussians:
        """Return the avatar in an expression.

        Args:
            code: One code of `code_space`; `arkit_52` scores are clipped to [0, 1].

        Returns:
            Gaussians in the head frame, on the animator's device. Parts that never change may share
            memory between results: do not write into them.

        Raises:
            ValueError: Wrong length, or a value that is not finite.
        """
        values = code.detach().cpu().numpy() if isinstance(code, Tensor) else code
        checked = torch.from_numpy(validate_code(self._code_space, values)).to(self._device)
        if self._network is None:
            return self._prefix.base_gaussians(checked)
        return self._network.decode(self._prefix, checked)
