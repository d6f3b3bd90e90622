import dataclasses
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from avat3r_ros.data.sampling import TRAINING_SEEDS
from avat3r_ros.model import Avat3r, load_network, preset
from avat3r_ros.training import crowd as crowd_module
from avat3r_ros.training import trainer
from avat3r_ros.training.config import TrainingConfig, learning_rate
from avat3r_ros.training.crowd import Crowd
from avat3r_ros.training.steps import StepConfig, step_loss
from avat3r_ros.training.trainer import train

STEP = StepConfig(points=150, codes=2, targets=1)
CONFIG = TrainingConfig(
    preset="debug",
    steps=6,
    geometry_share=0.5,
    people=0,
    crowd_size=2,
    steps_per_person=4,
    workers=0,
    warmup_steps=2,
    learning_rate=1e-3,
    evaluation_people=0,
    step=STEP,
)


@pytest.fixture
def crowd(monkeypatch, small_person):
    """Everybody is the one small person; who would have been made is noted."""
    made = []

    def quickly(seed, *arguments, **options):
        made.append(seed)
        return small_person

    monkeypatch.setattr(crowd_module, "make_person", quickly)
    return made


def test_loss_falls_on_one_person(small_person, template):
    torch.manual_seed(0)
    network = Avat3r(preset("debug"), template)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    losses = []
    for step in range(48):
        loss, scalars = step_loss(
            network,
            [small_person],
            STEP,
            np.random.default_rng(step % 4),
            with_pictures=False,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])
    assert scalars["moving_mm"] < scalars["base_moving_mm"]


def test_both_losses_reach_every_parameter(small_person, template):
    torch.manual_seed(0)
    network = Avat3r(preset("debug"), template)
    # Last layers that are zero keep gradients from all layers before them.
    for layer in network.output_layers():
        torch.nn.init.normal_(layer.weight, std=0.01)
    loss, scalars = step_loss(
        network, [small_person], STEP, np.random.default_rng(0), with_pictures=True
    )
    loss.backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not silent
    assert {"geometry", "l1", "ssim", "coverage", "growth", "fading"} <= set(scalars)


