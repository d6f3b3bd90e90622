"""Avatar files: round trip, and refusal of everything that is not exactly what was written."""

import json
import os
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.torch import save as bytes_from_tensors

from avat3r_ros import avatar_file
from avat3r_ros.avatar_file import (
    AvatarFileError,
    avatar_from_bytes,
    avatar_to_bytes,
    load_avatar,
    save_avatar,
)
from avat3r_ros.types import Avatar

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def avatar():
    generator = torch.Generator().manual_seed(0)
    return Avatar(
        avatar_id="",
        code_space="arkit_52",
        model="tiny",
        weights_sha256="",
        config={"network": {"width": 192}, "num_views": 4},
        tensors={
            "means": torch.rand(40, 3, generator=generator),
            "colors": torch.randint(0, 255, (40, 3), generator=generator, dtype=torch.uint8),
            "codes": torch.rand(4, 52, generator=generator).half(),
        },
        metadata={
            "owner": 'somebody "with" quotes, "sha256":"00" and ümläuts',
            "created": "2029-01-01T00:00:00+00:00",
            "consent": {"purpose": "telepresence"},
        },
        thumbnails=np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3),
    )


def test_round_trip(avatar, tmp_path):
    saved = save_avatar(avatar, tmp_path / "me.avat3r")
    loaded = load_avatar(tmp_path / "me.avat3r", now=NOW)
    assert len(saved.avatar_id) == 64
    assert loaded.avatar_id == saved.avatar_id
    for name, tensor in avatar.tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)
        assert loaded.tensors[name].dtype == tensor.dtype
    assert set(loaded.tensors) == set(avatar.tensors)
    assert np.array_equal(loaded.thumbnails, avatar.thumbnails)
    for name in ("code_space", "model", "weights_sha256", "config", "metadata"):
        assert getattr(loaded, name) == getattr(avatar, name)


def test_the_id_is_the_contents_hash(avatar):
    data = avatar_to_bytes(avatar)
    loaded = avatar_from_bytes(data, now=NOW)
    assert avatar_to_bytes(loaded) == data
    reordered = replace(avatar, metadata=dict(reversed(avatar.metadata.items())))
    assert avatar_to_bytes(reordered) == data
    other = replace(avatar, metadata={**avatar.metadata, "owner": "someone else"})
    assert avatar_from_bytes(avatar_to_bytes(other), now=NOW).avatar_id != loaded.avatar_id


def test_an_avatar_without_pictures(avatar):
    loaded = avatar_from_bytes(avatar_to_bytes(replace(avatar, thumbnails=None)), now=NOW)
    assert loaded.thumbnails is None


@pytest.mark.parametrize("signed", [False, True])
def test_any_changed_byte_is_refused(avatar, signed):
    key = Ed25519PrivateKey.generate() if signed else None
    data = avatar_to_bytes(avatar, signing_key=key)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    places = {*range(0, header, 3), *rng.integers(header, len(data), 200), len(data) - 1, header}
    for place in sorted(int(p) for p in places):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        with pytest.raises(AvatarFileError):
            avatar_from_bytes(bytes(changed), now=NOW)


def test_cut_or_extended_data_is_refused(avatar):
    data = avatar_to_bytes(avatar)
    for length in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(AvatarFileError):
            avatar_from_bytes(data[:length], now=NOW)
    with pytest.raises(AvatarFileError, match="truncated or altered"):
        avatar_from_bytes(data + b"\0", now=NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 some zip file",
        b"\x80\x04\x95 a pickle",
        b"\xff" * 64,
        b"[" * 100_000,
        bytes_from_tensors({"weights": torch.zeros(3)}, {"format": "pt"}),
        bytes_from_tensors({"weights": torch.zeros(3)}, {"avat3r": "[]"}),
        bytes_from_tensors({"weights": torch.zeros(3)}, {"avat3r": '{"format_version":1}'}),
    ],
)
def test_foreign_data_is_refused(data, tmp_path):
    with pytest.raises(AvatarFileError):
        avatar_from_bytes(data)
    path = tmp_path / "foreign.avat3r"
    path.write_bytes(data)
    with pytest.raises(AvatarFileError, match="foreign.avat3r"):
        load_avatar(path)


