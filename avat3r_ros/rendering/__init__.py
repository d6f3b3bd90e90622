"""Gaussians and cameras to images."""