def test_local_structure_joins_late(crowd, template, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    config = dataclasses.replace(CONFIG, geometry_share=0.0, perceptual_from=0.5)
    train(config, tmp_path / "run", template=template)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert ["perceptual" in line for line in lines] == [False] * 3 + [True] * 3
    assert all(0 < line["perceptual"] < 1 for line in lines[3:])


def test_training_starts_from_other_weights(crowd, template, tmp_path):
    first = train(CONFIG, tmp_path / "first", template=template)
    config = dataclasses.replace(
        CONFIG,
        steps=1,
        start_from=str(first),
        learning_rate=1e-9,
        place_share=1.0,
        opacity_share=1.0,
    )
    second = train(config, tmp_path / "second", template=template)
    before, after = (load_network(one, template=template).state_dict() for one in (first, second))
    for name, value in before.items():
        assert torch.allclose(value, after[name], atol=1e-6), name
    with pytest.raises(ValueError, match="another network"):
        other = dataclasses.replace(preset("debug"), decoder_features=8)
        train(dataclasses.replace(config, network=other), tmp_path / "third", template=template)


def test_blocks_in_bfloat16_learn_the_same_up_to_its_rounding(crowd, template, tmp_path):
    runs = {
        precision: load_network(
            train(
                dataclasses.replace(CONFIG, precision=precision), tmp_path / precision,
                template=template,
            ),
            template=template,
        ).state_dict()
        for precision in ("float32", "bfloat16")
    }  # fmt: skip
    exact, rounded = (
        runs[name]["expression_path.upsampler.heads.position.weight"] for name in runs
    )
    assert not torch.equal(exact, rounded)
    assert torch.cosine_similarity(exact.flatten(), rounded.flatten(), dim=0) > 0.9
    with pytest.raises(ValueError, match="float16"):
        dataclasses.replace(CONFIG, precision="float16")


def test_a_resumed_run_equals_a_straight_one(crowd, template, tmp_path):
    straight = train(CONFIG, tmp_path / "straight", template=template)
    train(CONFIG, tmp_path / "resumed", template=template, stop_after=3)
    resumed = train(CONFIG, tmp_path / "resumed", template=template, resume=True)
    one, other = load_network(straight, template=template), load_network(resumed, template=template)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    lines = (tmp_path / "resumed" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [3, 6]
    assert not one.is_untrained()


def test_places_and_opacities_keep_shares_of_their_changes_in_the_end(crowd, template, tmp_path):
    """The checkpoint keeps them whole, so that a longer run goes on from there."""
    config = dataclasses.replace(CONFIG, place_share=0.5, opacity_share=0.25)
    shares = {"along_ray": 0.5, "position": 0.5, "opacity": 0.25}
    folder = train(config, tmp_path / "run", template=template)
    shipped = load_network(folder, template=template).state_dict()
    learned = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["average"]
    for name in ("along_ray", "position", "log_scale", "color", "opacity"):
        key = f"evidence_decoder.heads.{name}.weight"
        assert learned[key].any()
        assert torch.allclose(shipped[key], shares.get(name, 1.0) * learned[key], atol=1e-7), name


def test_nobody_waits_for_people_who_are_not_wanted_yet(
    small_person, template, tmp_path, monkeypatch
):
    """Workers keep whom they made; who is far behind in their queue is made by the trainer."""
    wanted = threading.Event()

    def patiently(seed, *arguments, **options):
        if threading.current_thread() is not threading.main_thread():
            assert wanted.wait(30.0), "the trainer waits for the worker"
        return small_person

    monkeypatch.setattr(crowd_module, "make_person", patiently)
    pool = lambda workers, **_: ThreadPoolExecutor(workers)  # noqa: E731
    monkeypatch.setattr(crowd_module, "ProcessPoolExecutor", pool)
    config = preset("debug")
    with Crowd(
        config, "fitted", size=4, steps_per_person=1000, people=4, folder=tmp_path, workers=1
    ) as people:
        people.prepare(0)
        seed = people.seed_of(3, 0)
        assert people.person(3, 0).seed == seed
        assert [path.stem for path in tmp_path.glob("*.safetensors")] == [str(seed)]
        wanted.set()
        assert people.person(0, 0).seed == people.seed_of(0, 0)
    assert tmp_path.joinpath(f"{people.seed_of(0, 0)}.safetensors").is_file()


def test_a_run_is_not_overwritten_nor_continued_as_another(crowd, template, tmp_path):
    train(CONFIG, tmp_path, template=template, stop_after=1)
    with pytest.raises(ValueError, match="holds a run already"):
        train(CONFIG, tmp_path, template=template)
    other = dataclasses.replace(CONFIG, learning_rate=2e-3)
    with pytest.raises(ValueError, match="learning_rate"):
        train(other, tmp_path, template=template, resume=True)


def test_a_loss_that_is_not_finite_changes_nothing_and_ends_the_run(
    crowd, template, tmp_path, monkeypatch
):
    def broken(network, *arguments, **options):
        return sum(p.sum() for p in network.parameters()) * float("nan"), {}

    monkeypatch.setattr(trainer, "step_loss", broken)
    config = dataclasses.replace(CONFIG, steps=50)
    with pytest.raises(RuntimeError, match="not finite"):
        train(config, tmp_path, template=template)
    monkeypatch.setattr(trainer, "MAX_BAD_STEPS", 1000)
    train(config, tmp_path / "short", template=template, stop_after=2)
    state = torch.load(tmp_path / "short" / trainer.CHECKPOINT, weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["network"].values())


def test_an_interrupted_run_leaves_a_checkpoint(crowd, template, tmp_path, monkeypatch):
    real, done = trainer.step_loss, []

    def ended_at_the_third(*arguments, **options):
        done.append(1)
        if len(done) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)

    monkeypatch.setattr(trainer, "step_loss", ended_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, tmp_path, template=template)
    assert torch.load(tmp_path / trainer.CHECKPOINT, weights_only=True)["step"] == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_crowd_changes_one_by_one_and_is_never_held_out(crowd):
    with Crowd(preset("debug"), "fitted", size=3, steps_per_person=30) as together:
        seeds = [[together.seed_of(slot, step) for slot in range(3)] for step in range(120)]
        changes = [sum(a != b for a, b in zip(one, two, strict=True))
                   for one, two in zip(seeds, seeds[1:], strict=False)]  # fmt: skip
        assert max(changes) == 1
        assert sum(changes) == 11  # one in ten steps
        assert all(seed in TRAINING_SEEDS for now in seeds for seed in now)
        assert all(len(set(now)) == 3 for now in seeds)
        together.person(0, 0)
        together.person(0, 1)
        together.person(0, 30)
        assert crowd == [seeds[0][0], seeds[30][0]]
        with pytest.raises(ValueError, match="slot"):
            together.seed_of(3, 0)


def test_the_learning_rate_warms_up_and_falls():
    config = dataclasses.replace(CONFIG, steps=100, warmup_steps=10)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(1e-4)
    assert max(rates) == rates[10] == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(5e-5, rel=0.05)


@pytest.mark.parametrize(
    "change",
    [{"steps": 0}, {"crowd_size": 5}, {"ema": 1.5}, {"learning_rate": 0.0}, {"seed": -1}],
)
def test_wrong_settings_are_refused(change):
    with pytest.raises(ValueError, match="expected"):
        dataclasses.replace(CONFIG, **change)
