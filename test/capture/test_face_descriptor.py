"""The descriptor is dlib's, whatever the photo's size and tilt, and only from its own file."""

import cv2
import numpy as np
import pytest

from avat3r_ros.capture import face_descriptor
from avat3r_ros.capture.face_descriptor import (
    CHIP_LANDMARKS,
    CHIP_PLACES,
    CHIP_PX,
    FaceDescriptor,
    descriptor_distances,
    face_chip,
)

DLIB_TIMES_1000 = """
-57 40 80 -82 -168 -26 -60 -18 116 -78 196 -36 -255 -33 -24 225 -202 -130 -88 -42 10 36 -20 88
-99 -309 -1 -85 7 -87 84 150 -163 34 24 76 -68 -102 166 -63 -274 -41 54 219 189 -57 31 7
129 -267 -16 130 76 91 42 -188 31 170 -198 -36 8 -107 -30 -123 181 45 -135 -210 162 -160 -52 122
-145 -165 -267 51 303 120 -155 48 37 -30 -48 128 7 2 -65 3 123 -78 27 224 18 -48 -12 1
-70 58 -118 25 -1 -45 -5 66 -93 186 -35 28 -35 37 -90 -83 158 -223 185 163 81 126 53 105
-5 -22 -169 -57 111 -80 -26 17
"""
"""`dlib.face_recognition_model_v1(...).compute_face_descriptor(drawn_chip())`, dlib 20.0.1 with the
published weights."""


def drawn_chip():
    """Something like a face, by formulas that give the same bytes everywhere."""
    y, x = np.mgrid[:CHIP_PX, :CHIP_PX] / (CHIP_PX - 1) * 2 - 1
    face = np.exp(-((x / 0.75) ** 4) - (y / 0.95) ** 4)
    for side in (-1, 1):
        face -= 0.5 * np.exp(-(((x - side * 0.5) / 0.17) ** 2) - ((y + 0.35) / 0.09) ** 2)
    face -= 0.3 * np.exp(-((x / 0.3) ** 2) - ((y - 0.42) / 0.07) ** 2)
    face += 0.15 * np.exp(-((x / 0.08) ** 2) - ((y - 0.0) / 0.25) ** 2)
    return (face[..., None].clip(0, 1) * [215, 165, 135] + 20).astype(np.uint8)


def test_descriptors_are_those_of_dlib():
    expected = np.array(DLIB_TIMES_1000.split(), dtype=float) / 1000
    found = FaceDescriptor.load().describe(drawn_chip()[None])[0]
    # 0.031 here, at most 0.028 for 123 faces: 8 bits per weight. Unrounded weights: 1e-6.
    assert np.linalg.norm(found - expected) < 0.04


def test_each_chip_is_described_for_itself():
    chip, network = drawn_chip(), FaceDescriptor.load()
    both = network.describe(np.stack([chip, chip[::-1]]))
    assert np.allclose(both[0], network.describe(chip[None])[0], atol=1e-5)
    distances = descriptor_distances(both)
    assert distances[0, 1] > 0.3
    assert np.allclose(distances, distances.T)
    assert np.diag(distances).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("scale", "turn_deg"), [(1.0, 0.0), (0.5, 25.0), (4.0, -40.0)])
def test_chips_are_the_same_whatever_the_size_and_tilt(scale, turn_deg):
    chip = drawn_chip()
    turn = cv2.getRotationMatrix2D((CHIP_PX / 2 - 0.5, CHIP_PX / 2 - 0.5), turn_deg, scale)
    side = int(CHIP_PX * max(1, scale) * 1.6)
    turn[:, 2] += (side - CHIP_PX) / 2
    photo = cv2.warpAffine(chip, turn, (side, side))
    landmarks = np.zeros((478, 2))
    landmarks[list(CHIP_LANDMARKS)] = (CHIP_PLACES - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5
    found = face_chip(photo, landmarks)
    middle = np.s_[20:-20, 20:-20]
    difference = np.abs(found[middle].astype(float) - chip[middle]).mean()
    assert difference < 0.5  # a pixel's shift: 2.4
    described = FaceDescriptor.load().describe(np.stack([chip, found]))
    # Corners are lost to the turn. Measured: at most 0.05.
    assert descriptor_distances(described)[0, 1] < 0.1


def test_another_file_is_refused(tmp_path, monkeypatch):
    data = bytearray(face_descriptor.DESCRIPTOR_PATH.read_bytes())
    data[-1] ^= 1
    (tmp_path / "changed.safetensors").write_bytes(data)
    load = FaceDescriptor.load.__wrapped__
    monkeypatch.setattr(face_descriptor, "DESCRIPTOR_PATH", tmp_path / "changed.safetensors")
    with pytest.raises(ValueError, match="expected sha256"):
        load()
    monkeypatch.setattr(face_descriptor, "DESCRIPTOR_PATH", tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        load()
