"""Thin ROS 2 nodes around the core; the only place that imports rclpy."""

import os

# Our matrices are small: BLAS threads would only fight for the cores with the other nodes, and a
# template fit then takes five times as long. NumPy reads this when it is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
