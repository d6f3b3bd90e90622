"""Thin ROS 2 nodes around the core; the only place that imports rclpy."""

import ctypes
import os
import platform

# Our matrices are small: BLAS threads would only fight for the cores with the other nodes, and a
# template fit then takes five times as long. NumPy reads this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# All threads allocate from one heap. With one for each, every late image leaves some megabytes in
# another: the renderer grew by 30 MB in half an hour beside other work (now by 7). rclpy starts
# threads when it is imported, so this comes before. -8 is glibc's M_ARENA_MAX.
if platform.libc_ver()[0] == "glibc":
    ctypes.CDLL(None).mallopt(-8, 1)
