"""Which parts of a mask hang together."""

import numpy as np

from avat3r_ros.mattes import parts_touching


def test_parts_with_a_seed_stay_whole_and_the_others_go():
    mask = np.zeros((5, 9), bool)
    mask[1:4, 1:3] = mask[1:4, 5:8] = True
    seeds = np.zeros_like(mask)
    seeds[2, 6] = seeds[0, 0] = True  # the second lies on the background
    assert np.array_equal(parts_touching(mask, seeds), mask & (np.arange(9) > 4))
    assert not parts_touching(mask, np.zeros_like(mask)).any()
