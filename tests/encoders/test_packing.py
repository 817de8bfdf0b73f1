"""Packed linear layers give what they gave before, and are left alone where that is not sure."""

import numpy as np
import pytest
import torch
import transformers

from tsds_pipeline.encoders import packing
from tsds_pipeline.encoders.packing import pack

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


def packs_here() -> bool:
    return packing._can_pack({torch.float32})


@pytest.fixture(autouse=True)
def _repeatable():
    torch.manual_seed(0)


@pytest.mark.parametrize("shape", [(1, 32), (7, 32), (3, 5, 32), (1500, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_the_same(shape, bias):
    layer, x = torch.nn.Linear(32, 48, bias=bias), torch.randn(shape)
    with torch.inference_mode():
        expected = layer(x)
        assert pack(torch.nn.Sequential(layer)) == packs_here()
        np.testing.assert_allclose(layer(x), expected, atol=1e-6)
        if packs_here():
            layer.weight.zero_()  # not what is multiplied with any more
            np.testing.assert_allclose(layer(x), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "mpnet"])
def test_models_give_the_same(kind):
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **TINY)).eval()
    ids = torch.arange(5, 35).view(2, 15)
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        assert bool(pack(model)) == packs_here()
        found = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_attention_that_reads_its_weights_itself_gives_the_same():
    model = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    x = torch.randn(2, 5, 32)
    with torch.inference_mode():
        expected = model(x)
        pack(model)
        np.testing.assert_allclose(model(x), expected, atol=1e-5)


def test_what_is_left_alone(monkeypatch):
    assert pack(torch.nn.Sequential(torch.nn.Linear(4, 4).half())) == 0
    assert pack(torch.nn.Sequential(torch.nn.LayerNorm(4))) == 0
    monkeypatch.setattr(packing, "MOST_BYTES", 4 * 4 * 4 - 1)
    assert pack(torch.nn.Sequential(torch.nn.Linear(4, 4))) == 0
    monkeypatch.undo()
    monkeypatch.setattr(packing.platform, "machine", lambda: "arm64")
    assert pack(torch.nn.Sequential(torch.nn.Linear(4, 4))) == 0
