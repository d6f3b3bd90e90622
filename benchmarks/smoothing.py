"""What smoothing costs and gives: jitter of a resting face against delay of a moving one.

    python benchmarks/smoothing.py [--seconds 20] [--json FILE]

The tracker reads the synthetic operator, whose sensor noise and movements are known, with several
filters of the landmarks; then candidates filter the scores that the shipped one of them left. 30
images/s.

- jitter: RMS change from image to image while the true face rests, in shares of the unfiltered one.
- delay: the shift in time that brings the filtered codes nearest to the measured ones.
- error: RMS distance to what was measured, smoothed without delay (with the future known); it falls
  with less jitter and rises with delay.

Tables are of the landmarks' filter, of the face's scores and of blinks, which have a filter of
their own.
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

OPEN_HZ = 1e6
"""Cutoff of a filter that lets everything pass."""

LANDMARK_BETAS, SPEED_CUTOFFS_HZ = (20.0, 40.0, 80.0, 160.0), (1.0, 5.0)
MIN_CUTOFFS_HZ, BETAS = (1.0, 2.0, 3.0, 4.0, 6.0), (2.0, 4.0, 8.0, 16.0)
SHIFTS_S = np.arange(0.0, 0.121, 0.001)


def measured(frames: list[np.ndarray], landmarks: SmoothingConfig | None) -> np.ndarray:
    """Scores (images, 52), not smoothed themselves, of landmarks that are smoothed so."""
    if landmarks is not None:
        landmarks = replace(landmarks, code_min_cutoff_hz=OPEN_HZ, blink_min_cutoff_hz=OPEN_HZ)
    codes = []
    with FaceTracker(smoothing=landmarks, max_faces=1, full_range=False) as tracker:
        for i, frame in enumerate(frames):
            face = tracker.track(frame, i * DT_S)
            if not face.detected:
                raise RuntimeError(f"the operator's face was lost at {i * DT_S:.2f} s")
            codes.append(face.code)
    return np.array(codes, np.float64)


def resting(truth: np.ndarray) -> np.ndarray:
    """Images of a face that has rested for a while, bool (images,)."""
    still = np.abs(np.diff(truth, axis=0, prepend=truth[:1])).max(1) < STILL
    since = np.convolve(still, np.ones(REST_IMAGES), "full")[: len(still)]
    return since == REST_IMAGES


def filtered(codes: np.ndarray, config: SmoothingConfig) -> np.ndarray:
    smoother = code_filter(config)
    return np.array([smoother.filter(code, DT_S) for code in codes])


def score(
    codes: np.ndarray, smooth: np.ndarray, rest: np.ndarray, columns: np.ndarray | slice
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
    operator = SyntheticOperator(args.seed)
    moments_s = np.arange(round(args.seconds / DT_S)) * DT_S
    frames = [operator.frame(at_s) for at_s in moments_s]
    rest = resting(np.array([operator.truth(at_s).code for at_s in moments_s], np.float64))
    print(f"{len(frames)} images, {rest.sum()} of a face at rest")
    blink = np.array([name.startswith("eyeBlink") for name in ARKIT_52])
    shipped, results = SmoothingConfig(), []

    raw, codes = measured(frames, None), measured(frames, shipped)
    print("\nlandmarks  beta  speed cutoff hz   jitter  delay ms    error")
    for beta, speed_hz in itertools.product(LANDMARK_BETAS, SPEED_CUTOFFS_HZ):
        candidate = replace(shipped, landmark_beta=beta, speed_cutoff_hz=speed_hz)
        values = {"landmark_beta": beta, "speed_cutoff_hz": speed_hz}
        row = {"part": "landmarks", **values}
        left = codes if candidate == shipped else measured(frames, candidate)
        row |= score(raw, left, rest, slice(None))
        results.append(row)
        mark = "  shipped" if candidate == shipped else ""
        print(
            f"{beta:15.0f} {speed_hz:16.0f} {row['jitter']:8.2f} {row['delay_ms']:9.0f} "
            f"{row['error']:8.4f}{mark}"
        )
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
