"""Reading the published weights without running anything that a file may contain.

Two forms are in circulation: the authors' `.pth`, a pickle of {"model": tensors, "args": settings},
and `.safetensors`. The first is read by torch's restricted unpickler, to which only the settings'
class is added. Eight tensors have two names in the network the weights come from; a file may carry
either name or both.
"""

import argparse
import difflib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from avat3r_ros.priors.dust3r.config import Dust3rConfig
from avat3r_ros.priors.dust3r.network import Dust3r

_ALIAS = re.compile(r"(.*\.dpt\.scratch)\.layer_rn\.(\d)\.weight")
MAX_NAMED = 4
"""Tensors an error message names before it only counts."""


class Dust3rWeightsError(ValueError):
    """A file is not a whole, readable DUSt3R checkpoint of the expected sizes."""


def load_dust3r(
    path: str | Path,
    config: Dust3rConfig | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Dust3r:
    """Load a checkpoint strictly.

    Args:
        path: `.pth` or `.safetensors`; told apart by content, not by name.
        config: Sizes of the network in it; those of `DUSt3R_ViTLarge_BaseDecoder_512_dpt` if None.
        device: Where the network is put.

    Returns:
        The network in evaluation mode, float32, without gradients.

    Raises:
        FileNotFoundError: There is no such file.
        Dust3rWeightsError: It cannot be read, would run code, or holds other tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file (expected DUSt3R weights)")
    state = with_one_name_each(_read(path))
    # Built without storage: the file's tensors become the parameters.
    with torch.device("meta"):
        network = Dust3r(config)
    _check(state, network.state_dict(), path)
    network.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    for name, value in network.named_parameters():
        if not value.isfinite().all():
            raise Dust3rWeightsError(f"{path}: tensor {name} contains nan or infinity")
    return network.requires_grad_(False).eval().to(device)


def with_one_name_each(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep one name of tensors that have two, and complete a checkpoint with one decoder.

    Early checkpoints hold one decoder, from which both start.

    Raises:
        Dust3rWeightsError: The two names of one tensor carry different values.
    """
    named = dict(state)
    for name in state:
        if match := _ALIAS.fullmatch(name):
            kept = f"{match[1]}.layer{int(match[2]) + 1}_rn.weight"
            value = named.pop(name)
            if kept in named and not torch.equal(value, named[kept]):
                raise Dust3rWeightsError(f"{name} and {kept} are one tensor, but differ here")
            named[kept] = value
    if not any(name.startswith("dec_blocks2.") for name in named):
        for name, value in list(named.items()):
            if name.startswith("dec_blocks."):
                named["dec_blocks2." + name.removeprefix("dec_blocks.")] = value
    return named


def _read(path: Path) -> dict[str, Tensor]:
    if zipfile.is_zipfile(path):
        return _read_pickle(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise Dust3rWeightsError(
            f"{path}: neither a .safetensors file nor a .pth archive, or truncated: {error}"
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # What torch warns of, the errors below say.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        # Torch's advice to allow everything must not reach a user.
        refused = re.search(r"[Uu]nsupported (?:GLOBAL|global:?) (\S+)", str(error))
        if refused:
            raise Dust3rWeightsError(
                f"{path}: refused, because reading it would run code: it calls {refused[1]}"
            ) from error
        if "TorchScript" in str(error):
            raise Dust3rWeightsError(
                f"{path}: a TorchScript program, expected a checkpoint of DUSt3R"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise Dust3rWeightsError(f"{path}: damaged or truncated: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise Dust3rWeightsError(
            f"{path}: expected {{'model': tensors by name}}, got {type(state).__name__}"
        )
    return state


def _check(state: dict[str, Tensor], expected: dict[str, Tensor], path: Path) -> None:
    """Refuse other names or shapes, and say which."""
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unknown:
        hint = ""
        if any("downstream_head1.proj" in name for name in unknown):
            hint = "; this is a model with a linear head, the one with a dpt head is needed"
        elif unknown and (close := difflib.get_close_matches(unknown[0], missing, 1)):
            hint = f"; is {unknown[0]} meant as {close[0]}?"
        raise Dust3rWeightsError(
            f"{path}: not the expected DUSt3R: lacks {_some(missing)}, has besides "
            f"{_some(unknown)}{hint}"
        )
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if state[name].shape != value.shape
    ]
    if wrong:
        raise Dust3rWeightsError(f"{path}: other sizes than expected: {_some(wrong)}")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED]) or "nothing"
    return shown + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
