"""Face weights of a headset: every name of the enumeration, means, and what is refused."""

import numpy as np
import pytest

from avat3r_ros.drivers.face_weights import (
    LATE_S,
    MAX_SOURCES,
    MAX_UNKNOWN,
    NO_EFFECT,
    PARTS,
    UNKNOWN,
    WITHOUT_EFFECT,
    FaceWeights,
    place_of,
)
from avat3r_ros.expression import ARKIT_52, arkit_code

FB2 = (
    *("BROW_LOWERER_L", "BROW_LOWERER_R", "CHEEK_PUFF_L", "CHEEK_PUFF_R", "CHEEK_RAISER_L"),
    *("CHEEK_RAISER_R", "CHEEK_SUCK_L", "CHEEK_SUCK_R", "CHIN_RAISER_B", "CHIN_RAISER_T"),
    *("DIMPLER_L", "DIMPLER_R", "EYES_CLOSED_L", "EYES_CLOSED_R", "EYES_LOOK_DOWN_L"),
    *("EYES_LOOK_DOWN_R", "EYES_LOOK_LEFT_L", "EYES_LOOK_LEFT_R", "EYES_LOOK_RIGHT_L"),
    *("EYES_LOOK_RIGHT_R", "EYES_LOOK_UP_L", "EYES_LOOK_UP_R", "INNER_BROW_RAISER_L"),
    *("INNER_BROW_RAISER_R", "JAW_DROP", "JAW_SIDEWAYS_LEFT", "JAW_SIDEWAYS_RIGHT"),
    *("JAW_THRUST", "LID_TIGHTENER_L", "LID_TIGHTENER_R", "LIP_CORNER_DEPRESSOR_L"),
    *("LIP_CORNER_DEPRESSOR_R", "LIP_CORNER_PULLER_L", "LIP_CORNER_PULLER_R"),
    *("LIP_FUNNELER_LB", "LIP_FUNNELER_LT", "LIP_FUNNELER_RB", "LIP_FUNNELER_RT"),
    *("LIP_PRESSOR_L", "LIP_PRESSOR_R", "LIP_PUCKER_L", "LIP_PUCKER_R", "LIP_STRETCHER_L"),
    *("LIP_STRETCHER_R", "LIP_SUCK_LB", "LIP_SUCK_LT", "LIP_SUCK_RB", "LIP_SUCK_RT"),
    *("LIP_TIGHTENER_L", "LIP_TIGHTENER_R", "LIPS_TOWARD", "LOWER_LIP_DEPRESSOR_L"),
    *("LOWER_LIP_DEPRESSOR_R", "MOUTH_LEFT", "MOUTH_RIGHT", "NOSE_WRINKLER_L"),
    *("NOSE_WRINKLER_R", "OUTER_BROW_RAISER_L", "OUTER_BROW_RAISER_R", "UPPER_LID_RAISER_L"),
    *("UPPER_LID_RAISER_R", "UPPER_LIP_RAISER_L", "UPPER_LIP_RAISER_R"),
    *("TONGUE_TIP_INTERDENTAL", "TONGUE_TIP_ALVEOLAR", "TONGUE_FRONT_DORSAL_PALATE"),
    *("TONGUE_MID_DORSAL_PALATE", "TONGUE_BACK_DORSAL_VELAR", "TONGUE_OUT", "TONGUE_RETREAT"),
)
"""XrFaceExpression2FB, in its order; written from the registry, not from the table under test."""


def full(stem):
    return f"XR_FACE_EXPRESSION2_{stem}_FB"


def face(*pairs, source="quest", stamp_s=0.0):
    names, weights = zip(*pairs, strict=True)
    return FaceWeights().take(names, weights, source, stamp_s)


def test_the_whole_enumeration_is_known_and_reaches_every_shape():
    assert len(FB2) == len(set(FB2)) == 70
    assert set(FB2) == {weight for parts in PARTS.values() for weight in parts} | set(
        WITHOUT_EFFECT
    )
    places = [place_of(full(stem)) for stem in FB2]
    assert UNKNOWN not in places and places.count(NO_EFFECT) == len(WITHOUT_EFFECT)
    assert set(places) - {NO_EFFECT} == set(range(52)), "every ARKit shape is reached"


