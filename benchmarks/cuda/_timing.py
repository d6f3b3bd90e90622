"""Times of work on a device, and where the results go; shared by the scripts beside it."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

RESULTS = Path(__file__).resolve().parent.parent / "results"


def milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Time one call: device events on CUDA, the wall clock elsewhere."""
    if device.type != "cuda":
        start_s = time.perf_counter()
        work()
        return 1e3 * (time.perf_counter() - start_s)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def repeated(
    name: str, work: Callable[[], object], device: torch.device, rounds: int, warm_up: int = 3
) -> dict[str, float]:
    """Median and 95th percentile of many calls, and calls per second at the median."""
    for _ in range(warm_up):
        work()
    times = [milliseconds(work, device) for _ in tqdm(range(rounds), desc=name)]
    median = float(np.median(times))
    return {
        "median_ms": median,
        "p95_ms": float(np.quantile(times, 0.95)),
        "per_second": 1e3 / median,
    }


def chosen_device(parser: argparse.ArgumentParser, name: str, trial: str) -> torch.device:
    """Return the device of that name, or end with the arguments of a trial on the CPU."""
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"no CUDA device here; try it with {trial}")
    return device


def write_result(result: dict[str, Any], path: Path) -> None:
    """Print a result and write it as JSON, whole or not at all."""
    print(json.dumps({name: part for name, part in result.items() if name != "machine"}, indent=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    temporary.replace(path)
    print(f"written: {path}")
