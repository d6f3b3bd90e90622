"""An avatar's animation: the full path or the compiled one, behind one interface.

- *full*: the cached prefix, and per code the rest of the network; for an avatar without trained
  weights, its rig alone.
- *compiled*: a small linear basis made from the full path (compile.py), many times faster.
"""

import logging
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avat3r_ros.animation.compiled import (
    KEY,
    CompiledAnimation,
    has_full_path,
    is_compiled,
    restore_parts,
)
from avat3r_ros.animation.reference import TorchAnimation
from avat3r_ros.expression import validate_code
from avat3r_ros.model import Avat3r, Prefix, restore_avatar
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.rig.correctives import corrected
from avat3r_ros.types import Avatar, Gaussians

PATHS = ("auto", "full", "compiled")

_logger = logging.getLogger(__name__)


class _Animation(Protocol):
    """What both paths are to the animator."""

    def __len__(self) -> int: ...

    def animate(self, code: np.ndarray) -> Gaussians:
        """Return the avatar at a code that has been checked."""


class Animator:
    """Animates one avatar. Set once, query often.

    Args:
        avatar: Built or loaded; nothing else is needed.
        path: "full", "compiled", or "auto" for the compiled path where the avatar has one that was
            made for its code space and that this version reads.
        device: Where Gaussians are computed and returned.
        template: Head template; the shipped one if None. Only the full path needs it.
        network: The avatar's network, if the caller already has it in memory; likewise.
        num_threads: Of the compiled path on the CPU; torch's number if None.

    Raises:
        ValueError: The avatar is incomplete, needs a head template or weights that are not here, or
            lacks the wanted path.
    """

    def __init__(
        self,
        avatar: Avatar,
        *,
        path: str = "auto",
        device: torch.device | str = "cpu",
        template: HeadTemplate | None = None,
        network: Avat3r | None = None,
        num_threads: int | None = None,
    ) -> None:
        if path not in PATHS:
            raise ValueError(f"expected an animation path of {PATHS}, got {path!r}")
        self._code_space = avatar.code_space
        device = torch.device(device)
        if path == "auto":
            path = "compiled" if is_compiled(avatar) else "full"
            if path == "full" and KEY in avatar.config:
                _logger.warning(
                    "the avatar's compiled path is for another version or code space; using the "
                    "full path (`avat3r compile` makes a new one)"
                )
        self._path = path
        self._animation: _Animation
        if path == "full":
            if not has_full_path(avatar):
                raise ValueError("the avatar holds its compiled path only, not the full one")
            prefix, network = restore_avatar(
                avatar, device=device, template=template, network=network
            )
            self._animation = _FullAnimation(prefix, network, device)
        elif device.type == "cpu":
            self._animation = CompiledAnimation(restore_parts(avatar), num_threads=num_threads)
        else:
            self._animation = TorchAnimation(restore_parts(avatar), device)

    @property
    def code_space(self) -> str:
        """Code space that `animate` expects, a key of `expression.CODE_SPACES`."""
        return self._code_space

    @property
    def path(self) -> str:
        """Path in use: "full" or "compiled"."""
        return self._path

    @property
    def num_gaussians(self) -> int:
        """Gaussians in every result; the compiled path has its own order, and may have fewer."""
        return len(self._animation)

    @torch.no_grad()
    def animate(self, code: Float[np.ndarray, "*e"] | Float[Tensor, "*e"]) -> Gaussians:
        """Return the avatar in an expression.

        Args:
            code: One code of `code_space`; `arkit_52` scores are clipped to [0, 1], and shapes that
                do not add up are corrected (rig/correctives.py).

        Returns:
            Gaussians in the head frame, on the animator's device. Parts that never change may share
            memory between results: do not write into them.

        Raises:
            ValueError: Wrong length, or a value that is not finite.
        """
        values = code.detach().cpu().numpy() if isinstance(code, Tensor) else code
        values = validate_code(self._code_space, values)
        if self._code_space == "arkit_52":
            values = corrected(values)
        return self._animation.animate(values)


class _FullAnimation:
    def __init__(self, prefix: Prefix, network: Avat3r | None, device: torch.device) -> None:
        self._prefix, self._network, self._device = prefix, network, device

    def __len__(self) -> int:
        return len(self._prefix.base)

    def animate(self, code: np.ndarray) -> Gaussians:
        on_device = torch.from_numpy(code).to(self._device)
        if self._network is None:
            return self._prefix.base_gaussians(on_device)
        return self._network.decode(self._prefix, on_device)
