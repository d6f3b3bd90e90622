"""PLY files of Gaussians: what other viewers read, and round trips."""

import logging

import numpy as np
import pytest
import torch

from avat3r_ros.rendering import ply
from avat3r_ros.types import Gaussians


@pytest.fixture
def gaussians():
    g = torch.Generator().manual_seed(0)
    return Gaussians(
        means=torch.randn(20, 3, generator=g),
        quats_wxyz=torch.nn.functional.normalize(torch.randn(20, 4, generator=g), dim=-1),
        scales=torch.rand(20, 3, generator=g) * 0.01 + 1e-4,
        opacities=torch.rand(20, generator=g) * 0.98 + 0.01,
        colors=torch.rand(20, 3, generator=g),
    )


def test_round_trip(gaussians, tmp_path):
    ply.write_ply(gaussians, tmp_path / "head.ply")
    back = ply.read_ply(tmp_path / "head.ply")
    for name in gaussians.__dataclass_fields__:
        torch.testing.assert_close(
            getattr(back, name), getattr(gaussians, name), rtol=1e-5, atol=1e-6
        )


def test_bytes_are_those_of_the_3dgs_layout(tmp_path):
    """Read back by hand, so that writer and reader cannot agree on a wrong layout."""
    one = Gaussians(
        means=torch.tensor([[1.0, 2.0, 3.0]]),
        quats_wxyz=torch.tensor([[0.0, 0.0, 2.0, 0.0]]),
        scales=torch.tensor([[1.0, torch.e, 0.5]]),
        opacities=torch.tensor([0.5]),
        colors=torch.tensor([[0.5, 0.5 + 0.28209479, 0.0]]),
    )
    ply.write_ply(one, tmp_path / "one.ply")
    header, body = (tmp_path / "one.ply").read_bytes().split(b"end_header\n")
    assert header.decode().split("\n") == [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 1",
        *(
            f"property float {name}"
            for name in (
                *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
                *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
            )
        ),
        "",
    ]
    values = np.frombuffer(body, "<f4")
    expected = [1, 2, 3, 0, 0, 0, 0, 1, -1.7724539, 0, 0, 1, np.log(0.5), 0, 0, 1, 0]
    assert values == pytest.approx(expected, abs=1e-6)


def test_opacities_of_zero_and_one_stay_finite(gaussians, tmp_path):
    gaussians.opacities[:2] = torch.tensor([0.0, 1.0])
    ply.write_ply(gaussians, tmp_path / "head.ply")
    back = ply.read_ply(tmp_path / "head.ply")
    assert back.opacities[0] < 2e-6 and back.opacities[1] > 1 - 2e-6


def test_no_gaussians(gaussians, tmp_path):
    none = Gaussians(**{n: getattr(gaussians, n)[:0] for n in gaussians.__dataclass_fields__})
    ply.write_ply(none, tmp_path / "none.ply")
    assert len(ply.read_ply(tmp_path / "none.ply")) == 0


def test_failed_write_leaves_the_old_file(gaussians, tmp_path):
    path = tmp_path / "head.ply"
    ply.write_ply(gaussians, path)
    before = path.read_bytes()
    gaussians.scales[3, 1] = -1
    with pytest.raises(ValueError, match="finite Gaussians with positive scales, got 1 of 20"):
        ply.write_ply(gaussians, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_others_with_more_fields_and_types(tmp_path, caplog):
    dtype = np.dtype(
        [("rot_0", "<f8"), *((f"rot_{i}", "<f4") for i in (1, 2, 3)), ("red", "u1"), ("x", "<f4"),
         ("y", "<f4"), ("z", "<f4"), *((f"scale_{i}", "<f4") for i in range(3)),
         ("opacity", "<f4"), *((f"f_dc_{i}", "<f4") for i in range(3)), ("f_rest_0", "<f4")]
    )  # fmt: skip
    rows = np.zeros(2, dtype)
    rows["rot_0"], rows["y"] = 3, [4, 5]
    types = {"<f8": "double", "<f4": "float", "|u1": "uchar"}
    header = "ply\ncomment by another program\nformat binary_little_endian 1.0\nelement vertex 2\n"
    header += "".join(f"property {types[dtype[n].str]} {n}\n" for n in dtype.names)
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    path = tmp_path / "other.ply"
    path.write_bytes(header.encode() + rows.tobytes() + b"\3" + bytes(12))
    with caplog.at_level(logging.WARNING):
        read = ply.read_ply(path)
    assert read.means[:, 1].tolist() == [4, 5]
    assert read.quats_wxyz[0].tolist() == [1, 0, 0, 0]
    assert read.scales[0].tolist() == [1, 1, 1] and read.opacities[0] == 0.5
    assert "f_rest" in caplog.text


def test_damaged_files_are_refused(gaussians, tmp_path):
    path = tmp_path / "head.ply"
    ply.write_ply(gaussians, path)
    whole = path.read_bytes()
    for data, message in (
        (whole[:-1], "expected 20 vertices of 68 bytes"),
        (b"not a ply at all", "without a PLY header"),
        (whole.replace(b"binary_little_endian", b"ascii"), "expected format binary_little_endian"),
        (whole.replace(b"property float rot_3\n", b""), r"got none of \['rot_3'\]"),
        (whole.replace(b"vertex 20", b"vertex ab"), "expected a number of vertices"),
        (whole.replace(b"element vertex", b"element face"), "begin with the element vertex"),
        (whole[:-68] + np.full(17, np.nan, "<f4").tobytes(), "expected finite means"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            ply.read_ply(path)
