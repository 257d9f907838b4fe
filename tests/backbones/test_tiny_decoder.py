"""A distilled decoder in place of the autoencoder's."""

import pytest
import torch
from diffusers import AutoencoderTiny

from zsvss.backbones.embedded import Embedded


def write_decoder(folder, num_blocks=3):
    widths = (8,) * num_blocks
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny = AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=(1,) * num_blocks,
            num_decoder_blocks=(1,) * num_blocks,
        )
    tiny.save_pretrained(folder)
    return tiny.eval()


def test_the_tiny_decoder_decodes(tmp_path):
    tiny = write_decoder(tmp_path)
    backbone = Embedded(tiny_decoder=str(tmp_path))
    backbone.check()
    backbone.load()
    latents = torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        expected = tiny.decode(latents).sample
    torch.testing.assert_close(backbone.decode(latents), expected, rtol=0, atol=1e-5)
    assert backbone.fingerprint() != Embedded().fingerprint()


def test_a_decoder_of_another_stride_is_refused(tmp_path):
    write_decoder(tmp_path, num_blocks=4)
    with pytest.raises(ValueError, match=r"tiny_decoder.*does not fit"):
        Embedded(tiny_decoder=str(tmp_path)).check()
