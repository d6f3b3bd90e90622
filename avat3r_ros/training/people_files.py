"""People on disk: making one takes seconds, reading one back takes milliseconds.

A folder holds `people.json`, which says what the people were made for, and one safetensors file per
person. Pictures are stored in bytes, displacements in half precision.
"""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from avat3r_ros.files import whole_file, write_json
from avat3r_ros.model.config import Avat3rConfig
from avat3r_ros.training.people import TrainingPerson
from avat3r_ros.training.references import Prior

FORMAT = 2
"""How values are stored; which ones are is compared by name (`_leaves`)."""

_BYTES = ("images", "masks", "necks")
_HALVES = ("moved", "details")
_SMALL_INTEGERS = ("triangle_ids", "pixel_indices", "points", "code_rows")

_KEPT_AT_HAND = ("motion", "patches", "evidence", "shared")


class PeopleFolder:
    """People of one kind, by seed.

    Args:
        folder: Created if missing.
        config: Network the base guesses are for.
        prior: How the references are made.
        picture_size: Side of the targets, pixels; that of the references' images if None.

    Raises:
        ValueError: The folder holds people made for something else.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Avat3rConfig,
        prior: Prior,
        *,
        picture_size: int | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": FORMAT,
            "fields": sorted(_leaves(TrainingPerson, "")),
            "prior": prior,
            "image_size": config.image_size,
            "picture_size": picture_size or config.image_size,
            "motion_prior": config.motion_prior,
            "position_skip": config.position_skip,
            "color_skip": config.color_skip,
            "confidence_threshold": config.confidence_threshold,
        }
        path = self.folder / "people.json"
        if path.is_file():
            theirs = json.loads(path.read_text())
            if theirs != about:
                raise ValueError(f"{folder} holds people made for {theirs}, expected {about}")
        else:
            write_json(path, about)

    def path(self, seed: int) -> Path:
        """Return where a person is kept."""
        return self.folder / f"{seed}.safetensors"

    def save(self, one: TrainingPerson) -> None:
        """Write a person in one move."""
        flat: dict[str, Tensor] = {}
        _flatten(one, "", flat)
        with whole_file(self.path(one.seed)) as partial:
            save_file(flat, partial)

    def load(self, seed: int) -> TrainingPerson:
        """Read a person back.

        Raises:
            FileNotFoundError: They are not here.
        """
        if not self.path(seed).is_file():
            raise FileNotFoundError(f"no person {seed} in {self.folder}")
        with safe_open(str(self.path(seed)), "pt") as file:
            flat = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _unflatten(TrainingPerson, "", flat)


def _leaves(kind: type, name: str) -> Iterator[str]:
    """Names of all values a file may hold; old people are refused where a dataclass has changed."""
    for field, hint in get_type_hints(kind).items():
        path = f"{name}.{field}".lstrip(".")
        if dataclasses.is_dataclass(hint):
            yield from _leaves(hint, path)
        elif field not in _KEPT_AT_HAND:
            yield path


def _flatten(value: Any, name: str, flat: dict[str, Tensor]) -> None:
    """Put all tensors and integers of nested dataclasses into one dict."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if field.name not in _KEPT_AT_HAND:
                _flatten(getattr(value, field.name), f"{name}.{field.name}".lstrip("."), flat)
    elif isinstance(value, int):
        flat[name] = torch.tensor(value)
    elif isinstance(value, Tensor):
        last = name.rpartition(".")[2]
        if last in _BYTES:
            value = (value.clamp(0, 1) * 255).round().to(torch.uint8)
        elif last in _HALVES:
            value = value.half()
        elif last in _SMALL_INTEGERS:
            value = value.to(torch.int32)
        flat[name] = value.contiguous()
    else:
        assert value is None or isinstance(value, str), f"{name}: cannot store {type(value)}"


def _unflatten(kind: type, name: str, flat: dict[str, Tensor]) -> Any:
    """Inverse of `_flatten`; fields that were not stored keep their defaults."""
    values: dict[str, Any] = {}
    for field, hint in get_type_hints(kind).items():
        path = f"{name}.{field}".lstrip(".")
        if dataclasses.is_dataclass(hint):
            values[field] = _unflatten(hint, path, flat)
        elif hint is int:
            values[field] = int(flat[path])
        elif path in flat:
            tensor = flat[path]
            if tensor.dtype == torch.uint8:
                tensor = tensor.float() / 255
            elif tensor.dtype == torch.int32:
                tensor = tensor.long()
            elif tensor.dtype == torch.float16:
                tensor = tensor.float()
            values[field] = tensor
    return kind(**values)
