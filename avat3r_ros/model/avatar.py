"""Between a prefix and the tensors of an `Avatar`: what is stored, how, and how it is read back.

    name                shape       dtype    meaning
    means               (N, 3)      float32  centres, each in its own expression, metres
    quats_wxyz          (N, 4)      float16  orientation there
    scales              (N, 3)      float16  half axes there, in millimetres
    opacities           (N,)        float16
    colors              (N, 3)      uint8    sRGB
    code_rows           (N,)        uint8    row of `codes`: the expression a Gaussian was placed in
    codes               (R, E)      float32  the references' codes, then those of template Gaussians
    pixel_indices       (P,)        int32    pixel of the first P Gaussians in (V, H, W); four
                                             where it was cut (detail.py)
    triangle_ids        (M,)        int16    head-template triangle of the moving Gaussians
    barycentrics        (M, 3)      float16
    fading              (Q,)        int32    Gaussians on unfolding lids
    moving              (3,)        int64    first moving, first deforming, one past the last moving
    identity            (K,)        float32  head-template coefficients
    tokens              (V*L, D)    float16  activations before the first cross-attention *
    still_changes       (P, 14)     float16  raw changes that last in every expression *
    network.<name>                  float16  weights that run per frame **

*  Only with a trained network, and if it makes such changes or looks at its tokens in every frame.
** Only if that network does not ship with the package: shipped weights are found by
`weights_sha256`, so that an avatar of a preset stays small; any other network travels with its
avatars. The head template always ships and is checked by hash.

A built avatar holds the stored values, so it animates the same before and after a trip through a
file.
"""

import hashlib
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from avat3r_ros.model.base_guess import guess_with_rig
from avat3r_ros.model.changes import ATTRIBUTES
from avat3r_ros.model.checkpoint import find_shipped_network, load_network, weights_sha256
from avat3r_ros.model.config import Avat3rConfig, preset
from avat3r_ros.model.detail import with_details
from avat3r_ros.model.network import Avat3r
from avat3r_ros.model.photo_fit import fitted_to_photos
from avat3r_ros.model.prefix import Prefix, make_motion
from avat3r_ros.model.rig_motion import BaseGuess
from avat3r_ros.model.seams import without_seams
from avat3r_ros.model.tone import in_one_tone, only_tone
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.types import Avatar, Gaussians, ReferenceViews

THUMBNAIL_PX = 96
NETWORK = "network."
PER_FRAME = "expression_path."
"""Part of the network that an avatar needs after `encode`."""

_MILLIMETRES = 1000.0


def build_avatar(
    views: ReferenceViews,
    network: Avat3r | None = None,
    *,
    features: Tensor | None = None,
    metadata: dict[str, Any] | None = None,
    thumbnails: UInt8[np.ndarray, "v h w 3"] | None = None,
) -> Avatar:
    """Turn reference views into an avatar.

    Args:
        views: References, on the CPU.
        network: None or an untrained one gives the base guess alone, which follows the driver all
            the same.
        features: Feature maps, if the network uses them.
        metadata: Owner, created, consent, expires and other JSON data.
        thumbnails: Small RGB pictures; made of the references if None. Pass an empty array
            (0, h, w, 3) to keep no picture of the person.

    Raises:
        ValueError: The views do not fit the network, or nothing of them can be trusted.
    """
    config = preset("tiny") if network is None else network.config
    digest = "" if network is None else weights_sha256(network)
    template = HeadTemplate.load() if network is None else network.template
    views = without_seams(views, config, template)
    base, motion = guess_with_rig(views, config, template, neck=True)
    finer, rows = with_details(base, views, template)
    tone = only_tone(views)
    if tone is not None:
        finer = in_one_tone(finer, tone)
    num_views = len(views.images)
    tensors: dict[str, Tensor] = {}
    if network is not None and digest:
        still = None
        with torch.no_grad():
            tokens = network.encode_tokens(views, features)
            if tokens is not None:
                tensors["tokens"] = tokens.half().cpu()
            if config.evidence_features:
                motion = motion if network.device.type == "cpu" else None
                still = network.still_changes(base.to(network.device), views, motion)
                still = still[rows[: finer.num_pixels].to(network.device)]
                tensors["still_changes"] = still.half().cpu()
        if find_shipped_network(digest) is None:
            tensors |= {
                NETWORK + name: tensor.detach().half().cpu()
                for name, tensor in network.state_dict().items()
                if name.startswith(PER_FRAME)
            }
        on_device = finer.to(network.device)
        prefix = network.prefix_from_tokens(
            tokens, on_device, views.identity, num_views, still=still
        )
        shown = partial(network.decode, prefix)
    else:
        rig = make_motion(finer, views.identity, template, config)
        shown = Prefix(finer, rig, num_views).base_gaussians
    tensors |= _stored(fitted_to_photos(finer, views, shown), views)
    return Avatar(
        avatar_id="",
        code_space=config.code_space,
        model=config.name,
        weights_sha256=digest,
        config={
            "network": config.to_json(),
            "num_views": num_views,
            "reference_size": views.images.shape[-1],
            "template_sha256": "" if template is None else template_sha256(template),
        },
        tensors=tensors,
        metadata=metadata or {},
        thumbnails=_thumbnails(views) if thumbnails is None else thumbnails,
    )


