"""The `avat3r` command: arguments and examples. What a subcommand does is in `commands/`."""

import argparse
import importlib
import logging
import os
import sys

from avat3r_ros import __version__

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in nodes/: before NumPy is imported

EXAMPLES = {
    "build": "avat3r build front.jpg left.jpg right.jpg up.jpg -o me.avat3r\n"
    "  avat3r build one.jpg -o me.avat3r   # the other sides are guessed\n"
    "  avat3r build *.jpg --image-size 512 -o sharp.avat3r\n"
    "  avat3r build --video turn_your_head.mp4 -o me.avat3r\n"
    "  avat3r build *.jpg --position-maps dust3r -o me.avat3r   # weights: docs/priors.md",
    "compile": "avat3r compile me.avat3r -o fast.avat3r",
    "track": "avat3r track driver.mp4 -o codes.jsonl",
    "render": "avat3r render me.avat3r --codes codes.jsonl --camera orbit -o out.mp4\n"
    "  avat3r render me.avat3r --expression jawOpen=0.6 --camera 20,5,0.6 -o out.png",
    "telepresence": "avat3r telepresence --source synthetic\n"
    "  avat3r telepresence --source /dev/video0 --avatar me.avat3r --stereo\n"
    "  avat3r telepresence --driver live_link_face --avatar me.avat3r",
    "latency": "avat3r latency -o out/latency\n"
    "  avat3r latency --avatar me.avat3r --seconds 60 -o out/latency",
    "export": "avat3r export me.avat3r --format ply -o me.ply",
    "evaluate": "avat3r evaluate --quick -o scores\n"
    "  avat3r evaluate --references a.jpg b.jpg c.jpg --targets d.jpg e.jpg -o scores\n"
    "  avat3r evaluate --leave-one-out a.jpg b.jpg c.jpg d.jpg -o scores",
    "generate": "avat3r generate --seed 7 --count 16 -o heads.png",
    "train": "avat3r train --preset tiny -o checkpoints/tiny --people-folder checkpoints/people",
    "demo": "avat3r demo -o out/demo",
    "doctor": "avat3r doctor\n  avat3r doctor --download face_landmarker --accept-licence",
}


