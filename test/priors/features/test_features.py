"""Feature back-ends on tiny random networks of the real classes."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from avat3r_ros.priors.features import FeatureExtractor, load_backbone, load_sapiens
from avat3r_ros.priors.networks import APACHE, IMAGENET_MEAN, Normalisation, resized

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")

IMAGES = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(0))


# ── Sapiens as TorchScript ───────────────────────────────────────────────────────────────────


class Encoder(torch.nn.Module):
    """A patch embedding and one convolution; returns a tuple like the published encoders."""

    def __init__(self, channels=20, stride=16):
        super().__init__()
        self.embed = torch.nn.Conv2d(3, channels, stride, stride)
        self.mix = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return (self.mix(self.embed(x)),)


@pytest.fixture
def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Encoder().eval()


@pytest.fixture
def script(encoder, tmp_path):
    path = tmp_path / "sapiens.pt2"
    torch.jit.trace(encoder, torch.zeros(1, 3, 64, 64)).save(path)
    return path


def test_sapiens_file_gives_the_features_of_normalised_images(script, encoder):
    extractor = load_sapiens(script, input_size=64)
    assert (extractor.channels, extractor.stride) == (20, 16)
    features = extractor.extract(IMAGES)
    assert features.shape == (3, 20, 4, 4)
    large = torch.nn.functional.interpolate(IMAGES, (64, 64), mode="bicubic", antialias=True)
    mean, std = torch.tensor([123.5, 116.5, 103.5]), torch.tensor([58.5, 57.0, 57.5])
    pixels = (255 * large.clamp(0, 1) - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        assert torch.allclose(features, encoder(pixels)[0], atol=1e-5)


def test_published_sizes_are_named_and_their_licence_is_told(tmp_path):
    path = tmp_path / "a.pt2"
    torch.jit.trace(Encoder(1536), torch.zeros(1, 3, 32, 32)).save(path)
    extractor = load_sapiens(path)
    assert extractor.name == "sapiens 1B" and extractor.input_size == 1024
    assert "CC BY-NC 4.0" in str(extractor.licence) and "non-commercial" in str(extractor.licence)


def test_wrong_sapiens_files_are_refused(script, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.pt2: no such file"):
        load_sapiens(tmp_path / "absent.pt2")
    script.write_bytes(script.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a TorchScript file, or damaged"):
        load_sapiens(script)
    torch.jit.trace(torch.nn.Linear(3, 2), torch.zeros(1, 3)).save(tmp_path / "linear.pt2")
    with pytest.raises(ValueError, match="no patch embedding found"):
        load_sapiens(tmp_path / "linear.pt2")
    torch.jit.trace(torch.nn.Conv2d(3, 8, 3), torch.zeros(1, 3, 64, 64)).save(tmp_path / "c.pt2")
    with pytest.raises(ValueError, match=r"expected features \(1, 8, 3, 3\), got \(1, 8, 7, 7\)"):
        load_sapiens(tmp_path / "c.pt2", input_size=9).extract(IMAGES)


# ── the contract ─────────────────────────────────────────────────────────────────────────────


def extractor_of(network, **changes):
    fields = {
        "name": "toy", "channels": 3, "stride": 8, "input_size": 16, "licence": APACHE,
        "normalisation": Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        "network": network, "device": torch.device("cpu"),
    }  # fmt: skip
    return FeatureExtractor(**fields | changes)


def test_broken_networks_are_named():
    with pytest.raises(ValueError, match="toy: features contain nan"):
        extractor_of(lambda x: x[..., ::8, ::8] * torch.nan).extract(IMAGES)
    with pytest.raises(ValueError, match="multiple of 8, got 20"):
        extractor_of(lambda x: x, input_size=20)


def test_resizing_keeps_values_in_range():
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:] = 1
    larger = resized(images, 32, 24)
    assert larger.shape[-2:] == (32, 24)
    assert larger.min() >= 0 and larger.max() <= 1
    assert resized(images, 8, 8) is images


def test_progress_is_told_and_features_may_be_trained_on():
    fractions = []
    features = extractor_of(lambda x: x[..., ::8, ::8]).extract(IMAGES, progress=fractions.append)
    assert fractions == pytest.approx([1 / 3, 2 / 3, 1])
    assert not features.is_inference()


# ── DINOv2 and Sapiens2 of the package transformers ──────────────────────────────────────────


@pytest.fixture(scope="module")
def hub():
    return pytest.importorskip(
        "transformers", reason="needs transformers: pip install transformers==5.23.0"
    )


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture
def folders(hub, tmp_path):
    """Random DINOv2 and Sapiens2 in folders of the hub, and the models themselves."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {
            "dinov2": hub.Dinov2Model(hub.Dinov2Config(**SIZES, image_size=56, patch_size=14)),
            "sapiens2": hub.Sapiens2Model(
                hub.Sapiens2Config(
                    **SIZES, intermediate_size=64, image_size=[64, 48], patch_size=16
                )
            ),
        }
    for kind, model in models.items():
        model.eval().save_pretrained(tmp_path / kind)
    return tmp_path, models


