"""Does gsplat draw the same image as our CPU rasterizer, and are the gradients the same?

    python benchmarks/cuda/parity.py [--json FILE]
    python benchmarks/cuda/parity.py --device cpu --largest 4096    # a trial: the CPU with itself

Head-like scenes of several sizes, one camera and stereo, colour and depth. Small scenes are held
against the float64 reference as well. gsplat compiles for minutes at its first use: set
TORCH_CUDA_ARCH_LIST to the card's architecture and TORCH_EXTENSIONS_DIR to a folder that is kept.

Images differ by at most a few 1e-3 where rounding decides whether a Gaussian of alpha 1/255 counts;
the mean difference is what shows whether two rasterizers follow the same equations.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from _machine import machine, print_machine  # noqa: E402
from _timing import RESULTS, chosen_device, write_result  # noqa: E402
from rasterizer import head_scene  # noqa: E402

from avat3r_ros.native import SplatScene  # noqa: E402
from avat3r_ros.rendering import rasterization  # noqa: E402
from avat3r_ros.rendering.reference import render_reference  # noqa: E402

FIELDS = ("means", "quats_wxyz", "scales", "opacities", "colors")
SCENES = ((512, 64, 1), (4096, 256, 1), (65536, 512, 1), (262144, 512, 2), (262144, 1024, 2))
"""Gaussians, side of the image in pixels, cameras."""

REFERENCE_UP_TO = 512
"""Gaussians of the largest scene that the dense reference draws."""

EYES_RAD = (0.25, 0.35)
MEAN_BOUND, GRADIENT_BOUND = 1e-5, 1e-3
"""Largest mean difference of images and relative difference of gradients that pass."""


def inputs_of(scene: SplatScene, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Leaf tensors of a scene for `rasterization`; all but the cameras take gradients."""
    tensors = {
        name: getattr(scene, name).to(device, dtype).clone().requires_grad_() for name in FIELDS
    }
    return tensors | {
        "viewmats": scene.viewmats.to(device, dtype),
        "intrinsics": scene.intrinsics.to(device, dtype),
    }


def weights_like(channels: torch.Tensor) -> torch.Tensor:
    """Fixed weights of all channels, so that every pixel has its own gradient."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(channels.shape, generator=generator).to(channels)


def drawn(tensors: dict[str, Any], size: int, backend: str) -> tuple[torch.Tensor, list]:
    """Image with depth and alpha (C, H, W, 5), and the gradients of FIELDS, on the CPU."""
    channels, alphas, _ = rasterization(
        *(tensors[name] for name in FIELDS),
        tensors["viewmats"],
        tensors["intrinsics"],
        size,
        size,
        render_mode="RGB+D",
        backend=backend,
    )
    image = torch.cat([channels, alphas], -1)
    (image * weights_like(image)).sum().backward()
    return image.detach().cpu(), [tensors[name].grad.cpu() for name in FIELDS]


def drawn_by_reference(tensors: dict[str, Any], size: int) -> tuple[torch.Tensor, list]:
    """The same by the dense float64 reference."""
    views = []
    for viewmat, intrinsics in zip(tensors["viewmats"], tensors["intrinsics"], strict=True):
        view = render_reference(
            *(tensors[name] for name in FIELDS), viewmat, intrinsics, size, size
        )
        views.append(torch.cat([view.channels, view.alpha[..., None]], -1))
    image = torch.stack(views)
    (image * weights_like(image.float()).to(image)).sum().backward()
    return image.detach(), [tensors[name].grad for name in FIELDS]


def difference(mine: tuple[torch.Tensor, list], theirs: tuple[torch.Tensor, list]) -> dict:
    """Mean and largest difference of images; relative difference of each gradient (2-norm)."""
    delta = (mine[0].double() - theirs[0].double()).abs()
    gradients = {
        name: float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-30))
        for name, a, b in zip(FIELDS, mine[1], theirs[1], strict=True)
    }
    return {
        "image_mean": float(delta.mean()),
        "image_max": float(delta.max()),
        "pixels_off_by_1e-3": float((delta.amax(-1) > 1e-3).double().mean()),
        "gradients": gradients,
        "same": float(delta.mean()) < MEAN_BOUND and max(gradients.values()) < GRADIENT_BOUND,
    }


def main() -> None:
    """Compare and write the result; exits with 1 where images or gradients differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--largest", type=int, default=SCENES[-1][0], help="Gaussians")
    parser.add_argument("--json", type=Path, default=RESULTS / "parity.json")
    args = parser.parse_args()
    device = chosen_device(parser, args.device, "--device cpu --largest 4096")
    backend = "gsplat" if device.type == "cuda" else "cpu"
    facts = machine()
    print_machine(facts)
    result: dict[str, Any] = {"machine": facts, "backend": backend, "scenes": {}}
    if device.type == "cuda":
        start_s = time.perf_counter()
        scene = head_scene(64)
        drawn(inputs_of(scene, device, torch.float32), 32, backend)
        result["first_use_s"] = time.perf_counter() - start_s

    for num, size, cameras in SCENES:
        if num > args.largest:
            continue
        scene = head_scene(num, EYES_RAD[:cameras])
        ours = inputs_of(scene, torch.device("cpu"), torch.float32)
        # The scene's own cameras are for 512x512.
        scaled = size / scene.width
        ours["intrinsics"] = ours["intrinsics"] * torch.tensor([scaled, scaled, 1.0])[:, None]
        theirs = {
            name: tensor.detach().to(device).requires_grad_(tensor.requires_grad)
            for name, tensor in ours.items()
        }
        mine = drawn(ours, size, "cpu")
        compared = {f"{backend} against cpu": difference(drawn(theirs, size, backend), mine)}
        if num <= REFERENCE_UP_TO:
            exact = {
                name: tensor.detach().double().requires_grad_(tensor.requires_grad)
                for name, tensor in ours.items()
            }
            reference = drawn_by_reference(exact, size)
            compared["cpu against float64"] = difference(mine, reference)
            for tensor in theirs.values():
                tensor.grad = None
            compared[f"{backend} against float64"] = difference(
                drawn(theirs, size, backend), reference
            )
        result["scenes"][f"{num} Gaussians, {cameras} x {size}x{size}"] = compared
    write_result(result, args.json)
    same = all(pair["same"] for scene in result["scenes"].values() for pair in scene.values())
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
