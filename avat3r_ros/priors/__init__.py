"""Head crops to position maps and feature maps, one back-end a file."""
