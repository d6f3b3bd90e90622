"""The `.avat3r` file: one person's avatar as safetensors with JSON metadata, never pickle.

    8 bytes   length of the header
    header    safetensors JSON; `__metadata__["avat3r"]` is a JSON object: all but the tensors
    tensors   raw little-endian data

The metadata object holds `sha256` and `signature` as fixed-length hex strings. Both are replaced by
zeros before the whole file is hashed, so every byte of the file is covered: any change, cut or
addition is refused. The hash is also the avatar's id. It protects against accidents; whoever must
know *who* made an avatar signs it (Ed25519, over the hash) and loads it with `trusted_keys`.

The same bytes travel in the ROS message.
"""

import hashlib
import json
import math
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as bytes_from_tensors

from avat3r_ros.expression import CODE_SPACES
from avat3r_ros.files import write_bytes
from avat3r_ros.types import Avatar

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FORMAT_VERSION = 1
HEAD_FRAME = "head: x subject's left, y up, z out of the face, origin sellion, metres"
METADATA_KEY = "avat3r"
THUMBNAILS = "thumbnails"
MAX_FILE_BYTES = 512 * 1024**2
"""Larger data is refused before it is parsed."""

_SHA256_FIELD, _SIGNATURE_FIELD = b'\\"sha256\\":\\"', b'\\"signature\\":\\"'
_SHA256_ZEROS, _SIGNATURE_ZEROS = b"0" * 64, b"0" * 128
_FIELDS = {
    "format_version": int,
    "head_frame": str,
    "code_space": str,
    "model": str,
    "weights_sha256": str,
    "config": dict,
    "metadata": dict,
    "public_key": str,
    "sha256": str,
    "signature": str,
}


class AvatarFileError(ValueError):
    """The data is not an avatar that may be used; the message says why, in one sentence."""


def avatar_to_bytes(avatar: Avatar, *, signing_key: "Ed25519PrivateKey | None" = None) -> bytes:
    """Serialise an avatar; equal avatars give equal bytes.

    Args:
        avatar: Its `avatar_id` is ignored: the id is the content's hash.
        signing_key: Signs the hash; the public key is stored with it.

    Raises:
        ValueError: The metadata is not JSON data, or a tensor is named like the thumbnails.
    """
    if THUMBNAILS in avatar.tensors:
        raise ValueError(f"the tensor name {THUMBNAILS!r} is reserved for Avatar.thumbnails")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in avatar.tensors.items()}
    if avatar.thumbnails is not None and len(avatar.thumbnails):
        tensors[THUMBNAILS] = torch.from_numpy(np.ascontiguousarray(avatar.thumbnails, np.uint8))
    about = {
        "sha256": _SHA256_ZEROS.decode(),
        "signature": _SIGNATURE_ZEROS.decode(),
        "public_key": "" if signing_key is None else _public_hex(signing_key),
        "format_version": FORMAT_VERSION,
        "head_frame": HEAD_FRAME,
        "code_space": avatar.code_space,
        "model": avatar.model,
        "weights_sha256": avatar.weights_sha256,
        "config": avatar.config,
        "metadata": avatar.metadata,
    }
    try:
        for name in ("config", "metadata"):
            about[name] = json.loads(json.dumps(about[name], sort_keys=True, allow_nan=False))
        text = json.dumps(about, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"avatar metadata is not JSON data: {error}") from error
    data = bytearray(bytes_from_tensors(tensors, {METADATA_KEY: text}))
    sha256_at, signature_at = _places(data)
    digest = hashlib.sha256(data).digest()
    data[sha256_at : sha256_at + 64] = digest.hex().encode()
    if signing_key is not None:
        data[signature_at : signature_at + 128] = signing_key.sign(digest).hex().encode()
    return bytes(data)


def avatar_from_bytes(
    data: bytes, *, trusted_keys: set[str] | None = None, now: datetime | None = None
) -> Avatar:
    """Read an avatar and check everything that can be checked without the network.

    Args:
        data: A whole file or message.
        trusted_keys: Hex Ed25519 public keys; if given, only avatars signed by one of them pass.
        now: Time to hold against `metadata["expires"]`; the present if None. Timezone-aware.

    Raises:
        AvatarFileError: Foreign, truncated, altered, newer than this package, expired, wrongly
            signed or not signed by a trusted key.
    """
    data = bytes(data)
    if len(data) > MAX_FILE_BYTES:
        raise AvatarFileError(
            f"{len(data)} bytes are more than the {MAX_FILE_BYTES} an avatar may have"
        )
    about = _metadata(data)
    digest = _checked_digest(data, about)
    _check_signature(about, digest, trusted_keys)
    for name, kind in _FIELDS.items():
        if type(about.get(name)) is not kind:
            raise AvatarFileError(f"avatar field {name!r} is missing or not a {kind.__name__}")
    if about["head_frame"] != HEAD_FRAME:
        raise AvatarFileError(
            f"expected the head frame {HEAD_FRAME!r}, got {about['head_frame']!r}"
        )
    if about["code_space"] not in CODE_SPACES:
        raise AvatarFileError(
            f"unknown code space {about['code_space']!r}, expected one of {sorted(CODE_SPACES)}"
        )
    _check_expiry(about["metadata"].get("expires"), now or datetime.now(timezone.utc))
    try:
        tensors = tensors_from_bytes(data)
    except (SafetensorError, ValueError) as error:
        raise AvatarFileError(f"avatar tensors cannot be read: {error}") from error
    thumbnails = tensors.pop(THUMBNAILS, None)
    if thumbnails is not None and (thumbnails.dtype != torch.uint8 or thumbnails.ndim != 4):
        raise AvatarFileError(
            f"expected uint8 thumbnails (V, h, w, 3), got {tuple(thumbnails.shape)}"
        )
    return Avatar(
        avatar_id=digest,
        code_space=about["code_space"],
        model=about["model"],
        weights_sha256=about["weights_sha256"],
        config=about["config"],
        tensors=tensors,
        metadata=about["metadata"],
        thumbnails=None if thumbnails is None else thumbnails.numpy(),
    )


