"""CUDA back-end of `rasterization`: gsplat, imported at the first use and nowhere else.

Without CUDA, gsplat's import prints a warning and its functions fail with a NoneType error;
everything it needs is therefore looked at before it is called.
"""

import functools
import importlib.util
from typing import Any

import torch
from torch import Tensor

_CPU_REMEDY = "or move the tensors to the CPU, where backend='cpu' draws the same image"


@functools.cache
def missing_requirement() -> str | None:
    """Say what keeps gsplat from running on this machine, and what helps; None if nothing does."""
    if not torch.cuda.is_available():
        return "torch finds no CUDA device: run on an NVIDIA GPU with a CUDA build of torch"
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed: pip install gsplat==1.5.3"
    try:
        from gsplat.cuda import _backend
    except Exception as error:  # whatever its just-in-time build runs into
        return f"gsplat could not be loaded ({type(error).__name__}: {error})"
    if _backend._C is None:
        return (
            "gsplat has no compiled CUDA code and finds no nvcc to compile it: install the CUDA "
            f"toolkit of torch's version ({torch.version.cuda}), or a gsplat wheel built for it"
        )
    return None


def require() -> None:
    """Raise a RuntimeError that names the remedy where gsplat cannot run."""
    if (missing := missing_requirement()) is not None:
        raise RuntimeError(f"backend 'gsplat' cannot run: {missing}, {_CPU_REMEDY}")


def rasterize(
    means: Tensor,
    quats_wxyz: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor | None,
    viewmats: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    *,
    near_plane: float,
    far_plane: float,
    eps2d: float,
    backgrounds: Tensor | None,
    render_mode: str,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Call gsplat on checked CUDA tensors; see `rasterization` for shapes.

    Raises:
        RuntimeError: gsplat cannot run here; the message names the remedy.
    """
    require()
    import gsplat

    if colors is None:
        colors = torch.zeros_like(means)
    return gsplat.rasterization(
        means,
        quats_wxyz,
        scales,
        opacities,
        colors,
        viewmats,
        intrinsics,
        width,
        height,
        near_plane=near_plane,
        far_plane=far_plane,
        eps2d=eps2d,
        packed=False,
        backgrounds=backgrounds,
        render_mode=render_mode,
    )
