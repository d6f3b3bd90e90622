"""What limits pictures of people never trained on: one error at a time is taken away.

    python benchmarks/error_budget.py [--seeds 0 2 5 8 13] [--steps 200] [--json FILE]

Upper table: the base guess with parts of the truth instead of what tracker and template fit say.
Lower table: bounds. Static per-pixel changes are optimised on the target pictures themselves, so no
network can be much better with changes of that kind. Then: where the squared error lies.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _machine import machine, print_machine

from avat3r_ros.capture.crop import crop_heads
from avat3r_ros.capture.exposure import harmonize_colors
from avat3r_ros.capture.template_fit import TemplateFit
from avat3r_ros.data.sampling import TrainingSample, training_sample
from avat3r_ros.geometry import fit_similarity
from avat3r_ros.model import preset
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.pixel_decoder import pixel_places
from avat3r_ros.model.prefix import Prefix, make_motion
from avat3r_ros.priors.template import position_maps
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.alignment import Similarity
from avat3r_ros.training.metrics import psnr
from avat3r_ros.training.references import Person, person_from_sample
from avat3r_ros.training.subject_fit import RATES, changed_gaussians, fit_changes
from avat3r_ros.types import Camera, Gaussians, ReferenceViews, SurfaceBinding

CONFIG = preset("tiny")
OUTLINE_PX = 4

ZONES = {
    "face skin": ("skin", "lips", "brows"),
    "eyes": ("eye_left", "eye_right", "lid_left", "lid_right", "eye_sockets", "eyelashes"),
    "mouth inside": ("inner_mouth", "teeth", "tongue"),
    "ears": ("ears",),
    "neck": ("neck",),
    "scalp": ("scalp",),
}

BOUNDS = {
    "smooth colour": (("color",), True),
    "colour": (("color",), False),
    "colour, opacity, size": (("color", "opacity", "log_scale"), False),
    "smooth position": (("position",), True),
    "smooth position and colour": (("position", "color"), True),
    "everything": (tuple(RATES), False),
}
"""Attributes, and whether their changes are smooth: one per token."""


def exact_positions(person: Person, template: HeadTemplate) -> ReferenceViews:
    """The references with every pixel where its surface truly was, bound to where it truly is."""
    views, surfaces = person.views, person.surfaces
    known = (surfaces.triangle_ids >= 0).flatten().nonzero()[:, 0]
    positions = views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3).clone()
    positions[known] = person.photographed_positions(known)
    v, _, h, w = views.position_maps.shape
    there = (surfaces.triangle_ids >= 0) & (views.masks[:, 0] > 0)
    on = there & (surfaces.triangle_ids < person.mesh.num_template_triangles)
    binding = SurfaceBinding(
        torch.where(there, torch.where(on, surfaces.triangle_ids, -1), views.binding.triangle_ids),
        torch.where(
            there[..., None],
            torch.where(on[..., None], surfaces.barycentrics, torch.zeros(())),
            views.binding.barycentrics,
        ).float(),
    )
    return replace(
        views, position_maps=positions.view(v, h, w, 3).permute(0, 3, 1, 2), binding=binding
    )


def with_cameras(
    person: Person, sample: TrainingSample, identity: torch.Tensor, template: HeadTemplate
) -> ReferenceViews:
    """References of the fitted person in the true cameras."""
    photos = sample.photos
    true = Camera(
        torch.stack([photo.camera.intrinsics for photo in photos]),
        torch.stack([photo.camera.camera_from_head for photo in photos]),
        photos[0].camera.width,
        photos[0].camera.height,
    )
    cameras = person.fit_from_true.cameras(true)
    fit = TemplateFit(
        identity=identity.numpy(),
        codes=person.views.codes.numpy(),
        intrinsics=cameras.intrinsics.double().numpy(),
        camera_from_head=cameras.camera_from_head.double().numpy(),
        residual_px=np.zeros(len(photos), np.float32),
    )
    crops = crop_heads(
        [p.image for p in photos], [p.matte for p in photos], fit, template, CONFIG.image_size
    )
    return harmonize_colors(position_maps(crops, template), template)


Variant = tuple[ReferenceViews, torch.Tensor, Camera]


def variants(sample: TrainingSample, template: HeadTemplate) -> dict[str, Callable[[], Variant]]:
    """References, target codes and target cameras, with one error after the other taken away."""
    person = person_from_sample(sample, CONFIG.image_size, "tracked", template)
    views, targets = person.views, person.targets
    true_codes = replace(views, codes=person.photo_codes.float())

    def placed() -> Variant:
        """The references' points laid over the truth as a whole: no error of pose or scale."""
        known = (person.surfaces.triangle_ids >= 0) & (views.confidence[:, 0] > 0.5)
        rows = known.flatten().nonzero()[:, 0]
        ours = views.position_maps.permute(0, 2, 3, 1).reshape(-1, 3)[rows].double().numpy()
        truth = person.photographed_positions(rows).double().numpy()
        return (
            views,
            person.driver_codes,
            Similarity(*fit_similarity(ours, truth)).cameras(targets.cameras),
        )

    def exact() -> Variant:
        one = person_from_sample(sample, CONFIG.image_size, "exact", template)
        keep = [
            int((sample.targets.images == image).flatten(1).all(1).nonzero()[0])
            for image in targets.images
        ]
        return one.views, one.driver_codes[keep], one.targets.cameras[keep]

    return {
        "in use": lambda: (views, person.driver_codes, targets.cameras),
        "true codes of the driver": lambda: (views, targets.codes, targets.cameras),
        "true codes of photos and driver": lambda: (true_codes, targets.codes, targets.cameras),
        "head laid over the truth as a whole": placed,
        "true cameras": lambda: (
            with_cameras(person, sample, views.identity, template),
            person.driver_codes,
            targets.cameras,
        ),
        "true positions": lambda: (
            exact_positions(person, template), person.driver_codes, targets.cameras,
        ),
        "true positions and codes": lambda: (
            replace(exact_positions(person, template), codes=true_codes.codes),
            targets.codes,
            targets.cameras,
        ),
        "everything exact": exact,
    }  # fmt: skip