def save_avatar(
    avatar: Avatar, path: str | Path, *, signing_key: "Ed25519PrivateKey | None" = None
) -> Avatar:
    """Write an avatar: either the whole file appears at `path`, or what was there stays.

    Returns:
        The avatar with its id.

    Raises:
        OSError: The folder does not exist or cannot be written.
    """
    data = avatar_to_bytes(avatar, signing_key=signing_key)
    write_bytes(path, data)
    return replace(avatar, avatar_id=_metadata(data)["sha256"])


def load_avatar(
    path: str | Path, *, trusted_keys: set[str] | None = None, now: datetime | None = None
) -> Avatar:
    """Read an avatar file; see `avatar_from_bytes`.

    Raises:
        FileNotFoundError: There is no such file.
        AvatarFileError: It is not an avatar that may be used.
    """
    path = Path(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise AvatarFileError(f"{path}: larger than the {MAX_FILE_BYTES} bytes an avatar may have")
    try:
        return avatar_from_bytes(path.read_bytes(), trusted_keys=trusted_keys, now=now)
    except AvatarFileError as error:
        raise AvatarFileError(f"{path}: {error}") from error


def _public_hex(key: "Ed25519PrivateKey") -> str:
    return key.public_key().public_bytes_raw().hex()


def _metadata(data: bytes) -> dict[str, Any]:
    """Read the metadata object; the rest of the header is left to safetensors."""
    foreign = AvatarFileError("not an avatar file, or its beginning is damaged")
    if len(data) < 8:
        raise foreign
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise AvatarFileError("not an avatar file, or truncated")
    try:
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise foreign from None
    if not isinstance(about, dict):
        raise foreign
    version = about.get("format_version")
    if type(version) is not int:
        raise foreign
    if version > FORMAT_VERSION:
        raise AvatarFileError(
            f"format version {version} is newer than this package's {FORMAT_VERSION}; update avat3r"
        )
    if version < 1:
        raise foreign
    return about


def _places(data: bytes | bytearray) -> tuple[int, int]:
    """Positions of the hash and of the signature; both must occur once in the header."""
    length = int.from_bytes(data[:8], "little")
    header = bytes(data[8 : 8 + length])
    places = []
    for field, size in ((_SHA256_FIELD, 64), (_SIGNATURE_FIELD, 128)):
        if header.count(field) < 1:
            raise AvatarFileError("the avatar's hash is missing")
        # The writer puts both first; user data further on may contain the same words.
        start = header.index(field) + len(field)
        if start + size > length:
            raise AvatarFileError("the avatar's hash is damaged")
        places.append(8 + start)
    return places[0], places[1]


def _checked_digest(data: bytes, about: dict[str, Any]) -> str:
    sha256_at, signature_at = _places(data)
    blank = bytearray(data)
    blank[sha256_at : sha256_at + 64] = _SHA256_ZEROS
    blank[signature_at : signature_at + 128] = _SIGNATURE_ZEROS
    digest = hashlib.sha256(blank).hexdigest()
    if about.get("sha256") != digest:
        raise AvatarFileError("truncated or altered: the content does not match its hash")
    return digest


def _check_signature(about: dict[str, Any], digest: str, trusted_keys: set[str] | None) -> None:
    public, signature = about.get("public_key"), about.get("signature")
    if not isinstance(public, str) or not isinstance(signature, str):
        raise AvatarFileError("the avatar's signature fields are damaged")
    if public:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
            if signature != bytes.fromhex(signature).hex():
                raise ValueError("hex digits have one spelling here")
            key.verify(bytes.fromhex(signature), bytes.fromhex(digest))
        except (ValueError, InvalidSignature):
            raise AvatarFileError("the avatar's signature is wrong") from None
    elif signature != _SIGNATURE_ZEROS.decode():
        raise AvatarFileError("altered: a signature without a key")
    if trusted_keys is not None and public not in trusted_keys:
        raise AvatarFileError(
            f"signed by {public[:16]}…, which is not a trusted key"
            if public
            else "not signed, but only avatars of trusted keys are accepted"
        )


def _check_expiry(expires: object, now: datetime) -> None:
    if expires is None:
        return
    try:
        end = datetime.fromisoformat(str(expires).replace("Z", "+00:00"))
    except ValueError:
        raise AvatarFileError(f"expected an ISO 8601 date in 'expires', got {expires!r}") from None
    if end.tzinfo is None:
        end = end.replace(tzinfo=timezone.utc)
    if now >= end:
        days = math.ceil((now - end).total_seconds() / 86400)
        raise AvatarFileError(f"expired {end.isoformat()}, {days} day(s) ago")