def _command(subparsers: argparse._SubParsersAction, name: str, summary: str):
    return subparsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {EXAMPLES[name]}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def make_parser() -> argparse.ArgumentParser:
    """Build the argument parser; `--help` of every subcommand ends with an example."""
    parser = argparse.ArgumentParser(
        prog="avat3r",
        description="Four photos become an animatable 3D Gaussian head, rendered live.",
        epilog="Every subcommand has --help with an example.",
    )
    parser.add_argument("--version", action="version", version=f"avat3r {__version__}")
    parser.add_argument("-v", "--verbose", action="store_true", help="show debug messages")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    doctor = _command(subparsers, "doctor", "Show what this machine has; get model files it lacks.")
    doctor.add_argument(
        "--download",
        metavar="MODEL",
        help="fetch face_landmarker, hand_landmarker, selfie_segmenter or dust3r",
    )
    doctor.add_argument(
        "--accept-licence", action="store_true", help="agree to the licence that --download shows"
    )

    build = _command(subparsers, "build", "Build an avatar from 1 to 6 photos or a video.")
    build.add_argument("photos", nargs="*", help="photos of one person, any order")
    build.add_argument("--video", help="choose the views from this video instead")
    build.add_argument("--views", type=int, default=4, help="views to choose from a video (3-6)")
    build.add_argument("-o", "--output", required=True, help="where to write the .avat3r file")
    build.add_argument("--preset", default="tiny", help="network preset (default: tiny)")
    build.add_argument(
        "--untrained", action="store_true", help="use the base guess without trained weights"
    )
    build.add_argument(
        "--image-size",
        type=int,
        metavar="PIXELS",
        help="side of the head's crops: 512 shows wrinkles and hair of sharp photos, at four "
        "times the Gaussians of 256 (default: the network's size)",
    )
    build.add_argument(
        "--position-maps",
        default="template",
        choices=("template", "dust3r", "depth"),
        help="where pixels lie: on the fitted template (default), where DUSt3R sees them, or off "
        "the face where a depth network sees them (docs/priors.md)",
    )
    build.add_argument(
        "--dust3r-weights", help=".pth or .safetensors; the downloaded ones if absent"
    )
    build.add_argument(
        "--dust3r-cameras",
        default="fitted",
        choices=("fitted", "estimated"),
        help="keep the template fit's cameras (default), or let DUSt3R find cameras and focal "
        "lengths",
    )
    build.add_argument("--depth-weights", help="folder of a depth network")
    build.add_argument(
        "--features",
        default="none",
        choices=("none", "sapiens", "sapiens2", "dinov2"),
        help="feature maps for a network that was trained with them (default: none)",
    )
    build.add_argument("--features-weights", help="TorchScript file (sapiens) or folder")
    build.add_argument(
        "--lift",
        default="heads",
        choices=("heads", "eg3d", "off"),
        help="what guesses the other sides of a single photo: a head learned from synthetic people "
        "(default), a 3D GAN of yours, or nothing: then it is refused (docs/single_image.md)",
    )
    build.add_argument("--lift-weights", help="TorchScript file of the 3D GAN")
    build.add_argument("--owner", default="", help="whose face this is, kept in the file")
    build.add_argument("--consent", default="", help="what the owner agreed to, kept in the file")
    build.add_argument(
        "--report",
        metavar="FOLDER",
        help="folder of the page that explains the build (default: me_report beside me.avat3r)",
    )
    build.add_argument("--no-report", action="store_true", help="do not write that page")

    build.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make the fast animation too: some seconds more here, a tenth of the time per frame",
    )

    compiling = _command(
        subparsers, "compile", "Make an avatar's fast animation, and measure how true it is."
    )
    compiling.add_argument("avatar", help=".avat3r file")
    compiling.add_argument("-o", "--output", required=True, help="where to write the .avat3r file")
    compiling.add_argument(
        "--codes", type=int, default=0, help="codes to evaluate; more: truer and slower"
    )
    compiling.add_argument(
        "--prune-below",
        type=float,
        default=0.05,
        metavar="PIXELS",
        help="leave out what covers less in every tried picture; 0 keeps all (default: 0.05)",
    )
    compiling.add_argument(
        "--thin",
        action="store_true",
        help="keep the fast animation only, for clients that just show the avatar",
    )

    track = _command(subparsers, "track", "Track the face in a video into expression codes.")
    track.add_argument("video", help="video file")
    track.add_argument("-o", "--output", required=True, help="where to write the codes (.jsonl)")
    track.add_argument("--no-smoothing", action="store_true", help="raw tracker output")

    render = _command(subparsers, "render", "Render an avatar to a picture or a video.")
    render.add_argument("avatar", help=".avat3r file")
    driver = render.add_mutually_exclusive_group()
    driver.add_argument("--codes", help="code file from `avat3r track`")
    driver.add_argument("--expression", help="comma-separated scores, e.g. jawOpen=0.6,eyeBlink=1")
    render.add_argument(
        "--camera",
        default="0,0,0.6",
        help="'orbit', or yaw,pitch in degrees and distance in metres (default: 0,0,0.6)",
    )
    render.add_argument("-o", "--output", required=True, help=".png or .mp4")
    render.add_argument("--size", type=int, default=512, help="width and height in pixels")
    render.add_argument("--fps", type=float, default=30.0, help="frame rate of a video")
    render.add_argument("--background", default="black", help="black, white or r,g,b in [0, 1]")
    render.add_argument("--backend", default="auto", choices=("auto", "gsplat", "cpu"))
    render.add_argument(
        "--stereo",
        action="store_true",
        help="both eyes side by side for cross-eyed viewing (the right eye's picture is left)",
    )
    render.add_argument("--ipd", type=float, default=0.063, help="distance of the eyes in metres")

    telepresence = _command(
        subparsers, "telepresence", "Run the ROS 2 graph without `ros2 launch`."
    )
    telepresence.add_argument(
        "--source", default="synthetic", help="'synthetic', a camera (0, /dev/video0) or a video"
    )
    telepresence.add_argument(
        "--driver",
        default="camera",
        choices=("camera", "live_link_face", "osc", "face_weights", "recording", "rosbag"),
        help="whose expressions: of the source's image, of UDP packets, of a headset's topic "
        "face_weights, or of --recording",
    )
    telepresence.add_argument(
        "--recording", default="", help="codes that `avat3r track` wrote, or a bag for rosbag"
    )
    telepresence.add_argument("--avatar", default="", help=".avat3r file; built live if absent")
    telepresence.add_argument("--size", type=int, default=512, help="render size in pixels")
    telepresence.add_argument("--stereo", action="store_true", help="render two eyes")
    telepresence.add_argument(
        "--single-process",
        action="store_true",
        help="all nodes in one process, which hand images over by reference",
    )
    telepresence.add_argument(
        "--record", default="", help=".mp4 file of the operator beside what the audience sees"
    )
    telepresence.add_argument(
        "--record-seconds",
        type=float,
        default=0.0,
        help="end after so much film; 0 films until Ctrl-C",
    )
    telepresence.add_argument("--namespace", default="", help="ROS namespace of all nodes")
    telepresence.add_argument("--params", help="ROS parameter file used instead of the shipped one")

    latency = _command(
        subparsers,
        "latency",
        "Measure glass to glass: the ROS 2 graph with an operator whose mouth jumps open and shut.",
    )
    latency.add_argument("--avatar", default="", help=".avat3r file; the operator's own if absent")
    latency.add_argument("--seconds", type=float, default=40.0, help="how long to measure")
    latency.add_argument("--size", type=int, default=512, help="render size in pixels")
    latency.add_argument("--fps", type=float, default=30.0, help="of the operator's camera")
    latency.add_argument(
        "--single-process",
        action="store_true",
        help="all nodes in one process, which hand images over by reference",
    )
    latency.add_argument("--params", help="ROS parameter file used instead of the shipped one")
    latency.add_argument("-o", "--output", default="out/latency", help="folder for the results")

    export = _command(subparsers, "export", "Export an avatar's Gaussians for other viewers.")
    export.add_argument("avatar", help=".avat3r file")
    export.add_argument("--format", default="ply", choices=("ply",))
    export.add_argument("--expression", help="comma-separated scores; neutral if absent")
    export.add_argument("-o", "--output", required=True)

    evaluate = _command(
        subparsers,
        "evaluate",
        "Score weights on made-up people never trained on, or an avatar against unseen photos.",
    )
    evaluate.add_argument("--references", nargs="+", help="photos to build from")
    evaluate.add_argument("--targets", nargs="+", help="photos to predict")
    evaluate.add_argument(
        "--leave-one-out", nargs="+", metavar="PHOTO", help="predict each photo from the others"
    )
    evaluate.add_argument("--preset", default="tiny", help="preset or checkpoint folder")
    evaluate.add_argument("--untrained", action="store_true")
    evaluate.add_argument(
        "--people", type=int, default=16, help="made-up people, where there are no photos"
    )
    evaluate.add_argument(
        "--picture-size",
        type=int,
        default=512,
        metavar="PX",
        help="side of the pictures that are compared, made-up people's photos twice as large "
        "(default: 512, as avatars are shown)",
    )
    evaluate.add_argument(
        "--ict-facekit",
        metavar="FILE",
        help="ICT-FaceKit as .npz: a third of the people are of this head model, not trained on",
    )
    evaluate.add_argument(
        "--quick", action="store_true", help="3 people and 10 s of optimisation: a first look"
    )
    evaluate.add_argument(
        "--people-folder", metavar="DIR", help="keep these people here between runs, 30 MB each"
    )
    evaluate.add_argument(
        "--optimise-seconds",
        type=float,
        default=60.0,
        help="of the per-person optimisation they are compared with; 0 leaves it out",
    )
    evaluate.add_argument(
        "--pictures", type=int, default=6, help="expressions of each person in the report"
    )
    evaluate.add_argument("-o", "--output", required=True, help="folder for scores and pictures")

    generate = _command(subparsers, "generate", "Draw a contact sheet of synthetic heads.")
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument("--count", type=int, default=16)
    generate.add_argument("--size", type=int, default=256, help="pixels per head")
    generate.add_argument("-o", "--output", required=True, help=".png")

    train = _command(subparsers, "train", "Train a preset on synthetic heads made on the fly.")
    train.add_argument("--preset", default="tiny")
    train.add_argument(
        "-o", "--output", required=True, help="run folder (config, log, checkpoints)"
    )
    train.add_argument(
        "--start-from", metavar="WEIGHTS", help="preset or checkpoint folder to train on from"
    )
    train.add_argument("--steps", type=int, default=6000)
    train.add_argument("--seed", type=int, default=0)
    train.add_argument(
        "--people", type=int, default=256, help="different people; 0 never shows anybody twice"
    )
    train.add_argument(
        "--people-folder", metavar="DIR", help="keep people here between runs, 25 MB each"
    )
    train.add_argument(
        "--workers", type=int, default=1, help="processes that make people ahead of time"
    )
    train.add_argument("--device", default="cpu", help="of torch, e.g. cuda (pictures need gsplat)")
    train.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the transformer blocks; bfloat16 pays on GPUs",
    )
    train.add_argument("--tensorboard", action="store_true", help="also write TensorBoard events")
    train.add_argument("--resume", action="store_true", help="continue from the newest checkpoint")

    demo = _command(subparsers, "demo", "Run the whole chain on a synthetic operator over ROS 2.")
    demo.add_argument("-o", "--output", default="out/demo", help="folder for the results")
    demo.add_argument("--smoke", action="store_true", help="short run for continuous integration")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    User errors (bad file, no face, missing part) end in one line on standard error and status 1;
    anything else is a bug and keeps its traceback.
    """
    # MediaPipe's C++ side logs through glog and ignores Python's logging.
    os.environ.setdefault("GLOG_minloglevel", "2")
    # Its matrices are small: BLAS threads cost more than they bring. Set before numpy loads.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    args = make_parser().parse_args(argv)
    if args.command != "train":
        # Threads of torch wait for each other asleep: where others want the cores, too, a build
        # took ten times its processor time. Set before torch loads.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )
    command = importlib.import_module(f"avat3r_ros.commands.{args.command}")
    try:
        return command.run(args)
    except (ValueError, OSError, RuntimeError) as error:
        if args.verbose:
            raise
        sys.stderr.write(f"avat3r {args.command}: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
