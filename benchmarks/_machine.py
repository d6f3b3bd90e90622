"""What a benchmark ran on, for the head of its table and for its JSON file."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avat3r_ros import __version__, native


def machine() -> dict[str, Any]:
    """Describe this machine, and how much of one core we really get right now.

    `matmul_gflops` are best and median of single-threaded 512x512 float32 products by processor
    time. A median far below the best tells of a core whose other hyperthread works for somebody
    else; all times of a benchmark suffer as much.
    """
    best, median = _matmul_gflops()
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        "instruction_sets": list(native.instruction_sets()),
        "matmul_gflops": {"best": round(best, 1), "median": round(median, 1)},
        "load_1min": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "avat3r": __version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def print_machine(facts: dict[str, Any]) -> None:
    """Print the description in three lines."""
    print(
        f"{facts['cpu']}, {facts['cores']} core(s), {'/'.join(facts['instruction_sets'])}, "
        f"GPU: {facts['gpu'] or 'none'}"
    )
    print(
        f"one core now: best {facts['matmul_gflops']['best']}, median "
        f"{facts['matmul_gflops']['median']} GFLOP/s in matrix products; load {facts['load_1min']}"
    )
    print(
        f"Python {facts['python']}, torch {facts['torch']}, numpy {facts['numpy']}, avat3r "
        f"{facts['avat3r']}, {facts['system']}, {facts['date']}"
    )


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _matmul_gflops(size: int = 512, repeats: int = 60) -> tuple[float, float]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        a = torch.rand(size, size)
        seconds = []
        for _ in range(repeats):
            start = time.thread_time()
            a @ a
            seconds.append(time.thread_time() - start)
    finally:
        torch.set_num_threads(threads)
    flops = 2 * size**3 / 1e9
    return flops / min(seconds), flops / float(np.median(seconds))
