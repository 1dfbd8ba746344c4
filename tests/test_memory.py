import gc
import time
import weakref

import bitsandbytes as bnb
import numpy as np
import pytest
import torch

from helpers import memory


@pytest.mark.skipif(torch.cuda.is_available(), reason="measures the process' memory; on a GPU it is the GPU's")
def test_sees_a_peak_that_is_gone_at_the_end():
    with memory.track() as cost:
        block = np.ones(40_000_000)  # 0.30 GiB
        time.sleep(0.3)
        del block
    assert cost.device == "CPU"
    assert 0.25 < cost.peak_gib - cost.start_gib < 0.6
    assert 0.3 <= cost.seconds < 5
    assert "process memory" in str(cost)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_sees_a_peak_on_the_gpu_and_frees_it():
    with memory.track() as cost:
        block = torch.ones(1024, 1024, 128, device="cuda")  # 0.5 GiB
        del block
    assert cost.device == "GPU"
    assert 0.45 < cost.peak_gib - cost.start_gib < 0.6
    memory.free()
    assert torch.cuda.memory_reserved() < 0.4 * memory.GIB


def test_an_error_inside_still_stops_the_clock():
    with pytest.raises(KeyError), memory.track() as cost:
        raise KeyError
    assert cost.seconds > 0


def test_an_empty_model_holds_no_weights_whoever_holds_it():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    weights = [weakref.ref(tensor) for tensor in model.state_dict(keep_vars=True).values()]
    memory.empty(model)
    assert len(weights) == 7 and [one for one in weights if one()] == []
    assert model.state_dict() == {}


def test_embeddings_that_only_the_8_bit_optimizers_know_are_let_go():
    manager = bnb.optim.GlobalOptimManager.get_instance()
    kept, done = torch.nn.Embedding(4, 2), torch.nn.Embedding(4, 2)
    done.model = [done]  # as real ones: in a circle
    for module in (kept, done):
        manager.register_module_override(module, "weight", {"optim_bits": 32})
    watched = weakref.ref(done)
    del done, module
    gc.collect()
    assert watched() is not None
    memory.free()
    assert watched() is None
    assert (kept, "weight", {"optim_bits": 32}) in manager.module_weight_config_triple


def test_a_4_bit_layer_that_only_a_plan_of_its_own_holds_is_let_go():
    layer = bnb.nn.Linear4bit(64, 64, quant_type="nf4").to("cpu")
    layer.weight.quant_state._unsloth_nf4_plan = [layer.weight.t()]
    watched = weakref.ref(layer.weight)
    del layer
    memory.free()
    assert watched() is None


def test_a_4_bit_layer_in_use_keeps_its_weight_and_scales():
    layer = bnb.nn.Linear4bit(64, 64, quant_type="nf4").to("cpu")
    weight, state = layer.weight.clone(), dict(vars(layer.weight.quant_state))
    layer.weight.quant_state._unsloth_gemv_plan = [layer.weight]
    memory.free()
    assert torch.equal(layer.weight, weight) and vars(layer.weight.quant_state) == state
