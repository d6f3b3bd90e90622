"""Finished frames to a compressed stream for a viewer far away, and back."""

from avat3r_ros.streaming.video_codec import CODECS, VideoDecoder, VideoEncoder, is_keyframe

__all__ = ["CODECS", "VideoDecoder", "VideoEncoder", "is_keyframe"]
