"""Sizes and switches of the network: one frozen dataclass and its presets by name.

`paper` follows the publication where it is known (arXiv 2502.20220) and the nearest published
relative (GRM, arXiv 2403.14621) where it is not; `small` and `tiny` are the same code with other
sizes, and `debug` is for tests. A variant is `dataclasses.replace(preset("tiny"), ...)`, not a new
flag.
"""

import dataclasses
import difflib
from dataclasses import dataclass
from typing import Any, get_type_hints

from avat3r_ros.expression import CODE_SPACES

MOTION_PRIORS = ("template", "none")
UPSAMPLERS = ("grm", "linear", "pixel", "none")
LAYOUTS = ("sequential", "interleaved")

_ADDED_LATER = {"evidence_features", "evidence_layers"}
"""Fields that configurations written by older versions do not have: their default is off."""

MIN_VIEWS, MAX_VIEWS = 3, 6
"""Reference views the network accepts; it is trained with 4."""


@dataclass(frozen=True)
class Avat3rConfig:
    """Configuration of `Avat3r`; saved as JSON beside weights and inside avatars.

    Attributes:
        name: Preset this started from; free text.
        image_size: Side of the square reference crops, pixels. More: finer and quadratically more
            Gaussians. 512 in the paper.
        patch_size: Side of the square of pixels that becomes one token; a power of two. Larger:
            fewer tokens, faster and coarser. Not published; 16 as in GRM.
        input_pooling: Side of the squares of pixels that are averaged before tokens are made;
            divides `patch_size`. More: a smaller, faster embedding that sees less detail. 1 in the
            paper.
        width: Channels of a token (D). Not published; 768 as in GRM.
        num_heads: Attention heads; divides `width`.
        self_attention_layers: Blocks over the tokens of all views (paper: 8).
        cross_attention_layers: Blocks in which tokens attend to the expression (paper: 8).
        layout: "sequential" runs all self-attention first, so all of it is cached; "interleaved"
            alternates, and only the first self-attention block is cached. The paper allows both.
        expression_tokens: Tokens the expression code becomes (paper: 4).
        expression_hidden: Width of the expression MLP's two hidden layers.
        code_space: Key of `expression.CODE_SPACES`; its length is the code's length.
        upsampler: "grm" doubles the token grid per level with windowed attention, as in GRM;
            "linear" is one linear map from a token to its patch, many times cheaper; "pixel" is a
            small network per pixel that sees the tokens around it and the pixel itself; "none"
            leaves all that follows the expression to the head template's rig, and a frame costs
            little more than the base guess. The last two are ours.
        upsampler_window: Tokens per attention window of "grm"; more: wider context, slower.
        upsampler_min_width: Width below which "grm" stops halving (64 in GRM's code).
        decoder_features: Hidden features per pixel of "pixel".
        motion_prior: "template" moves the base guess with the head template's rig; "none" is the
            paper's motionless coloured position cloud.
        condition_on_reference_codes: Tell the network each reference's own code (ours; the paper
            gives it the target code only).
        condition_on_identity: Tell the network the head template's fitted identity; no effect with
            `motion_prior="none"`, which has no template. Ours.
        expression_basis: Per-pixel bilinear components driven by (code - the reference's code); 0
            switches them off. Ours; needs `condition_on_reference_codes`.
        evidence_features: Hidden features per pixel of the decoder that is told what the other
            references say of a pixel, and makes changes that are the same in every expression; 0
            switches it off. Ours.
        evidence_layers: Blocks of self-attention over what is said of cells of a sixteenth of a
            view's side; more: wider context, more that can be learned by heart.
        use_position_maps: Give position maps and confidence to the network as input.
        use_features: Concatenate a feature map of `feature_channels` to the tokens.
        feature_channels: Channels of that feature map (Sapiens-2B: 1920, 1B: 1536, 0.3B: 1024).
        position_skip: Predict offsets from the position map; False predicts offsets from the point
            of each pixel's ray that is nearest to the head's origin.
        color_skip: Predict changes of the pixel's colour; False predicts changes of mid-grey.
        confidence_threshold: Pixels become Gaussians above this confidence (tau; 0.5 in the paper).
    """

    name: str = "custom"
    image_size: int = 512
    patch_size: int = 16
    input_pooling: int = 1
    width: int = 768
    num_heads: int = 12
    self_attention_layers: int = 8
    cross_attention_layers: int = 8
    layout: str = "sequential"
    expression_tokens: int = 4
    expression_hidden: int = 256
    code_space: str = "arkit_52"
    upsampler: str = "grm"
    upsampler_window: int = 4096
    upsampler_min_width: int = 64
    decoder_features: int = 64
    motion_prior: str = "template"
    condition_on_reference_codes: bool = True
    condition_on_identity: bool = False
    expression_basis: int = 0
    evidence_features: int = 0
    evidence_layers: int = 0
    use_position_maps: bool = True
    use_features: bool = False
    feature_channels: int = 0
    position_skip: bool = True
    color_skip: bool = True
    confidence_threshold: float = 0.5

    def __post_init__(self) -> None:
        for field_name in (
            "image_size", "patch_size", "input_pooling", "width", "num_heads", "expression_tokens",
            "expression_hidden", "upsampler_window", "upsampler_min_width", "decoder_features",
        ):  # fmt: skip
            if getattr(self, field_name) < 1:
                raise ValueError(f"expected {field_name} >= 1, got {getattr(self, field_name)}")
        for field_name in (
            "self_attention_layers", "cross_attention_layers", "expression_basis",
            "evidence_features", "evidence_layers", "feature_channels",
        ):  # fmt: skip
            if getattr(self, field_name) < 0:
                raise ValueError(f"expected {field_name} >= 0, got {getattr(self, field_name)}")
        for field_name, choices in (
            ("layout", LAYOUTS),
            ("upsampler", UPSAMPLERS),
            ("motion_prior", MOTION_PRIORS),
            ("code_space", tuple(CODE_SPACES)),
        ):
            if getattr(self, field_name) not in choices:
                raise ValueError(_unknown(field_name, getattr(self, field_name), choices))
        if self.patch_size & (self.patch_size - 1):
            raise ValueError(f"expected a power of two as patch_size, got {self.patch_size}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"expected image_size to be a multiple of patch_size {self.patch_size}, got "
                f"{self.image_size}"
            )
        if self.patch_size % self.input_pooling:
            raise ValueError(
                f"expected input_pooling to divide patch_size {self.patch_size}, got "
                f"{self.input_pooling}"
            )
        if self.width % self.num_heads:
            raise ValueError(
                f"expected num_heads to divide width {self.width}, got {self.num_heads}"
            )
        if self.layout == "interleaved" and (
            self.self_attention_layers != self.cross_attention_layers
        ):
            raise ValueError(
                "interleaved layout needs as many self- as cross-attention layers, got "
                f"{self.self_attention_layers} and {self.cross_attention_layers}"
            )
        if not 0 <= self.confidence_threshold < 1:
            raise ValueError(
                f"expected confidence_threshold in [0, 1), got {self.confidence_threshold}"
            )
        if self.use_features and not self.has_tokens:
            raise ValueError("use_features=True needs tokens to fuse the features with")
        if self.use_features != (self.feature_channels > 0):
            raise ValueError(
                f"use_features={self.use_features} does not fit feature_channels="
                f"{self.feature_channels}: features need a positive number of channels, and none 0"
            )
        if self.expression_basis and not self.condition_on_reference_codes:
            raise ValueError(
                "expression_basis is driven by (code - reference code) and needs "
                "condition_on_reference_codes=True"
            )
        if self.motion_prior == "template":
            if not self.position_skip:
                raise ValueError("motion_prior='template' moves the position maps: it needs "
                                 "position_skip=True")  # fmt: skip
            if self.code_space != "arkit_52":
                raise ValueError(
                    "motion_prior='template' needs the rig's code space 'arkit_52', got "
                    f"{self.code_space!r}"
                )
        if self.upsampler == "none" and not (
            self.evidence_features and self.motion_prior == "template"
            and self.self_attention_layers == self.cross_attention_layers == 0
            and self.expression_basis == 0
        ):  # fmt: skip
            raise ValueError(
                "upsampler='none' needs evidence_features > 0 and motion_prior='template', and has "
                "neither attention layers nor an expression_basis"
            )
        if self.evidence_layers and not self.evidence_features:
            raise ValueError("evidence_layers need evidence_features > 0")

    @property
    def code_length(self) -> int:
        """Numbers in an expression code."""
        return CODE_SPACES[self.code_space]

    @property
    def has_tokens(self) -> bool:
        """Whether anything is done with patches of the references."""
        return self.upsampler != "none"

    @property
    def sees_identity(self) -> bool:
        """Whether there is an identity and the network is told of it."""
        return self.condition_on_identity and self.motion_prior == "template"

    @property
    def code_norm(self) -> float:
        """Typical length of a code vector: a few blendshapes near 1, or unit normal entries."""
        return 1.0 if self.code_space == "arkit_52" else self.code_length**0.5

    @property
    def grid_size(self) -> int:
        """Tokens along one side of a view."""
        return self.image_size // self.patch_size

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Avat3rConfig":
        """Build a configuration from JSON data, strictly.

        Raises:
            ValueError: A field is unknown, missing or of the wrong type, or values do not fit.
        """
        if not isinstance(data, dict):
            raise ValueError(f"expected a configuration object, got {type(data).__name__}")
        hints = get_type_hints(cls)
        for key in data:
            if key not in hints:
                raise ValueError(_unknown("configuration field", key, tuple(hints)))
        missing = sorted(set(hints) - set(data) - _ADDED_LATER)
        if missing:
            raise ValueError(f"configuration lacks the fields {missing}")
        values = {key: cls.__dataclass_fields__[key].default for key in _ADDED_LATER} | data
        for key, hint in hints.items():
            if hint is float and type(values[key]) is int:
                values[key] = float(values[key])
            if type(values[key]) is not hint:
                raise ValueError(f"expected {hint.__name__} for {key}, got {values[key]!r}")
        return cls(**values)