@pytest.mark.parametrize(("kind", "size", "side"), [("dinov2", 56, 4), ("sapiens2", 64, 4)])
def test_features_are_the_last_tokens_of_the_model(folders, kind, size, side):
    folder, models = folders
    extractor = load_backbone(kind, folder / kind)
    assert (extractor.channels, extractor.input_size) == (32, size)
    features = extractor.extract(IMAGES)
    large = torch.nn.functional.interpolate(IMAGES, (size, size), mode="bicubic", antialias=True)
    pixels = Normalisation(IMAGENET_MEAN, (0.229, 0.224, 0.225))(large.clamp(0, 1))
    with torch.no_grad():
        tokens = models[kind](pixels).last_hidden_state[:, -(side**2) :]
    assert torch.allclose(features.flatten(2).transpose(1, 2), tokens, atol=1e-4)


def test_larger_inputs_give_finer_features(folders):
    extractor = load_backbone("dinov2", folders[0] / "dinov2", input_size=112)
    assert extractor.extract(IMAGES[:1]).shape == (1, 32, 8, 8)


def test_the_folders_own_normalisation_is_used(folders):
    folder = folders[0] / "dinov2"
    settings = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.25, 0.25, 0.25]}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert load_backbone("dinov2", folder).normalisation.mean == (0.5, 0.5, 0.5)
    (folder / "preprocessor_config.json").write_text('{"image_mean": [1, 2]}')
    with pytest.raises(ValueError, match="expected 3 numbers as image_mean"):
        load_backbone("dinov2", folder)


def test_licences_are_told(folders):
    assert str(load_backbone("dinov2", folders[0] / "dinov2").licence).startswith("Apache-2.0")
    sapiens2 = str(load_backbone("sapiens2", folders[0] / "sapiens2").licence)
    assert "Sapiens2 License" in sapiens2 and "biometric" in sapiens2


def test_wrong_folders_are_refused(folders, tmp_path):
    folder = folders[0] / "dinov2"
    with pytest.raises(ValueError, match=r"expected a network of \['sapiens2'\], got 'dinov2'"):
        load_backbone("sapiens2", folder)
    with pytest.raises(ValueError, match="unknown backbone 'clip'"):
        load_backbone("clip", folder)
    weights = folder / "model.safetensors"
    state = load_file(weights)
    kept = {name: value for name, value in state.items() if "layernorm.bias" not in name}
    save_file(kept, weights, {"format": "pt"})
    with pytest.raises(ValueError, match=r"lack 1 tensors of Dinov2Backbone, such as layernorm"):
        load_backbone("dinov2", folder)
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="dinov2: cannot be read as Dinov2Backbone"):
        load_backbone("dinov2", folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"no model.safetensors \(pickled weights"):
        load_backbone("dinov2", folder)


def test_folders_are_checked_before_the_package_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_backbone("dinov2", tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no config.json"):
        load_backbone("dinov2", tmp_path)
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="config.json is not JSON"):
        load_backbone("dinov2", tmp_path)


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(RuntimeError, match="pip install transformers==5.23.0"):
        load_backbone("dinov2", tmp_path)
