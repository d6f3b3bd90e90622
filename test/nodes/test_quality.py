"""Resolution and reprojection follow how long drawing takes."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make env`, or source a ROS 2 workspace")

from avat3r_ros.nodes.quality import QualityConfig, QualityControl


class Machine:
    """Draws: a constant part and one for each pixel, as the rasterizer does."""

    def __init__(self, control, full_s, constant_s=0.0, period_s=0.01):
        self.control, self.full_s, self.constant_s = control, full_s, constant_s
        self.period_s, self.now_s = period_s, 0.0
        self.scales = []

    def run(self, seconds, viewer_moves=False):
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            drawing_s = self.constant_s + self.full_s * self.control.scale**2
            self.now_s += max(self.period_s, drawing_s)
            self.control.observe(drawing_s, viewer_moves, self.now_s)
            self.scales.append(self.control.scale)
        return self.control


def make(full_s, display_hz=60.0, constant_s=0.0, **config):
    return Machine(QualityControl(QualityConfig(**config), display_hz), full_s, constant_s)


def test_a_fast_machine_draws_every_pixel():
    machine = make(0.012)
    assert machine.run(5.0).scale == 1.0 and set(machine.scales) == {1.0}


def test_resolution_goes_down_until_the_rate_is_held_and_then_stays():
    machine = make(0.080, target_hz=30.0)
    control = machine.run(4.0)
    drawing_s = 0.080 * control.scale**2
    assert drawing_s <= 0.9 / 30 and control.scale == 0.59
    settled = machine.scales[-50:]
    machine.run(20.0)
    assert set(machine.scales[-500:]) == set(settled) == {0.59}, "no swinging"


def test_it_comes_back_step_by_step_when_the_machine_is_free_again():
    machine = make(0.080)
    machine.run(4.0)
    machine.full_s = 0.010
    before = len(machine.scales)
    assert machine.run(10.0).scale == 1.0
    coming_back = machine.scales[before:]
    assert coming_back == sorted(coming_back) and len(set(coming_back)) == 4


def test_the_least_scale_is_a_limit_and_one_switches_scaling_off():
    assert make(1.0, min_scale=0.4).run(60.0).scale == 0.4
    assert make(1.0, min_scale=1.0).run(60.0).scale == 1.0


def test_single_slow_drawings_change_nothing():
    machine = make(0.012)
    for _ in range(20):
        machine.run(0.2)
        machine.full_s = 0.2
        machine.run(0.01)
        machine.full_s = 0.012
    assert set(machine.scales) == {1.0}


@pytest.mark.parametrize(
    ("mode", "full_s", "viewer_moves", "expected"),
    [
        ("auto", 0.030, True, True),
        ("auto", 0.030, False, False),
        ("auto", 0.012, True, False),
        ("always", 0.002, True, True),
        ("always", 0.030, False, False),
        ("off", 0.030, True, False),
    ],
)
def test_drawn_frames_are_warped_when_the_display_waits_for_a_moving_viewer(
    mode, full_s, viewer_moves, expected
):
    assert make(full_s, reproject=mode).run(1.0, viewer_moves).warping is expected


def test_warping_ends_a_while_after_the_viewer_stands_still():
    machine = make(0.025)
    assert machine.run(1.0, viewer_moves=True).warping
    assert machine.run(0.5).warping
    assert not machine.run(1.0).warping


def test_warping_ends_only_when_drawing_has_room_to_spare():
    machine = make(0.025)
    machine.run(1.0, viewer_moves=True)
    machine.full_s = 0.014  # within the period, but barely
    assert machine.run(3.0, viewer_moves=True).warping
    machine.full_s = 0.008
    assert not machine.run(3.0, viewer_moves=True).warping


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="expected reproject of"):
        QualityConfig(reproject="sometimes")
