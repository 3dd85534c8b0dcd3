from __future__ import annotations

import numpy as np
import torch

from ncf.config import ModelConfig
from ncf.models.fusion import FieldAttention, FieldTransformer, fusion

CONFIG = ModelConfig(inputs=("user", "movie", "genres"), embedding_dim=4)
FIELDS = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))


def test_concatenation_keeps_the_order_of_the_inputs() -> None:
    assert torch.equal(fusion(CONFIG)(FIELDS), torch.cat(list(FIELDS.unbind(1)), dim=1))


def test_attention_by_hand() -> None:
    torch.manual_seed(1)
    attention = FieldAttention(CONFIG)
    with torch.no_grad():
        found = attention(FIELDS).numpy()
        values = {name: value.numpy() for name, value in attention.state_dict().items()}
    weight, bias = values["score.0.weight"], values["score.0.bias"]
    out = values["score.2.weight"][0]
    for row, fields in zip(found, FIELDS.numpy(), strict=True):
        scores = np.array([out @ np.tanh(weight @ field + bias) for field in fields])
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = np.concatenate([3 * w * f for w, f in zip(weights, fields, strict=True)])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)


def test_equal_attention_does_not_change_the_inputs() -> None:
    attention = FieldAttention(CONFIG)
    with torch.no_grad():
        attention.get_parameter("score.2.weight").zero_()
        torch.testing.assert_close(attention(FIELDS), FIELDS.flatten(1))


def test_the_transformer_distinguishes_inputs_and_treats_rows_independently() -> None:
    torch.manual_seed(1)
    transformer = FieldTransformer(CONFIG).eval()
    with torch.no_grad():
        found = transformer(FIELDS)
        swapped = transformer(FIELDS[:, [1, 0, 2]])
        assert found.shape == (5, 12)
        torch.testing.assert_close(transformer(FIELDS.flip(0)), found.flip(0))
        # Without the places, swapping two inputs would swap their outputs.
        assert not torch.allclose(swapped[:, :4], found[:, 4:8], atol=1e-3)
        transformer.position.zero_()
        swapped = transformer(FIELDS[:, [1, 0, 2]])
        torch.testing.assert_close(swapped[:, :4], transformer(FIELDS)[:, 4:8])