def restore_avatar(
    avatar: Avatar,
    *,
    device: torch.device | str = "cpu",
    template: HeadTemplate | None = None,
    network: Avat3r | None = None,
) -> tuple[Prefix, Avat3r | None]:
    """Read back what `build_avatar` stored.

    Args:
        avatar: Built here or loaded from a file.
        device: Where the result is put.
        template: Head template; the shipped one if None.
        network: The avatar's network, if the caller has it (checked by hash); found otherwise.

    Returns:
        The prefix, and the network that decodes it; None for the base guess alone.

    Raises:
        ValueError: The tensors are incomplete or do not fit one another, the head template is
            another one, or the network's weights are neither shipped nor in the avatar.
    """
    for key, kind in (("network", dict), ("num_views", int), ("template_sha256", str)):
        if type(avatar.config.get(key)) is not kind:
            raise ValueError(f"avatar configuration lacks {key!r}")
    config = Avat3rConfig.from_json(avatar.config["network"])
    if config.motion_prior == "template":
        template = template or HeadTemplate.load()
        if template_sha256(template) != avatar.config["template_sha256"]:
            raise ValueError(
                "the avatar was built on another head template; build it again with this version"
            )
    else:
        template = None
    base = _restored(avatar, config, template).to(device)
    num_views = avatar.config["num_views"]
    identity = avatar.tensors["identity"].float()
    if not avatar.weights_sha256:
        return Prefix(base, make_motion(base, identity, template, config), num_views), None
    network = _network(avatar, config, template, network).to(device).eval()
    tokens = still = None
    if config.has_tokens:
        shape = (num_views * config.grid_size**2, config.width)
        tokens = _tensor(avatar, "tokens", shape).float().to(device)
    if config.evidence_features:
        shape = (base.num_pixels, sum(ATTRIBUTES.values()))
        still = _tensor(avatar, "still_changes", shape).float().to(device)
    with torch.no_grad():
        prefix = network.prefix_from_tokens(tokens, base, identity, num_views, still=still)
    return prefix, network


def template_sha256(template: HeadTemplate) -> str:
    """Hash what bindings and motion depend on: mesh, identity basis and expression basis."""
    digest = hashlib.sha256()
    for tensor in (
        template.neutral,
        template.triangles,
        template.identity_basis,
        template.expression_basis,
    ):
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _stored(base: BaseGuess, views: ReferenceViews) -> dict[str, Tensor]:
    g = base.gaussians
    stored = {
        "means": g.means.float(),
        "quats_wxyz": g.quats_wxyz.half(),
        "scales": (g.scales * _MILLIMETRES).half(),
        "opacities": g.opacities.half(),
        "colors": (g.colors.clamp(0, 1) * 255).round().to(torch.uint8),
        "code_rows": base.code_rows.to(torch.uint8),
        "codes": base.codes.float(),
        "pixel_indices": base.pixel_indices.to(torch.int32),
        "triangle_ids": base.triangle_ids.to(torch.int16),
        "barycentrics": base.barycentrics.half(),
        "fading": base.fading.to(torch.int32),
        "moving": torch.tensor([base.moving_start, base.deforming_start, base.moving_stop]),
        "identity": views.identity.float(),
    }
    return {name: tensor.detach().cpu().contiguous() for name, tensor in stored.items()}


