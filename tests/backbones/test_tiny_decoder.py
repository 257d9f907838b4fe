"""A distilled decoder in place of the autoencoder's."""

from functools import partialmethod

import pytest
import torch
from diffusers import AutoencoderTiny

from zsvss.backbones.embedded import Embedded


def write_decoder(folder, num_blocks=4):
    widths = (8,) * num_blocks
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = AutoencoderTiny(
            latent_channels=16,
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1,) * num_blocks,
            num_decoder_blocks=(1,) * num_blocks,
        )
    tiny.save_pretrained(folder)
    return tiny.eval()


@pytest.mark.parametrize("compiled", [False, True])
def test_the_tiny_decoder_decodes(tmp_path, monkeypatch, compiled):
    monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    tiny = write_decoder(tmp_path)
    backbone = Embedded(tiny_decoder=str(tmp_path), compile_decoder=compiled)
    backbone.check()
    backbone.load()
    latents = torch.randn(2, 16, 8, 8)
    torch._dynamo.utils.counters.clear()
    with torch.no_grad():
        expected = tiny.decode(latents).sample
    torch.testing.assert_close(backbone.decode(latents), expected, rtol=0, atol=1e-5)
    assert (torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0) == compiled
    assert backbone.fingerprint() != Embedded().fingerprint()


def test_a_decoder_of_another_stride_is_refused(tmp_path):
    write_decoder(tmp_path, num_blocks=3)
    with pytest.raises(ValueError, match=r"tiny_decoder.*does not fit"):
        Embedded(tiny_decoder=str(tmp_path)).check()
