"""Webcam image to FaceState: landmarks, expression codes, head pose, smoothing."""
