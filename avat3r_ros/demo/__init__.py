"""The demo: capture, rebuild and drive a synthetic operator over ROS, scored against truth."""
