"""What the priors know of networks other people published: licence, input, safe loading.

Such networks are read from a folder as the model hub lays it out (config.json, model.safetensors),
with the `transformers` package, which is optional and imported only here. Nothing is downloaded.
"""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import interpolate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

TRANSFORMERS_REMEDY = "pip install transformers==5.23.0 (Python 3.11 or newer)"


@dataclass(frozen=True)
class Licence:
    """Under which terms weights may be used.

    Attributes:
        name: Short name.
        url: Its text.
        terms: What a user must know, in one sentence; "" for none.
    """

    name: str
    url: str
    terms: str = ""

    def __str__(self) -> str:
        text = f"{self.name} ({self.url})"
        return f"{text}: {self.terms}" if self.terms else text


APACHE = Licence("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
NON_COMMERCIAL = Licence(
    "CC BY-NC 4.0",
    "https://creativecommons.org/licenses/by-nc/4.0/",
    "non-commercial use only",
)
DUST3R = Licence(
    "CC BY-NC-SA 4.0",
    "https://creativecommons.org/licenses/by-nc-sa/4.0/",
    "non-commercial use only, and whatever is derived from it must be shared alike",
)
SAPIENS2 = Licence(
    "Sapiens2 License",
    "https://github.com/facebookresearch/sapiens2/blob/main/LICENSE.md",
    "restricts what may be done with people's images (among others biometric processing, "
    "surveillance and deep fakes); read it before you make an avatar with it",
)


@dataclass(frozen=True)
class Normalisation:
    """How a network wants its pixels: (RGB in [0, 1] - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Float[Tensor, "v 3 h w"]) -> Float[Tensor, "v 3 h w"]:
        """Normalise images."""
        mean, std = (torch.tensor(x).to(images)[:, None, None] for x in (self.mean, self.std))
        return (images - mean) / std


@dataclass(frozen=True)
class PublishedNetwork:
    """A network from a folder.

    Attributes:
        model: In evaluation mode, without gradients.
        config: Its settings, as `transformers` reads them.
        normalisation: From the folder's preprocessor_config.json; ImageNet's if it has none.
    """

    model: torch.nn.Module
    config: Any
    normalisation: Normalisation


def load_published(
    folder: str | Path, classes: Mapping[str, str], device: torch.device | str
) -> PublishedNetwork:
    """Load a network of one of some kinds from a folder, strictly and without the network.

    Args:
        folder: With config.json and model.safetensors.
        classes: Name of the `transformers` class for each accepted `model_type`.
        device: Where the network is put.

    Raises:
        RuntimeError: The package `transformers` is absent or too old.
        FileNotFoundError: The folder or one of its files is absent.
        ValueError: The folder holds another kind of network, or its weights do not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder (expected config.json and weights)")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no config.json, so not a folder of a model hub")
    if not any(folder.glob("model*.safetensors")):
        raise FileNotFoundError(
            f"{folder}: no model.safetensors (pickled weights are not read, they may run code)"
        )
    settings = _json(folder / "config.json")
    kind = settings.get("model_type")
    if kind not in classes:
        raise ValueError(f"{folder}: expected a network of {sorted(classes)}, got {kind!r}")
    transformers = _transformers()
    try:
        network_class = getattr(transformers, classes[kind])
    except AttributeError:
        raise RuntimeError(
            f"transformers {transformers.__version__} has no {classes[kind]}; "
            f"remedy: {TRANSFORMERS_REMEDY}"
        ) from None
    try:
        model, report = network_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True,
            dtype=torch.float32,
        )  # fmt: skip
    except Exception as error:  # its errors come from many packages and share no class
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{folder}: cannot be read as {classes[kind]}: {reason}") from error
    absent = sorted(report["missing_keys"])
    if absent:
        raise ValueError(
            f"{folder}: the weights lack {len(absent)} tensors of {classes[kind]}, such as "
            f"{absent[0]}; another kind of network, or truncated?"
        )
    return PublishedNetwork(
        model.eval().requires_grad_(False).to(device), model.config, _normalisation(folder)
    )


def run_one_by_one(
    network: Callable[[Tensor], Tensor],
    images: Float[Tensor, "v 3 h w"],
    what: str,
    device: torch.device,
    progress: Callable[[float], None] | None,
) -> Float[Tensor, "v ..."]:
    """Run images through a network without gradients, one after the other; bfloat16 on a GPU.

    Args:
        network: One image (1, 3, h, w) to values (1, ...).
        images: On the CPU.
        what: How a message calls the values.
        device: Where the network is.
        progress: Called with the fraction done in [0, 1]; it may raise to stop.

    Returns:
        On the CPU, float32.

    Raises:
        ValueError: A value is not finite.
    """
    values = []
    on_gpu = device.type == "cuda"
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
        for index, image in enumerate(images):
            values.append(network(image[None]).float().cpu())
            if progress is not None:
                progress((index + 1) / len(images))
    joined = torch.cat(values)
    if not joined.isfinite().all():
        raise ValueError(f"{what} contain nan or infinity; damaged weights?")
    return joined.clone()  # what inference mode made takes no part in gradients


def resized(
    images: Float[Tensor, "v c h w"], height: int, width: int
) -> Float[Tensor, "v c height width"]:
    """Resize images smoothly either way; values stay in [0, 1]."""
    if images.shape[-2:] == (height, width):
        return images
    return interpolate(images, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise RuntimeError(
            f"this back-end needs the package transformers ({error}); remedy: {TRANSFORMERS_REMEDY}"
        ) from error
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def _normalisation(folder: Path) -> Normalisation:
    path = folder / "preprocessor_config.json"
    settings = _json(path) if path.is_file() else {}
    mean, std = (settings.get(key, default) for key, default in (
        ("image_mean", IMAGENET_MEAN), ("image_std", IMAGENET_STD)))  # fmt: skip
    for name, values in (("image_mean", mean), ("image_std", std)):
        if len(values) != 3 or not all(isinstance(v, int | float) for v in values):
            raise ValueError(f"{path}: expected 3 numbers as {name}, got {values}")
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))


def load_torchscript(path: str | Path, what: str, device: torch.device | str = "cpu") -> Module:
    """Load a TorchScript file, in evaluation mode.

    A TorchScript file is a program: take it from nobody you do not trust.

    Args:
        path: The file.
        what: It should be, with its article: "a Sapiens TorchScript file".
        device: Where the module is put.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no TorchScript file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (expected {what})")
    try:
        with warnings.catch_warnings():
            # Torch prefers newer formats; published files are in this one.
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a TorchScript file, or damaged (pickled checkpoints are not read): "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