def _restored(avatar: Avatar, config: Avat3rConfig, template: HeadTemplate | None) -> BaseGuess:
    means = _tensor(avatar, "means", (None, 3))
    n = len(means)
    codes = _tensor(avatar, "codes", (None, None))
    start, deforming, stop = _tensor(avatar, "moving", (3,)).tolist()
    if not 0 <= start <= deforming <= stop <= n:
        raise ValueError(f"avatar tensor 'moving' is not a run within {n} Gaussians")
    num_moving = stop - start
    pixels = _tensor(avatar, "pixel_indices", (None,)).long()
    rows = _tensor(avatar, "code_rows", (n,)).long()
    triangles = _tensor(avatar, "triangle_ids", (num_moving,)).long()
    fading = _tensor(avatar, "fading", (None,)).long()
    if len(fading) and not deforming <= int(fading.min()) <= int(fading.max()) < stop:
        raise ValueError("avatar tensor 'fading' has values that are not deforming Gaussians")
    # Avatars of version 0.1.0 do not say: theirs were as large as the network's images.
    reference_size = avatar.config.get("reference_size", config.image_size)
    if type(reference_size) is not int or reference_size < 1:
        raise ValueError(f"expected a positive 'reference_size' of an avatar, got {reference_size}")
    num_triangles = 0 if template is None else len(template.triangles)
    for name, values, limit in (
        ("code_rows", rows, len(codes)),
        ("pixel_indices", pixels, avatar.config["num_views"] * reference_size**2),
        ("triangle_ids", triangles, num_triangles),
    ):
        if len(values) and not 0 <= int(values.min()) <= int(values.max()) < limit:
            raise ValueError(f"avatar tensor {name!r} has values outside [0, {limit})")
    identity = _tensor(avatar, "identity", (None,))
    if template is not None and len(identity) not in template.identity_lengths:
        raise ValueError(
            f"expected an identity of {template.identity_lengths} values, got {len(identity)}"
        )
    if template is not None and codes.shape[1] != config.code_length:
        raise ValueError(f"expected codes of {config.code_length} values, got {codes.shape[1]}")
    quats = _tensor(avatar, "quats_wxyz", (n, 4)).float()
    return BaseGuess(
        gaussians=Gaussians(
            means=means.float(),
            quats_wxyz=torch.nn.functional.normalize(quats, dim=-1),
            scales=_tensor(avatar, "scales", (n, 3)).float() / _MILLIMETRES,
            opacities=_tensor(avatar, "opacities", (n,)).float(),
            colors=_tensor(avatar, "colors", (n, 3)).float() / 255,
        ),
        code_rows=rows,
        codes=codes.float(),
        pixel_indices=pixels,
        moving_start=start,
        deforming_start=deforming,
        moving_stop=stop,
        triangle_ids=triangles,
        barycentrics=_tensor(avatar, "barycentrics", (num_moving, 3)).float(),
        fading=fading,
        reference_size=reference_size,
    )


def _tensor(avatar: Avatar, name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Return a stored tensor after checking its shape and that its values are finite."""
    if name not in avatar.tensors:
        raise ValueError(f"avatar tensor {name!r} is missing")
    tensor = avatar.tensors[name]
    fits = tensor.ndim == len(shape) and all(
        want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"expected avatar tensor {name!r} {shape}, got {tuple(tensor.shape)}")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"avatar tensor {name!r} has values that are not finite")
    return tensor


def _network(
    avatar: Avatar, config: Avat3rConfig, template: HeadTemplate | None, given: Avat3r | None
) -> Avat3r:
    if given is not None:
        if weights_sha256(given) != avatar.weights_sha256:
            raise ValueError("the given network is not the one the avatar was built with")
        return given
    if not config.has_tokens:
        # The avatar holds all that the network said: nothing of it follows the expression.
        return Avat3r(config, template)
    embedded = {
        name.removeprefix(NETWORK): tensor.float()
        for name, tensor in avatar.tensors.items()
        if name.startswith(NETWORK)
    }
    if not embedded:
        folder = find_shipped_network(avatar.weights_sha256)
        if folder is None:
            raise ValueError(
                f"the avatar needs the {avatar.model!r} weights {avatar.weights_sha256[:12]}…, "
                "which this version of avat3r does not ship; install the version that built it"
            )
        return load_network(folder, template=template)
    network = Avat3r(config, template)
    needed = {name for name in network.state_dict() if name.startswith(PER_FRAME)}
    if set(embedded) != needed:
        raise ValueError(f"embedded network differs in {sorted(set(embedded) ^ needed)[:4]}")
    try:
        network.load_state_dict(embedded, strict=False)
    except RuntimeError as error:
        raise ValueError(f"embedded network does not fit its configuration: {error}") from error
    return network


def _thumbnails(views: ReferenceViews) -> UInt8[np.ndarray, "v h w 3"]:
    small = torch.nn.functional.interpolate(
        views.images.float(), (THUMBNAIL_PX, THUMBNAIL_PX), mode="bilinear", antialias=True
    )
    return (small.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
