"""Avatar and expression code to Gaussians."""
