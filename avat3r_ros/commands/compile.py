"""`avat3r compile`: an avatar to one that is animated many times faster."""

import argparse

from tqdm import tqdm

from avat3r_ros.animation import CompileConfig, compile_avatar, thin_avatar
from avat3r_ros.animation.compiled import KEY
from avat3r_ros.avatar_file import load_avatar, save_avatar
from avat3r_ros.commands._arguments import output_path


def run(args: argparse.Namespace) -> int:
    """Compile, save and tell what was measured."""
    output = output_path(args.output, ".avat3r")
    config = CompileConfig(num_codes=args.codes, prune_below_px=args.prune_below)
    avatar = load_avatar(args.avatar)
    with tqdm(total=100, unit="%", bar_format="{desc:<24}{percentage:3.0f}%|{bar}|") as bar:

        def progress(stage: str, fraction: float) -> None:
            bar.set_description_str(stage)
            bar.update(round(100 * fraction) - bar.n)

        avatar = compile_avatar(avatar, config, progress=progress)
    avatar = save_avatar(thin_avatar(avatar) if args.thin else avatar, output)
    about = avatar.config[KEY]
    accuracy = about["accuracy"]
    pairs = ", ".join(f"{name} {error:.2f} mm" for name, error in accuracy["worst_pairs"][:3])
    print(
        f"against the full path: {accuracy['mean_psnr_db']:.1f} dB (worst picture "
        f"{accuracy['min_psnr_db']:.1f}), moving points off by "
        f"{accuracy['mean_moving_error_mm']:.3f} mm on average"
    )
    if pairs:
        print(f"worst pairs: {pairs}")
    megabytes = output.stat().st_size / 1e6
    print(
        f"{output}: {megabytes:.1f} MB, id {avatar.avatar_id[:12]}, {about['num_moving']} moving "
        f"Gaussians, {about['num_pruned']} pruned"
    )
    return 0