def tiny() -> Avat3rConfig:
    """What a CPU can train: changes of pixels from how photos agree, the same in every expression.

    The rig makes all motion, and a frame costs no more than the base guess; 256x256 references.
    """
    return Avat3rConfig(
        name="tiny",
        image_size=256,
        patch_size=16,
        self_attention_layers=0,
        cross_attention_layers=0,
        upsampler="none",
        evidence_features=96,
        evidence_layers=2,
    )


def mini() -> Avat3rConfig:
    """Build the transformer at a size that a CPU trains in an hour; 256x256 references.

    It learns from a few hundred people by heart: for comparisons, no weights ship.
    """
    return Avat3rConfig(
        name="mini",
        image_size=256,
        patch_size=16,
        input_pooling=2,
        width=128,
        num_heads=4,
        self_attention_layers=4,
        cross_attention_layers=2,
        expression_hidden=128,
        upsampler="pixel",
        condition_on_identity=True,
    )


def small() -> Avat3rConfig:
    """One consumer GPU: the paper's shape at 256x256 and half the width."""
    return Avat3rConfig(
        name="small",
        image_size=256,
        patch_size=8,
        width=384,
        num_heads=6,
        upsampler="grm",
        upsampler_window=1024,
        expression_basis=8,
    )


def paper() -> Avat3rConfig:
    """As published, with GRM's numbers where the paper is silent; no template, no reference codes.

    The code space is that of Ava-256's published expression codes. Features are a choice of their
    own: `replace(paper(), use_features=True, feature_channels=1920)` for Sapiens-2B.
    """
    return Avat3rConfig(
        name="paper",
        code_space="ava256_256",
        motion_prior="none",
        condition_on_reference_codes=False,
    )


