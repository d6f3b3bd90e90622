"""The full path of a preset on a GPU: stages, frames/s, memory, and what each speed-up gives.

    python benchmarks/cuda/full_path.py [--preset paper] [--frames 100] [--json FILE]
    python benchmarks/cuda/full_path.py --preset debug --device cpu --frames 3    # a trial

Weights are random in the output layers too, so nothing is left out. Each variant decodes the same
codes and is compared with float32: `float32`, `bfloat16` (autocast), `compiled` (bfloat16 through
torch.compile) and `graph` (the compiled one replayed as a CUDA graph, which needs CUDA). Times are
medians from device events on CUDA, from the wall clock on a CPU. Results default to
benchmarks/results/full_path.json.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from _machine import machine, print_machine  # noqa: E402
from _timing import RESULTS, chosen_device, milliseconds, write_result  # noqa: E402
from animation import synthetic_references  # noqa: E402

from avat3r_ros.animation.codes import compile_codes  # noqa: E402
from avat3r_ros.model import Avat3r, Prefix, preset  # noqa: E402
from avat3r_ros.rig import HeadTemplate  # noqa: E402

WARM_UP = 3


def random_network(name: str, device: torch.device) -> Avat3r:
    """A preset with small random output layers instead of its zeros."""
    torch.manual_seed(0)
    network = Avat3r(preset(name)).eval().to(device)
    for layer in network.output_layers():
        torch.nn.init.normal_(layer.weight, std=1e-3)
    return network


def stage_times(
    network: Avat3r, prefix: Prefix, code: torch.Tensor, device: torch.device, rounds: int
) -> dict[str, float]:
    """Median milliseconds of the network's parts within one decoded frame."""
    events: dict[str, list] = {}
    hooks = []
    path = network.expression_path
    parts = {
        "expression encoder": [path.expression_encoder],
        "cross-attention": list(path.cross_attention),
        "self-attention": list(path.self_attention),
        "upsampler": [path.upsampler],
    }

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    for name, modules in parts.items():
        for module in modules:
            began: list[float] = []
            hooks.append(module.register_forward_pre_hook(lambda *_, b=began: b.append(now())))
            hooks.append(
                module.register_forward_hook(
                    lambda *_, b=began, n=name: events.setdefault(n, []).append(now() - b.pop())
                )
            )
    totals = []
    for _ in range(rounds):
        start_s = now()
        network.decode(prefix, code)
        totals.append(now() - start_s)
    for hook in hooks:
        hook.remove()
    stages = {name: 1e3 * float(np.sum(times)) / rounds for name, times in events.items()}
    stages["rig and the rest"] = 1e3 * float(np.mean(totals)) - sum(stages.values())
    return stages


def variants(
    network: Avat3r, prefix: Prefix, first: torch.Tensor, device: torch.device
) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """Ways to decode a code into the Gaussians' means."""

    def plain(code: torch.Tensor) -> torch.Tensor:
        return network.decode(prefix, code).means

    def half(code: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return plain(code).float()

    compiled = torch.compile(half, dynamic=False)
    found = {"float32": plain, "bfloat16": half, "compiled": compiled}
    if device.type == "cuda":
        held = first.clone()

        def graphed() -> Callable[[torch.Tensor], torch.Tensor]:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(WARM_UP):
                    compiled(held)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                result = compiled(held)

            def replay(code: torch.Tensor) -> torch.Tensor:
                held.copy_(code)
                graph.replay()
                return result

            return replay

        made: list[Callable[[torch.Tensor], torch.Tensor]] = []

        def graph(code: torch.Tensor) -> torch.Tensor:
            if not made:
                made.append(graphed())
            return made[0](code)

        found["graph"] = graph
    return found


@torch.no_grad()
def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--json", type=Path, default=RESULTS / "full_path.json")
    args = parser.parse_args()
    device = chosen_device(parser, args.device, "--preset debug --device cpu --frames 3")
    facts = machine()
    print_machine(facts)

    network = random_network(args.preset, device)
    views = synthetic_references(network.config.image_size, HeadTemplate.load())
    encoding = [
        milliseconds(lambda: network.encode(views), device) for _ in tqdm(range(3), desc="encoding")
    ]
    prefix = network.encode(views)
    codes = torch.from_numpy(compile_codes("arkit_52", max(args.frames, 8), seed=1)).float()
    codes = codes.to(device)
    result = {
        "machine": facts,
        "preset": args.preset,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gaussians": len(network.decode(prefix, codes[0])),
        "encode_ms": min(encoding),
        "stages_ms": stage_times(network, prefix, codes[0], device, min(args.frames, 20)),
        "variants": {},
    }
    exact = [network.decode(prefix, code).means for code in codes[:8]]
    for name, decode in variants(network, prefix, codes[0], device).items():
        try:
            for code in codes[:WARM_UP]:
                decode(code)
            times = [
                milliseconds(partial(decode, code), device)
                for code in tqdm(codes[: args.frames], desc=name)
            ]
            worst = max(
                float((decode(code) - mean).norm(dim=-1).max())
                for code, mean in zip(codes, exact, strict=False)
            )
        except Exception as error:  # a variant that fails is a result, the others still count
            result["variants"][name] = {"failed": f"{type(error).__name__}: {error}"[:500]}
            continue
        result["variants"][name] = {
            "median_ms": float(np.median(times)),
            "p95_ms": float(np.quantile(times, 0.95)),
            "frames_per_s": 1e3 / float(np.median(times)),
            "largest_error_mm": 1e3 * worst,
        }
    if device.type == "cuda":
        result["peak_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    write_result(result, args.json)


if __name__ == "__main__":
    main()
