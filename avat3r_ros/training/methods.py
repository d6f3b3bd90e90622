"""The network and what it has to beat, behind one call: a person, then an expression, to pictures.

network              the trained network
base guess           the same references without the network: the rig moves the photos' pixels
frozen neutral       the network's resting face, whatever the driver does
still base guess     the base guess at rest, without the template's motion
cloud                the coloured position maps, motionless (the paper's starting point)
nearest reference    the pixels of the photo nearest to the camera alone
textured template    the fitted mesh, textured by the photos, moved by its blendshapes
optimised            the base guess, its Gaussians optimised on the photos for a while

The first four are drawn as avatars are: where the photos were looked at more closely, in four for a
pixel, and in colours with which the photos look like themselves. Their points are those of whole
pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from avat3r_ros.model import Avat3r
from avat3r_ros.model import cloud as cloud_config
from avat3r_ros.model.base_guess import build_base_guess
from avat3r_ros.model.detail import with_details
from avat3r_ros.model.photo_fit import fitted_to_photos
from avat3r_ros.model.prefix import Prefix
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.rendering import render_gaussians
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.training.people import TrainingPerson
from avat3r_ros.training.subject_fit import changed_gaussians, fit_changes
from avat3r_ros.training.textured_mesh import TexturedMesh, nearest_view
from avat3r_ros.types import Camera, Gaussians

METHODS = (
    "network", "base guess", "frozen neutral", "still base guess", "cloud", "nearest reference",
    "textured template", "optimised",
)  # fmt: skip

OPTIMISATION_STEPS = 600
"""Steps of "optimised" that a minute of one core is expected to last for."""


@dataclass(frozen=True)
class Subject:
    """One person as one method shows them.

    Attributes:
        name: Of the method.
        pictures: Expression and T cameras -> T pictures on black, not clamped.
        gaussians: Expression -> Gaussians; None where the method has none.
        points: Gaussians of `TrainingPerson.points`' pixels among them.
    """

    name: str
    pictures: Callable[[Tensor, Camera], Float[Tensor, "t 3 h w"]]
    gaussians: Callable[[Tensor], Gaussians] | None = None
    points: Int[Tensor, "p"] | None = None


def _of_gaussians(
    name: str,
    gaussians: Callable[[Tensor], Gaussians],
    points: Int[Tensor, "p"],
    drawn: Callable[[Tensor], Gaussians] | None = None,
) -> Subject:
    drawn = drawn or gaussians
    return Subject(
        name,
        lambda code, cameras: render_gaussians(drawn(code), cameras).rgb,
        gaussians,
        points,
    )


def _as_drawn(
    prefix: Prefix, network: Avat3r, one: TrainingPerson, template: HeadTemplate
) -> tuple[Prefix, Prefix]:
    """The same person as `build_avatar` makes them, with the network and without.

    With a neck below the cut, details, and colours with which the photos look like themselves.
    """
    if one.views.details is None:
        return prefix, prefix
    base = build_base_guess(one.views, network.config, template, neck=True)
    finer, rows = with_details(base, one.views, template)
    tokens = network.encode_tokens(one.views)
    still = None if prefix.still is None else prefix.still[rows[: finer.num_pixels]]

    def known(base: BaseGuess) -> Prefix:
        return network.prefix_from_tokens(
            tokens, base, one.views.identity, prefix.num_views, still=still
        )

    whole = known(finer)
    with_network = fitted_to_photos(finer, one.views, partial(network.decode, whole))
    return known(with_network), known(fitted_to_photos(finer, one.views, whole.base_gaussians))


def subjects(
    network: Avat3r, one: TrainingPerson, template: HeadTemplate, *, optimise_s: float = 60.0
) -> list[Subject]:
    """Show a person by all `METHODS`.

    Args:
        network: In evaluation mode.
        one: The person.
        template: Head template.
        optimise_s: Processor time of the optimisation; 0 leaves that method out.
    """
    prefix = network.encode(one.views, base=one.base)
    at_rest = torch.zeros(network.config.code_length)
    finer, finer_base = _as_drawn(prefix, network, one, template)

    def shown_at_rest(name: str, of: Callable[[Prefix], Gaussians], drawn: Prefix) -> Subject:
        """The same Gaussians whatever the driver does."""
        whole, fine = of(prefix), of(drawn)
        return _of_gaussians(name, lambda code: whole, one.points, lambda code: fine)

    config = cloud_config(network.config)
    cloud = build_base_guess(one.views, config, None)
    cloud_points = torch.searchsorted(cloud.pixel_indices, one.base.pixel_indices[one.points])
    # One photo alone shows all it shows, also what another photo shows better.
    whole = replace(one.views, confidence=one.views.masks)
    photos = build_base_guess(whole, config, None)
    mesh = TexturedMesh(one.views, template)
    shown = [
        _of_gaussians(
            "network", partial(network.decode, prefix), one.points, partial(network.decode, finer)
        ),
        _of_gaussians("base guess", prefix.base_gaussians, one.points, finer_base.base_gaussians),
        shown_at_rest("frozen neutral", lambda known: network.decode(known, at_rest), finer),
        shown_at_rest("still base guess", lambda known: known.base_gaussians(at_rest), finer_base),
        _of_gaussians("cloud", lambda code: cloud.gaussians, cloud_points),
        Subject(
            "nearest reference",
            lambda code, cameras: torch.cat(
                [
                    render_gaussians(
                        _rows(
                            photos.gaussians,
                            photos.code_rows == nearest_view(one.views, cameras[row]),
                        ),
                        cameras[row : row + 1],
                    ).rgb
                    for row in range(len(cameras.intrinsics))
                ]
            ),
        ),
        Subject(
            "textured template",
            lambda code, cameras: torch.stack(
                [mesh.picture(code, cameras[row]) for row in range(len(cameras.intrinsics))]
            ),
        ),
    ]
    if optimise_s:
        views = one.views
        with torch.enable_grad():
            changes = fit_changes(
                prefix, views.images, views.masks, views.cameras, views.codes.float(),
                steps=round(OPTIMISATION_STEPS * optimise_s / 60), seconds=optimise_s,
            )  # fmt: skip
        shown.append(
            _of_gaussians(
                "optimised",
                lambda code: changed_gaussians(prefix, prefix.base_gaussians(code), changes),
                one.points,
            )
        )
    return shown


def _rows(gaussians: Gaussians, chosen: Bool[Tensor, "n"]) -> Gaussians:
    return Gaussians(
        **{name: getattr(gaussians, name)[chosen] for name in Gaussians.__dataclass_fields__}
    )
