"""The report of an evaluation: one HTML page with numbers and pictures, and the numbers as JSON."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from avat3r_ros.data.sampling import ICT_SEEDS
from avat3r_ros.files import write_json, write_text
from avat3r_ros.pictures import contact_sheet, write_png
from avat3r_ros.training.evaluation import SCORES, PersonResult, summary
from avat3r_ros.training.face_scores import UNITS
from avat3r_ros.training.methods import METHODS

PAGE, NUMBERS, SHEET = "report.html", "scores.json", "people.png"
PICTURE_PX, VIEW_PX = 160, 96

_LESS_IS_BETTER = {
    "perceptual", "akd_px", "expression", "identity", "flicker", "moving_mm", "all_mm", *UNITS,
}  # fmt: skip

_NOTES = (
    "PSNR, SSIM and the perceptual distance are taken inside the head's mask on black. The "
    "perceptual distance has the arithmetic of LPIPS on a fixed bank of derivatives at three "
    "scales (no learned weights): it compares methods here, not with published LPIPS.",
    "Landmarks and expressions are read by MediaPipe's face landmarker from the rendering and from "
    "the true picture of the same moment, where it finds the face in both; the tracker is blind to "
    "tongueOut.",
    "Likeness is the cosine between rendered and true face, eyes and mouth laid over each other, "
    "once the mean face of these people is taken off (eigenfaces): no trained face recogniser.",
    "Flicker is the mean second difference over an even ramp from one expression to another, in "
    "levels of 255; what does not move has none.",
)


def write_report(
    results: Sequence[PersonResult], folder: str | Path, about: dict[str, Any]
) -> dict[str, Any]:
    """Write `report.html`, `scores.json` and, where pictures were kept, `people.png`.

    The picture shows everybody from all cameras, the network beneath the truth.

    Args:
        results: Of `score_people`.
        folder: Created if missing.
        about: Facts for the head of the page and the JSON file: weights, options, machine.

    Returns:
        What `scores.json` holds: `about`, `scores` (`evaluation.summary`) and each person's scores.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    scores = summary(results)
    data = {
        "about": about,
        "scores": scores,
        "people": {result.seed: result.scores for result in results},
    }
    groups = {
        "people of the head model that was trained on": lambda seed: seed not in ICT_SEEDS,
        "people of ICT-FaceKit": lambda seed: seed in ICT_SEEDS,
    }
    parted = {
        name: summary(chosen)
        for name, belongs in groups.items()
        if 0 < len(chosen := [r for r in results if belongs(r.seed)]) < len(results)
    }
    if parted:
        data["parts"] = parted
    write_json(folder / NUMBERS, data)
    methods = [name for name in METHODS if name in scores]
    parts = [
        "<!doctype html><meta charset=utf-8><title>avat3r evaluation</title>",
        "<style>body{font:15px sans-serif;margin:2em;max-width:75em}"
        "td,th{padding:.2em .6em;text-align:right}th:first-child{text-align:left}"
        "tr:nth-child(even){background:#f3f3f3}.best{font-weight:bold}img{max-width:100%}</style>",
        f"<h1>{len(results)} held-out people</h1>",
        "<p>" + html.escape("; ".join(f"{key}: {value}" for key, value in about.items())),
        _table({method: scores[method] for method in methods}, SCORES),
        *(
            f"<h2>{len(part['people'])} {html.escape(name)}</h2>"
            + _table({method: part[method] for method in methods}, SCORES)
            for name, part in parted.items()
        ),
        "<ul>" + "".join(f"<li>{html.escape(note)}" for note in _NOTES) + "</ul>",
    ]  # fmt: skip
    if scores["units"]:
        parts.insert(-1, "<h2>Expression error by unit</h2>")
        parts.insert(-1, _table(scores["units"], {unit: unit for unit in UNITS}))
    for result in results:
        parts.append(f"<h2>Person {result.seed}</h2>")
        if result.pictures:
            rows = [
                (_caption(name, result.scores.get(name)), pictures)
                for name, pictures in result.pictures.items()
            ]
            sheet = _inline(contact_sheet(rows, PICTURE_PX))
            parts.append(f'<img alt="pictures of person {result.seed}" src="{sheet}">')
        else:
            parts.append(_table(result.scores, SCORES))
    rows = [
        (f"person {result.seed}: {name}", pictures)
        for result in results
        for name, pictures in result.views.items()
    ]
    if rows:
        write_png(contact_sheet(rows, VIEW_PX), folder / SHEET)
    write_text(folder / PAGE, "\n".join(parts) + "\n")
    return data


def text_table(scores: dict[str, Any]) -> str:
    """The means as plain text, a method a line."""
    lines = [f"{'':18}" + "".join(f"{name:>12}" for name in SCORES)]
    for method in (name for name in METHODS if name in scores):
        values = "".join(
            f"{scores[method][name]:12.3f}" if name in scores[method] else f"{'-':>12}"
            for name in SCORES
        )
        lines.append(f"{method:18}{values}")
    return "\n".join(lines)


def _table(scores: dict[str, dict[str, float]], columns: dict[str, str]) -> str:
    """Methods down, scores across; the best of each column is bold."""
    columns = {k: v for k, v in columns.items() if any(k in row for row in scores.values())}
    best = {
        name: (min if name in _LESS_IS_BETTER else max)(
            row[name] for row in scores.values() if name in row
        )
        for name in columns
    }
    rows = ["<tr><th>" + "".join(f"<th>{html.escape(title)}" for title in columns.values())]
    for method, row in scores.items():
        cells = []
        for name in columns:
            value = row.get(name)
            bold = ' class="best"' if value == best[name] else ""
            cells.append("<td>-" if value is None else f"<td{bold}>{value:.3f}")
        rows.append(f"<tr><th>{html.escape(method)}" + "".join(cells))
    return "<table>" + "\n".join(rows) + "</table>"


def _caption(name: str, scores: dict[str, float] | None) -> str:
    if scores is None:
        return name
    numbers = [
        f"{scores[score]:.{digits}f} {unit}"
        for score, digits, unit in (("psnr", 1, "dB"), ("akd_px", 1, "px"), ("moving_mm", 1, "mm"))
        if score in scores
    ]
    return f"{name}: " + ", ".join(numbers)


def _inline(image: np.ndarray) -> str:
    """A picture as part of the page."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