def test_a_newer_format_asks_for_an_update(avatar, monkeypatch):
    monkeypatch.setattr(avatar_file, "FORMAT_VERSION", 2)
    data = avatar_to_bytes(avatar)
    monkeypatch.undo()
    with pytest.raises(AvatarFileError, match="newer than this package's 1; update avat3r"):
        avatar_from_bytes(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code_space": "visemes_15"}, "unknown code space"),
        ({"model": 7}, "'model' is missing or not a str"),
    ],
)
def test_fields_that_mean_nothing_here_are_refused(avatar, change, message):
    broken = avatar
    for name, value in change.items():
        object.__setattr__(broken, name, value)
    with pytest.raises(AvatarFileError, match=message):
        avatar_from_bytes(avatar_to_bytes(broken))


def test_expiry(avatar):
    def until(expires):
        return avatar_to_bytes(replace(avatar, metadata={"expires": expires}))

    avatar_from_bytes(until((NOW + timedelta(days=1)).isoformat()), now=NOW)
    avatar_from_bytes(until(None), now=NOW)
    avatar_from_bytes(until("2030-01-02T00:00:00Z"), now=NOW)
    with pytest.raises(AvatarFileError, match=r"expired .* 3 day\(s\) ago"):
        avatar_from_bytes(until("2029-12-29"), now=NOW)
    with pytest.raises(AvatarFileError, match="expected an ISO 8601 date"):
        avatar_from_bytes(until("next week"), now=NOW)


def test_signatures(avatar):
    key, stranger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    trusted = {key.public_key().public_bytes_raw().hex()}
    avatar_from_bytes(avatar_to_bytes(avatar, signing_key=key), now=NOW, trusted_keys=trusted)
    with pytest.raises(AvatarFileError, match="not a trusted key"):
        avatar_from_bytes(
            avatar_to_bytes(avatar, signing_key=stranger), now=NOW, trusted_keys=trusted
        )
    with pytest.raises(AvatarFileError, match="not signed"):
        avatar_from_bytes(avatar_to_bytes(avatar), now=NOW, trusted_keys=trusted)
    # A forger who replaces the content and recomputes the hash lacks the signature.
    good, forged = (
        bytearray(avatar_to_bytes(one, signing_key=who))
        for one, who in ((avatar, key), (replace(avatar, model="evil"), key))
    )
    at = [
        data.index(b'\\"signature\\":\\"') + len(b'\\"signature\\":\\"') for data in (good, forged)
    ]
    forged[at[1] : at[1] + 128] = good[at[0] : at[0] + 128]
    with pytest.raises(AvatarFileError, match="signature is wrong"):
        avatar_from_bytes(bytes(forged), now=NOW, trusted_keys=trusted)


def test_metadata_must_be_json(avatar):
    for metadata in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(ValueError, match="not JSON"):
            avatar_to_bytes(replace(avatar, metadata=metadata))
    with pytest.raises(ValueError, match="reserved"):
        avatar_to_bytes(replace(avatar, tensors={"thumbnails": torch.zeros(1)}))


def test_a_failed_save_keeps_what_was_there(avatar, tmp_path, monkeypatch):
    path = tmp_path / "me.avat3r"
    before = save_avatar(avatar, path).avatar_id

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_avatar(replace(avatar, model="other"), path)
    assert load_avatar(path, now=NOW).avatar_id == before
    assert os.listdir(tmp_path) == ["me.avat3r"]


def test_huge_data_is_refused_before_it_is_parsed(avatar, tmp_path, monkeypatch):
    save_avatar(avatar, tmp_path / "me.avat3r")
    monkeypatch.setattr(avatar_file, "MAX_FILE_BYTES", 1000)
    with pytest.raises(AvatarFileError, match="larger than the 1000 bytes"):
        load_avatar(tmp_path / "me.avat3r")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nobody.avat3r"):
        load_avatar(tmp_path / "nobody.avat3r")


def test_the_format_is_readable_json(avatar):
    data = avatar_to_bytes(avatar)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    about = json.loads(header["__metadata__"]["avat3r"])
    assert about["format_version"] == 1
    assert about["metadata"]["consent"] == {"purpose": "telepresence"}
