"""`avat3r build`: photos or a video to an .avat3r file."""

import argparse
import logging
import pathlib
from collections.abc import Callable
from functools import partial

from tqdm import tqdm

from avat3r_ros.avatar_file import save_avatar
from avat3r_ros.capture.frame_selection import FrameSelector
from avat3r_ros.capture.hands import HandFinder, HandWatch
from avat3r_ros.capture.photos import load_photo
from avat3r_ros.capture.usual_face import UsualFace
from avat3r_ros.capture.video import iter_frames
from avat3r_ros.commands._arguments import output_path
from avat3r_ros.commands.build_report import write_build_report
from avat3r_ros.lift.choice import single_image_lift
from avat3r_ros.pipeline import MIN_VIEWS, build_avatar_from_images, build_avatar_from_photos
from avat3r_ros.priors.choice import PositionPrior, feature_extractor, position_prior
from avat3r_ros.rig import HeadTemplate
from avat3r_ros.tracking import FaceTracker

WATCHED_FRAMES = 800
"""Of longer videos so many are looked at, evenly spread: all of an operator who turns for half a
minute, and minutes of film take no longer."""

logger = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    """Build and save an avatar, and the page that explains it."""
    output = output_path(args.output, ".avat3r")
    if bool(args.photos) == bool(args.video):
        raise ValueError("expected either photos or --video, got both or neither")
    metadata = {"owner": args.owner, "consent": args.consent}
    lift = single_image_lift(args.lift, args.lift_weights)
    features = feature_extractor(args.features, args.features_weights)
    with tqdm(total=100, unit="%", bar_format="{desc:<24}{percentage:3.0f}%|{bar}|") as bar:

        def progress(stage: str, fraction: float) -> None:
            bar.set_description_str(stage)
            bar.update(round(100 * fraction) - bar.n)

        position = _position_prior(args, progress)
        for part in (position, features, lift):
            if part is not None and part.licence is not None:
                bar.write(f"{part.name}: licence of its weights is {part.licence}")
        options = {
            "preset": args.preset,
            "trained": not args.untrained,
            "image_size": args.image_size,
            "position_prior": position,
            "features": features,
            "lift": lift,
            "compiled": args.compile,
            "progress": progress,
            "metadata": metadata,
        }
        if args.video:
            images, faces = select_from_video(args.video, args.views)
            names = [f"frame at {face.stamp_s:.1f} s" for face in faces]
            result = build_avatar_from_images(images, faces=faces, names=names, **options)
        else:
            photos = [load_photo(path) for path in args.photos]
            images, names = zip(*((photo.image, photo.path.name) for photo in photos), strict=True)
            result = build_avatar_from_photos(photos, **options)
    avatar = save_avatar(result.avatar, output)
    for warning in result.warnings:
        print(f"warning: {warning}")
    if not args.no_report:
        folder = args.report or output.with_name(output.stem + "_report")
        page = write_build_report(pathlib.Path(folder), result, images, names)
        print(f"report: {page}")
    megabytes = output.stat().st_size / 1e6
    views = f"{len(result.faces)} views"
    if result.views.num_guessed:
        views = f"1 photo and {result.views.num_guessed} guessed views"
    print(f"{output}: {megabytes:.1f} MB, id {avatar.avatar_id[:12]}, {views}")
    return 0


def _position_prior(
    args: argparse.Namespace, progress: Callable[[str, float], None]
) -> PositionPrior:
    weights = {"dust3r": args.dust3r_weights, "depth": args.depth_weights}
    for name, path in weights.items():
        if path is not None and name != args.position_maps:
            raise ValueError(f"--{name}-weights are only used with --position-maps {name}")

    def mapping(fraction: float) -> None:
        progress("mapping positions", 0.6 + 0.1 * fraction)

    return position_prior(
        args.position_maps,
        weights.get(args.position_maps),
        cameras_known=args.dust3r_cameras == "fitted",
        progress=mapping,
    )


def select_from_video(path: str | pathlib.Path, num_views: int):
    """Choose sharp, well spread frames of one person from a video, with nothing before the face.

    The video is read twice: what is before a face at times is told from how it looks all the time.

    Raises:
        ValueError: The video shows no usable view; says what was missing.
    """
    watched = partial(iter_frames, path, max_frames=WATCHED_FRAMES)
    faces, usual = [], UsualFace(HeadTemplate.load())
    with FaceTracker(smoothing=None) as tracker:
        for time_s, image in tqdm(watched(), desc="watching the face", unit=" frames"):
            faces.append(tracker.track(image, time_s))
            usual.look(image, faces[-1])
    strange_s = usual.strange_times()
    with HandFinder() as finder:
        watch = HandWatch(finder.over_face)
        selector = FrameSelector(num_views=num_views, covered=watch.covered)
        images = (image for _, image in watched())
        frames = watch.delayed(zip(images, faces, strict=True))
        for image, face in tqdm(frames, desc="choosing frames", total=len(faces), unit=" frames"):
            if not (abs(strange_s - face.stamp_s) < usual.nearby_s).any():
                selector.offer(image, face)
    selected = selector.selected()
    remedy = (
        "film the face, with nothing before it, while the head turns slowly left, right, up and "
        "down"
    )
    if not selected:
        raise ValueError(f"{path}: no usable view of a face found; {remedy}")
    if len(selected) < MIN_VIEWS:
        logger.warning("%s: usable views of a face: only %d; %s", path, len(selected), remedy)
    return [frame.image for frame in selected], [frame.face for frame in selected]