def debug() -> Avat3rConfig:
    """Everything switched on at toy sizes: runs in milliseconds, in tests."""
    return Avat3rConfig(
        name="debug",
        image_size=32,
        patch_size=8,
        width=32,
        num_heads=2,
        self_attention_layers=1,
        cross_attention_layers=1,
        expression_hidden=16,
        upsampler="pixel",
        upsampler_window=64,
        upsampler_min_width=16,
        decoder_features=16,
        condition_on_identity=True,
        expression_basis=3,
        evidence_features=16,
        evidence_layers=1,
    )


PRESETS = {"tiny": tiny, "mini": mini, "small": small, "paper": paper, "debug": debug}


def preset(name: str) -> Avat3rConfig:
    """Return a preset by name.

    Raises:
        ValueError: No such preset; the message names the closest.
    """
    if name not in PRESETS:
        raise ValueError(_unknown("preset", name, tuple(PRESETS)))
    return PRESETS[name]()


def cloud(config: Avat3rConfig) -> Avat3rConfig:
    """The paper's starting point for references as `config` takes them: a coloured, still cloud."""
    return dataclasses.replace(
        mini(),
        name="cloud",
        motion_prior="none",
        condition_on_reference_codes=False,
        expression_basis=0,
        image_size=config.image_size,
        confidence_threshold=config.confidence_threshold,
        code_space=config.code_space,
    )


def _unknown(what: str, got: object, choices: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(str(got).lower(), choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {got!r}, expected one of {sorted(choices)}{hint}"
