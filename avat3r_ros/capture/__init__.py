"""Photos and frames to head crops: loading, frame selection, matting, cameras."""