def prefix_of(views: ReferenceViews, template: HeadTemplate) -> Prefix:
    base = build_base_guess(views, CONFIG, template)
    return Prefix(base, make_motion(base, views.identity, template, CONFIG), len(views.images))


@torch.no_grad()
def rendered(
    prefix: Prefix, codes: torch.Tensor, cameras: Camera, changes: torch.Tensor | None = None
) -> torch.Tensor:
    pictures, last, gaussians = [], None, None
    for row, code in enumerate(codes):
        if last is None or not torch.equal(code, last):
            gaussians: Gaussians = prefix.base_gaussians(code)
            if changes is not None:
                gaussians = changed_gaussians(prefix, gaussians, changes)
            last = code
        pictures.append(render_gaussians(gaussians, cameras[row : row + 1]).rgb[0].clamp(0, 1))
    return torch.stack(pictures)


def zone_maps(sample: TrainingSample, template: HeadTemplate) -> dict[str, torch.Tensor]:
    """Which pixels of the targets show what, (T, H, W) each."""
    mesh, targets = sample.mesh, sample.targets
    ids = torch.stack(
        [
            mesh.visible_surface(targets.cameras[row], code.numpy()).triangle_ids
            for row, code in enumerate(targets.codes)
        ]
    )
    inside = targets.masks[:, 0] > 0.5
    closer = -torch.nn.functional.max_pool2d(
        -targets.masks, 2 * OUTLINE_PX + 1, stride=1, padding=OUTLINE_PX
    )
    outline = inside & (closer[:, 0] < 0.5)
    zones = {f"outline ({OUTLINE_PX} px)": outline}
    rest = inside & ~outline
    on = (ids >= 0) & (ids < mesh.num_template_triangles)
    for name, regions in ZONES.items():
        zones[name] = rest & on & template.region_mask(*regions)[ids.clamp(0, None) * on]
    zones["hair"] = rest & (ids >= mesh.num_template_triangles)
    return zones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 2, 5, 8, 13])
    parser.add_argument(
        "--steps", type=int, default=200, help="of each bound's optimisation; 0: no bounds"
    )
    parser.add_argument("--json", help="also write the table here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    template = HeadTemplate.load()
    scores: dict[str, list[float]] = {}
    errors: dict[str, dict[str, list[float]]] = {}
    areas: dict[str, list[float]] = {}
    started = time.process_time()
    for seed in args.seeds:
        sample = training_sample(seed, template, num_codes=6)
        targets = sample.targets
        zones = zone_maps(sample, template)
        for name, area in zones.items():
            areas.setdefault(name, []).append(float(area.float().mean()))
        for name, make in variants(sample, template).items():
            views, codes, cameras = make()
            if len(codes) != len(targets.images):
                raise RuntimeError(f"person {seed}: the tracker misses a driver; take another seed")
            prefix = prefix_of(views, template)
            pictures = {name: rendered(prefix, codes, cameras)}
            if args.steps and name in ("in use", "everything exact"):
                places = pixel_places(
                    prefix.base.pixel_indices, CONFIG.image_size, CONFIG.patch_size
                )[1]
                for bound, (attributes, smooth) in BOUNDS.items():
                    changes = fit_changes(
                        prefix, targets.images, targets.masks, cameras, codes,
                        attributes=attributes, steps=args.steps,
                        places=places if smooth else None,
                    )  # fmt: skip
                    pictures[f"{name}, best {bound}"] = rendered(prefix, codes, cameras, changes)
            for label, rgb in pictures.items():
                value = float(psnr(rgb, targets.images, targets.masks).mean())
                scores.setdefault(label, []).append(value)
                squared = ((rgb - targets.images) * targets.masks).square().mean(1)
                for zone, area in zones.items():
                    share = float(squared[area].sum() / squared.sum())
                    errors.setdefault(label, {}).setdefault(zone, []).append(share)
            print(f"person {seed}: " + ", ".join(
                f"{label} {scores[label][-1]:.2f}" for label in pictures), flush=True)  # fmt: skip
    facts = machine()
    print_machine(facts)
    print(f"{len(args.seeds)} people, {time.process_time() - started:.0f} s of processor time")
    first = np.array(scores["in use"])
    for label, values in scores.items():
        gain = np.array(values) - first
        print(f"{label:45} {np.mean(values):6.2f} dB  {gain.mean():+.2f} (each: "
              + " ".join(f"{g:+.1f}" for g in gain) + ")")  # fmt: skip
    print("\nshare of the squared error; share of the area")
    for zone, area in areas.items():
        line = "".join(
            f"  {label}: {100 * np.mean(errors[label][zone]):4.1f} %"
            for label in ("in use", "everything exact", "in use, best everything")
            if label in errors  # without bounds there is no best
        )
        print(
            f"{zone:16}{line}  area {100 * np.mean(area) / sum(map(np.mean, areas.values())):.1f} %"
        )
    if args.json:
        Path(args.json).write_text(
            json.dumps({"machine": facts, "psnr": scores, "errors": errors, "areas": areas}) + "\n"
        )


if __name__ == "__main__":
    main()
