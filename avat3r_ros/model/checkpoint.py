"""Weights on disk: safetensors shards beside a JSON config, loaded strictly and checked by hash.

A checkpoint is a folder:

    config.json               {"format": 1, "config": {...}, "weights_sha256": ..., "shards": [...],
                               "about": {...}}
    weights-00001.safetensors ...

`weights_sha256` is the hash of the parameters' values, not of the files: it names a network in an
avatar whatever way its weights were stored. Presets' weights ship in
`avat3r_ros/weights/<preset>/`.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from avat3r_ros.files import write_json
from avat3r_ros.model.config import PRESETS, Avat3rConfig, preset
from avat3r_ros.model.network import Avat3r
from avat3r_ros.rig import HeadTemplate

logger = logging.getLogger(__name__)

FORMAT = 1
WEIGHTS_FOLDER = Path(__file__).parents[1] / "weights"
MAX_SHARD_BYTES = 12 * 1024**2
"""Shards stay small enough for any source-code host."""


class CheckpointError(ValueError):
    """A checkpoint is incomplete, altered or made for another network."""


def weights_sha256(network: Avat3r) -> str:
    """Hash a network's parameters (names, shapes and float32 values); "" while it is untrained."""
    return "" if network.is_untrained() else _hash(network.state_dict())


def save_network(
    network: Avat3r,
    folder: str | Path,
    *,
    dtype: Literal["float32", "float16"] = "float32",
    about: dict[str, Any] | None = None,
) -> str:
    """Write a checkpoint folder; the config is replaced last, so an old one stays whole until then.

    Args:
        network: What to save.
        folder: Created if missing.
        dtype: float16 halves the size; the hash is that of the rounded values.
        about: JSON data on training and data, kept with the weights.

    Returns:
        `weights_sha256` of the values as stored.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: tensor.detach().cpu().to(getattr(torch, dtype)).contiguous()
        for name, tensor in sorted(network.state_dict().items())
    }
    digest = _hash(state)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        if shards[-1] and size + tensor.nbytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    # The hash in the names keeps the shards of an older save intact until its config is replaced.
    names = [f"weights-{digest[:8]}-{i + 1:05d}.safetensors" for i in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name)
    config = {
        "format": FORMAT,
        "config": network.config.to_json(),
        "weights_sha256": digest,
        "shards": names,
        "about": about or {},
    }
    write_json(folder / "config.json", config)
    for old in folder.glob("weights-*.safetensors"):
        if old.name not in names:
            old.unlink()
    return digest


def load_network(
    name_or_path: str | Path,
    *,
    trained: bool = True,
    template: HeadTemplate | None = None,
    device: torch.device | str = "cpu",
) -> Avat3r:
    """Build a network from a preset name or a checkpoint folder.

    Args:
        name_or_path: A preset ("tiny" …), whose shipped weights are loaded, or a checkpoint folder.
        trained: False ignores weights: the network then returns the base guess.
        template: Head template; the shipped one if None.
        device: Where the network is put.

    Returns:
        The network in evaluation mode. A preset without shipped weights comes untrained, with a
        warning in the log.

    Raises:
        ValueError: Neither a preset nor a folder.
        CheckpointError: The checkpoint cannot be used.
    """
    name = str(name_or_path)
    folder = WEIGHTS_FOLDER / name if name in PRESETS else Path(name_or_path)
    if name in PRESETS and not (trained and (folder / "config.json").is_file()):
        if trained:
            logger.warning("no weights ship for preset %r: using the untrained base guess", name)
        return Avat3r(preset(name), template).to(device).eval()
    if not (folder / "config.json").is_file():
        # The message of `preset` names the nearest preset.
        if not folder.exists():
            preset(name)
        raise CheckpointError(f"{folder}: no config.json, so not a checkpoint folder")
    about = _read_config(folder)
    network = Avat3r(Avat3rConfig.from_json(about["config"]), template)
    if trained:
        _load_weights(network, folder, about)
    return network.to(device).eval()


def find_shipped_network(digest: str) -> Path | None:
    """Return the folder of the shipped weights with this `weights_sha256`, if there is one."""
    for path in sorted(WEIGHTS_FOLDER.glob("*/config.json")):
        if json.loads(path.read_text()).get("weights_sha256") == digest:
            return path.parent
    return None


def _hash(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().float().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise CheckpointError(f"{folder}/config.json is not JSON: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else type(about).__name__
        raise CheckpointError(f"{folder}: expected checkpoint format {FORMAT}, got {found!r}")
    missing = sorted({"config", "weights_sha256", "shards"} - set(about))
    if missing:
        raise CheckpointError(f"{folder}/config.json lacks {missing}")
    return about


def _load_weights(network: Avat3r, folder: Path, about: dict[str, Any]) -> None:
    state: dict[str, Tensor] = {}
    for name in about["shards"]:
        if Path(name).name != name:
            raise CheckpointError(f"{folder}: shard {name!r} is not a plain file name")
        try:
            state.update(load_file(folder / name))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{folder}/{name} cannot be read: {error}") from error
    if _hash(state) != about["weights_sha256"]:
        raise CheckpointError(f"{folder}: the weights do not match their hash; fetch them again")
    try:
        network.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)
    except RuntimeError as error:
        raise CheckpointError(f"{folder}: weights do not fit their config: {error}") from error
