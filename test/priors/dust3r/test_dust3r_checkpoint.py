"""Both published forms load; anything else is refused with a sentence, and no file runs code."""

import argparse
import os

import pytest
import torch
from safetensors.torch import save_file

from avat3r_ros.priors.dust3r import Dust3rWeightsError, load_dust3r


def with_aliases(state):
    """The state with both names of the tensors that have two, as the authors' pickle has it."""
    out = dict(state)
    for head in (1, 2):
        for level in range(4):
            stem = f"downstream_head{head}.dpt.scratch"
            out[f"{stem}.layer_rn.{level}.weight"] = state[f"{stem}.layer{level + 1}_rn.weight"]
    return out


def save_pth(state, path, **more):
    settings = argparse.Namespace(model="AsymmetricCroCo3DStereo(...)", lr=1e-4)
    torch.save({"model": state, "args": settings, **more}, path)
    return path


def outputs(network):
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network.decode(network.encode(images), torch.tensor([[0, 1]]), 32, 48)


def assert_same(network, other):
    a, b = outputs(network), outputs(other)
    assert torch.equal(a.points_second, b.points_second)
    assert torch.equal(a.confidence_first, b.confidence_first)


def test_authors_pickle_and_safetensors_without_aliases_load_alike(
    tiny_network, tiny_config, tmp_path
):
    state = tiny_network.state_dict()
    pth = save_pth(with_aliases(state), tmp_path / "a.pth")
    safe = tmp_path / "a.safetensors"
    save_file(state, safe)
    for path in (pth, safe):
        assert_same(load_dust3r(path, tiny_config), tiny_network)


def test_either_alias_will_do(tiny_network, tiny_config, tmp_path):
    state = {
        name: value
        for name, value in with_aliases(tiny_network.state_dict()).items()
        if not name.endswith("_rn.weight")
    }
    path = save_pth(state, tmp_path / "a.pth")
    assert_same(load_dust3r(path, tiny_config), tiny_network)


def test_aliases_that_differ_are_refused(tiny_network, tiny_config, tmp_path):
    state = with_aliases(tiny_network.state_dict())
    name = "downstream_head2.dpt.scratch.layer_rn.1.weight"
    state[name] = state[name] + 1
    with pytest.raises(Dust3rWeightsError, match="layer_rn.1.weight .* differ"):
        load_dust3r(save_pth(state, tmp_path / "a.pth"), tiny_config)


def test_one_decoder_serves_as_both(tiny_network, tiny_config, tmp_path):
    state = {k: v for k, v in tiny_network.state_dict().items() if not k.startswith("dec_blocks2")}
    network = load_dust3r(save_pth(state, tmp_path / "a.pth"), tiny_config)
    for a, b in zip(network.dec_blocks.parameters(), network.dec_blocks2.parameters(), strict=True):
        assert torch.equal(a, b)


def test_loaded_network_is_ready_to_use(tiny_network, tiny_config, tmp_path):
    state = {name: value.half() for name, value in tiny_network.state_dict().items()}
    network = load_dust3r(save_pth(state, tmp_path / "a.pth"), tiny_config)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert all(p.dtype == torch.float32 for p in network.parameters())


class Trap:
    """Unpickling it leaves a mark on disk."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tiny_network, tiny_config, tmp_path):
    mark = tmp_path / "was_run"
    path = save_pth(tiny_network.state_dict(), tmp_path / "a.pth", extra=Trap(mark))
    with pytest.raises(Dust3rWeightsError, match=r"would run code: it calls \S*mkdir"):
        load_dust3r(path, tiny_config)
    assert not mark.exists()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_truncated_files_are_refused(tiny_network, tiny_config, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        save_pth(tiny_network.state_dict(), path)
    else:
        save_file(tiny_network.state_dict(), path)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(Dust3rWeightsError, match="truncated"):
        load_dust3r(path, tiny_config)


def test_wrong_content_is_named(tiny_network, tiny_config, tmp_path):
    state = tiny_network.state_dict()

    def load(changed):
        return load_dust3r(save_pth(changed, tmp_path / "a.pth"), tiny_config)

    with pytest.raises(Dust3rWeightsError, match=r"lacks enc_norm.bias, has besides nothing"):
        load({k: v for k, v in state.items() if k != "enc_norm.bias"})
    with pytest.raises(Dust3rWeightsError, match=r"mask_token \(1, 1, 9\) instead of \(1, 1, 24\)"):
        load(state | {"mask_token": torch.zeros(1, 1, 9)})
    with pytest.raises(Dust3rWeightsError, match="linear head"):
        load(
            {k: v for k, v in state.items() if "downstream_head1" not in k}
            | {"downstream_head1.proj.weight": torch.zeros(2)}
        )
    with pytest.raises(Dust3rWeightsError, match="enc_norm.bias contains nan"):
        load(state | {"enc_norm.bias": state["enc_norm.bias"] * torch.nan})
    with pytest.raises(Dust3rWeightsError, match="expected {'model': tensors by name}, got list"):
        torch.save([1, 2], tmp_path / "b.pth")
        load_dust3r(tmp_path / "b.pth", tiny_config)
    with pytest.raises(FileNotFoundError, match="expected DUSt3R weights"):
        load_dust3r(tmp_path / "absent.pth", tiny_config)