@pytest.mark.parametrize(
    ("weight", "shape"),
    [
        ("XR_FACE_EXPRESSION2_JAW_DROP_FB", "jawOpen"),
        ("XR_FACE_EXPRESSION_JAW_DROP_FB", "jawOpen"),
        ("JawDrop", "jawOpen"),
        ("jawOpen", "jawOpen"),
        ("XR_FACE_EXPRESSION2_EYES_CLOSED_L_FB", "eyeBlinkLeft"),
        ("LipCornerPullerR", "mouthSmileRight"),
        # The left eye that looks left looks outwards, the right one towards the nose.
        ("XR_FACE_EXPRESSION2_EYES_LOOK_LEFT_L_FB", "eyeLookOutLeft"),
        ("XR_FACE_EXPRESSION2_EYES_LOOK_LEFT_R_FB", "eyeLookInRight"),
        ("XR_FACE_EXPRESSION2_EYES_LOOK_RIGHT_L_FB", "eyeLookInLeft"),
        ("XR_FACE_EXPRESSION2_CHIN_RAISER_B_FB", "mouthShrugLower"),
        ("XR_FACE_EXPRESSION2_LIP_SUCK_RT_FB", "mouthRollUpper"),
    ],
)
def test_names(weight, shape):
    code = face((weight, 0.75)).code
    assert code == pytest.approx(arkit_code(**{shape: 0.75}))


def test_a_shape_of_several_weights_is_the_mean_of_those_given():
    four = [(full(f"LIP_FUNNELER_{corner}"), v) for corner, v in zip(
        ("LB", "LT", "RB", "RT"), (0.2, 0.4, 0.6, 0.8), strict=True)]  # fmt: skip
    funnel = ARKIT_52.index("mouthFunnel")
    assert face(*four).code[funnel] == pytest.approx(0.5)
    assert face(*four[:2]).code[funnel] == pytest.approx(0.3)


def test_angles_of_the_head_stand_beside_the_weights():
    sample = face(("HeadYaw", 0.3), ("head_roll", -0.1), (full("JAW_DROP"), 1.0))
    assert sample.head == pytest.approx([0.3, 0.0, -0.1])
    assert sample.code.sum() == 1.0


def test_a_headset_that_sees_no_face_says_nothing():
    assert FaceWeights().take([], [], "quest", 0.0).code is None


def test_unknown_names_are_remembered_and_passed_over():
    weights = FaceWeights()
    sample = weights.take(["JAW_DROP", "left_wheel"], [0.5, 900.0], "quest", 0.0)
    assert sample.code[ARKIT_52.index("jawOpen")] == 0.5 and weights.unknown == {"left_wheel"}
    for i in range(300):
        weights.take(["JAW_DROP", f"wheel{chr(97 + i % 26)}{chr(97 + i // 26)}"], [0, 0], "q", 0.0)
    assert len(weights.unknown) == MAX_UNKNOWN


@pytest.mark.parametrize(
    ("names", "weights", "says"),
    [
        (["JAW_DROP"], [], "a weight for each name, got 1, 0"),
        ([], [0.1] * 70, "got 0, 70"),
        (["left_wheel", "right_wheel"], [0, 0], "face weights, got left_wheel"),
        (["JAW_DROP", "JawDrop"], [0, 1], "twice"),
        (["JAW_DROP"], [float("nan")], "nan"),
        (["JAW_DROP"], [1.6], r"in \[0, 1\], got 1.6"),
        (["JAW_DROP", "LIP_FUNNELER_LB", "LIP_FUNNELER_LT"], [0, -5, 5], "got -5"),
        (["CHEEK_SUCK_L"], [float("inf")], "inf"),
        (["HeadYaw"], [float("nan")], "angles"),
    ],
)
def test_what_is_no_face_is_refused(names, weights, says):
    with pytest.raises(ValueError, match=says):
        FaceWeights().take(names, weights, "quest", 0.0)


def test_an_overtaken_message_is_refused_but_a_new_clock_is_taken():
    weights = FaceWeights()
    for source, stamp_s in (("a", 100.0), ("b", 99.9), ("a", 100.1)):
        weights.take(["JAW_DROP"], [0.5], source, stamp_s)
    with pytest.raises(ValueError, match=r"0\.050 s behind"):
        weights.take(["JAW_DROP"], [0.5], "a", 100.05)
    weights.take(["JAW_DROP"], [0.5], "a", 100.1 - 2 * LATE_S)
    weights.take(["JAW_DROP"], [0.5], "a", 0.0)
    for i in range(100):
        weights.take(["JAW_DROP"], [0.5], f"source{i}", 1.0)
    assert len(weights._times_s) == MAX_SOURCES


def test_random_messages_never_do_worse_than_a_value_error():
    rng = np.random.default_rng(0)
    weights, taken = FaceWeights(), 0
    pool = [*FB2, "wheel", "", "HeadYaw", "\udcff", "jawOpen"]
    values = [0.0, 1.0, -0.2, 1e30, float("nan"), float("-inf"), 0.5]
    for _ in range(3000):
        names = rng.choice(pool, rng.integers(0, 6)).tolist()
        given = rng.choice(values, len(names), p=[0.3, 0.3, 0.1, 0.05, 0.05, 0.05, 0.15]).tolist()
        try:
            sample = weights.take(names, given, "quest", float(rng.uniform(0, 9)))
        except ValueError:
            continue
        taken += 1
        if sample.code is not None:
            assert np.isfinite(sample.code).all() and sample.code.max() <= 1
    assert taken > 200
