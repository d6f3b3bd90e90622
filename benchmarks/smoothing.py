"""What smoothing costs and gives: jitter of a resting face against delay of a moving one.

    python benchmarks/smoothing.py [--seconds 20] [--json FILE]

The tracker reads the synthetic operator, whose sensor noise and movements are known, without
smoothing; then each candidate filters the same measurements. 30 images/s.

- jitter: RMS change from image to image while the true face rests, in shares of the unfiltered one.
- delay: the shift in time that brings the filtered codes nearest to the measured ones.
- error: RMS distance to what was measured, smoothed without delay (with the future known); it falls
  with less jitter and rises with delay.

Blinks have filters of their own and a table of their own.
"""

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from _machine import machine, print_machine
from scipy.signal import savgol_filter

from avat3r_ros.data.operator import SyntheticOperator
from avat3r_ros.expression import ARKIT_52
from avat3r_ros.tracking import FaceTracker, SmoothingConfig
from avat3r_ros.tracking.smoothing import code_filter

DT_S = 1 / 30
STILL = 0.004
"""A true score that changes by less than this from image to image rests."""

REST_IMAGES = 5
"""... and a face rests when all scores have rested for so long."""

MIN_CUTOFFS_HZ, BETAS = (1.0, 2.0, 3.0, 4.0, 6.0), (2.0, 4.0, 8.0, 16.0)
SHIFTS_S = np.arange(0.0, 0.121, 0.001)


def measured(seconds: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores as measured and as performed, (images, 52) each."""
    operator = SyntheticOperator(seed)
    codes, truth = [], []
    with FaceTracker(smoothing=None, max_faces=1) as tracker:
        for i in range(round(seconds / DT_S)):
            at_s = i * DT_S
            face = tracker.track(operator.frame(at_s), at_s)
            if not face.detected:
                raise RuntimeError(f"the operator's face was lost at {at_s:.2f} s")
            codes.append(face.code)
            truth.append(operator.truth(at_s).code)
    return np.array(codes, np.float64), np.array(truth, np.float64)


def resting(truth: np.ndarray) -> np.ndarray:
    """Images of a face that has rested for a while, bool (images,)."""
    still = np.abs(np.diff(truth, axis=0, prepend=truth[:1])).max(1) < STILL
    since = np.convolve(still, np.ones(REST_IMAGES), "full")[: len(still)]
    return since == REST_IMAGES


def filtered(codes: np.ndarray, config: SmoothingConfig) -> np.ndarray:
    smoother = code_filter(config)
    return np.array([smoother.filter(code, DT_S) for code in codes])


def score(
    codes: np.ndarray, smooth: np.ndarray, rest: np.ndarray, columns: np.ndarray
) -> dict[str, float]:
    """Jitter, delay and error of some of the channels."""
    raw, out = codes[:, columns], smooth[:, columns]
    clean = savgol_filter(raw, 7, 2, axis=0)  # symmetric: no delay
    times_s = np.arange(len(raw)) * DT_S
    inside = slice(10, -10)

    def distance(shift_s: float) -> float:
        shifted = np.stack([np.interp(times_s - shift_s, times_s, c) for c in clean.T], 1)
        return float(((out - shifted)[inside] ** 2).mean())

    def restless(values: np.ndarray) -> float:
        return float(np.sqrt((np.diff(values, axis=0)[rest[1:]] ** 2).mean()))

    return {
        "jitter": restless(out) / restless(raw),
        "delay_ms": float(1e3 * SHIFTS_S[np.argmin([distance(s) for s in SHIFTS_S])]),
        "error": float(np.sqrt(((out - clean)[inside] ** 2).mean())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of the operator's performance")
    parser.add_argument("--seed", type=int, default=0, help="which operator")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    facts = machine()
    print_machine(facts)
    codes, truth = measured(args.seconds, args.seed)
    rest = resting(truth)
    print(f"{len(codes)} images, {rest.sum()} of a face at rest")
    blink = np.array([name.startswith("eyeBlink") for name in ARKIT_52])
    shipped, results = SmoothingConfig(), []
    for part, columns, prefix in (("face", ~blink, "code"), ("blinks", blink, "blink")):
        print(f"\n{part:>8} min_cutoff_hz  beta   jitter  delay ms    error")
        default = (getattr(shipped, f"{prefix}_min_cutoff_hz"), getattr(shipped, f"{prefix}_beta"))
        pairs = sorted({*itertools.product(MIN_CUTOFFS_HZ, BETAS), default})
        for pair in pairs:
            values = dict(zip((f"{prefix}_min_cutoff_hz", f"{prefix}_beta"), pair, strict=True))
            smooth = filtered(codes, replace(shipped, **values))
            row = {"part": part, **values, **score(codes, smooth, rest, columns)}
            results.append(row)
            mark = "  shipped" if pair == default else ""
            print(
                f"{'':8} {pair[0]:13.1f} {pair[1]:5.1f} {row['jitter']:8.2f} "
                f"{row['delay_ms']:9.0f} {row['error']:8.4f}{mark}"
            )
    if args.json:
        args.json.write_text(json.dumps({"machine": facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
