"""Unsloth is offered torch's kernel for packed rows, and that kernel computes what attention to each sample does."""

from __future__ import annotations

import ast
import inspect
import sys
from importlib import metadata
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import torch.nn.attention.varlen as module

from helpers import attention, runtime


def unsloth_takes():
    """What Unsloth makes of the kernel that is there, by its own code: its module itself cannot load without a GPU."""
    path = next(f for f in metadata.files("unsloth") if f.match("unsloth/utils/attention_dispatch.py")).locate()
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    (found,) = (node for node in tree.body if getattr(node, "name", "") == "_load_torch_varlen_attn")
    names: dict[str, object] = {"os": __import__("os"), "torch": torch}
    exec(compile(ast.Module([found], []), path, "exec"), names)
    return names["_load_torch_varlen_attn"]()


@pytest.fixture
def kernel(monkeypatch):
    """A kernel as torch 2.11 has it, which keeps what it is called with; torch's own again afterwards."""
    called = []

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        called.append((query, max_k, scale, window_size))
        return "attended"

    monkeypatch.setattr(module, "varlen_attn", varlen_attn)
    return called


def test_unsloth_takes_the_kernel_once_it_is_offered(monkeypatch, kernel):
    monkeypatch.delenv("UNSLOTH_TORCH_VARLEN", raising=False)
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    assert unsloth_takes() is None
    assert attention.offer_packed()
    offered = unsloth_takes()
    assert offered("q", "k", "v", 1, 2, 3, 4, scale=0.5, window_size=(-1, 0), enable_gqa=True) == "attended"
    assert offered("q", "k", "v", 1, 2, 3, 4) == "attended"
    assert kernel == [("q", 4, 0.5, (-1, 0)), ("q", 4, None, (-1, -1))]
    assert attention.offer_packed() and unsloth_takes() is offered  # the cell runs twice


@pytest.mark.parametrize("there", ["older", "newer", "none"])
def test_other_kernels_stay_as_they_are(monkeypatch, there):
    kernels = {
        "older": lambda query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False: None,
        "newer": lambda query, *, window_size=(-1, -1), enable_gqa=False: None,
    }
    if there == "none":
        monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", None)
    else:
        monkeypatch.setattr(module, "varlen_attn", kernels[there])
    assert attention.offer_packed() == (there == "newer")
    if there != "none":
        assert module.varlen_attn is kernels[there]


def test_a_lesson_that_imports_unsloth_offers_it(monkeypatch, kernel):
    monkeypatch.setattr(runtime, "_session_problems", lambda unsloth: [])
    runtime.require()
    assert "enable_gqa" not in inspect.signature(module.varlen_attn).parameters
    runtime.require(unsloth=True)
    assert "enable_gqa" in inspect.signature(module.varlen_attn).parameters


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] < 8, reason="needs a GPU from Ampere on"
)
def test_the_kernel_attends_within_each_sample_and_shares_key_value_heads():
    assert attention.offer_packed()
    lengths, heads, shared, width = [5, 64, 1, 130], 8, 2, 64
    torch.manual_seed(0)
    once = [torch.randn(sum(lengths), count, width, device="cuda") for count in (heads, shared, shared)]
    sides = [[part.bfloat16().requires_grad_() for part in once] for _ in range(2)]
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device="cuda")
    packed = module.varlen_attn(*sides[0], ends, ends, max(lengths), max(lengths), window_size=(-1, 0), enable_gqa=True)
    apart = torch.cat(
        [
            torch.nn.functional.scaled_dot_product_attention(
                *(part.transpose(0, 1)[None] for part in parts), is_causal=True, enable_gqa=True
            )[0].transpose(0, 1)
            for parts in zip(*(side.split(lengths) for side in sides[1]), strict=True)
        ]
    )
    torch.testing.assert_close(packed, apart, atol=2e-2, rtol=2e-2)
    for result in (packed, apart):
        result.float().square().sum().backward()
    for one, other in zip(*sides, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=5e-2, rtol=5e-2)
