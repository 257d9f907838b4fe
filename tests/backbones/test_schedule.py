"""What is taken from a scheduler's config, against diffusers' own scheduler, and what is refused."""

import json
import shutil

import pytest
import torch
from diffusers import EulerDiscreteScheduler

from zsvss.backbones.schedule import check_kind, prediction_type, training_sigmas
from zsvss.backbones.stable_diffusion import StableDiffusion
from zsvss.backbones.stable_video_diffusion import StableVideoDiffusion

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "timestep_spacing": "trailing"}


@pytest.mark.parametrize("num_steps", [1, 7, 16, 25, 50])
def test_schedule(tiny_weights, num_steps):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), num_steps=num_steps, first_step=num_steps - 1)
    scheduler = EulerDiscreteScheduler(**SCHEDULE)
    scheduler.set_timesteps(num_steps)
    assert backbone.timesteps == scheduler.timesteps.tolist()
    torch.testing.assert_close(torch.tensor(backbone.sigmas), scheduler.sigmas, rtol=1e-5, atol=0)  # theirs is float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("step", [22, 24])
def test_step(editable_weights, edit_config, prediction_type, step):
    edit_config("scheduler/scheduler_config.json", prediction_type=prediction_type)
    backbone = StableDiffusion.from_pretrained(str(editable_weights))
    assert backbone.prediction_type == prediction_type
    scheduler = EulerDiscreteScheduler(prediction_type=prediction_type, **SCHEDULE)
    scheduler.set_timesteps(25)
    generator = torch.Generator().manual_seed(0)
    x, unconditional, conditional = torch.randn(3, 2, 4, 8, 8, generator=generator)
    scaled = scheduler.scale_model_input(x, scheduler.timesteps[step])
    torch.testing.assert_close(x / (backbone.sigmas[step] ** 2 + 1) ** 0.5, scaled)
    guided = unconditional + 5 * (conditional - unconditional)
    expected = scheduler.step(guided, scheduler.timesteps[step], x).prev_sample
    ours = backbone.euler(x, torch.stack([unconditional, conditional]), step, torch.arange(2), 2)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_setting_overrides_the_scheduler(tiny_weights):
    backbone = StableDiffusion.from_pretrained(str(tiny_weights), prediction_type="v_prediction")
    assert backbone.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"prediction_type": "sample"}, "prediction_type 'sample' is not known"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "'squaredcos_cap_v2' must be 'scaled_linear' or 'linear'"),
    ],
)
def test_schedules_that_are_not_known(editable_weights, edit_config, entries, problem):
    edit_config("scheduler/scheduler_config.json", **entries)
    with pytest.raises(ValueError, match=problem):
        StableDiffusion.from_pretrained(str(editable_weights))


@pytest.mark.parametrize(
    "entries",
    [
        {"rescale_betas_zero_snr": True},
        {"trained_betas": [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064]},
        {"beta_start": 0.001, "beta_end": 0.02, "num_train_timesteps": 100},
    ],
    ids=lambda entries: next(iter(entries)),
)
def test_the_training_noise_is_the_checkpoints_own(editable_weights, edit_config, entries):
    config = {**SCHEDULE, "prediction_type": "v_prediction", **entries}
    edit_config("scheduler/scheduler_config.json", **config)
    num_steps = 5
    backbone = StableDiffusion.from_pretrained(str(editable_weights), num_steps=num_steps, first_step=2)
    if "trained_betas" in entries:
        config["num_train_timesteps"] = len(entries["trained_betas"])
    scheduler = EulerDiscreteScheduler(**config)
    scheduler.set_timesteps(num_steps)
    assert backbone.timesteps == scheduler.timesteps.tolist()
    # Theirs is float32: near zero terminal signal-to-noise ratio that is what its difference of products leaves.
    torch.testing.assert_close(torch.tensor(backbone.sigmas), scheduler.sigmas, rtol=1e-3, atol=0)
    plain = StableDiffusion.from_pretrained(
        str(editable_weights), num_steps=num_steps, first_step=2, prediction_type="epsilon"
    )
    assert plain.sigmas == backbone.sigmas


def test_zero_terminal_snr_ends_in_noise_alone():
    sigmas = training_sigmas({"rescale_betas_zero_snr": True}, "here")
    usual = training_sigmas({}, "here")
    assert float(sigmas[-1]) == pytest.approx(4096, rel=1e-3)  # as diffusers has it, in place of infinity
    assert float(usual[-1]) == pytest.approx(14.6146, rel=1e-4)
    torch.testing.assert_close(sigmas[0], usual[0])


def without_scheduler(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "scheduler")
    return str(copy)


def test_without_a_scheduler_the_prediction_must_be_told(tiny_weights, tmp_path):
    folder = without_scheduler(tiny_weights, tmp_path)
    with pytest.raises(ValueError, match=r"scheduler is not there to tell .* Set backbone\.prediction_type to epsilon"):
        StableDiffusion(folder).check()
    backbone = StableDiffusion.from_pretrained(folder, prediction_type="v_prediction")
    assert backbone.prediction_type == "v_prediction"
    assert backbone.sigmas == StableDiffusion.from_pretrained(str(tiny_weights)).sigmas


def test_a_scheduler_that_does_not_tell(editable_weights):
    (editable_weights / "scheduler/scheduler_config.json").write_text("{}")
    with pytest.raises(ValueError, match="scheduler is not there to tell"):
        StableDiffusion(str(editable_weights)).check()
    (editable_weights / "scheduler/scheduler_config.json").write_text('{"beta_start": 0.00085}')
    with pytest.raises(ValueError, match="scheduler does not tell what the network predicts"):
        StableDiffusion(str(editable_weights)).check()


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "is a FlowMatchEulerDiscreteScheduler .* flow matching"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "UniPCMultistepScheduler .* flow match"),
        ({"prediction_type": "flow_prediction"}, "is a scheduler of a network trained by flow matching"),
        ({"_class_name": "EDMEulerScheduler"}, "is a EDMEulerScheduler .* EDM preconditioning"),
    ],
)
def test_other_kinds_are_refused_by_name(config, problem, editable_weights, edit_config):
    with pytest.raises(ValueError, match=problem):
        check_kind(config, "here")
    edit_config("scheduler/scheduler_config.json", **config)
    with pytest.raises(ValueError, match=problem):  # also where the prediction is set by hand
        StableDiffusion(str(editable_weights), prediction_type="epsilon").check()


def test_more_steps_than_the_training_had(tiny_weights):
    with pytest.raises(ValueError, match="num_steps = 1001 must be at most 1000"):
        StableDiffusion(str(tiny_weights), num_steps=1001).check()


def test_a_video_model_is_sampled_between_its_own_bounds(tiny_video_weights, tmp_path):
    folder = shutil.copytree(tiny_video_weights, tmp_path / "weights")
    path = folder / "scheduler/scheduler_config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"prediction_type": "v_prediction", "sigma_min": 0.01, "sigma_max": 100.0}))
    sigmas = StableVideoDiffusion.from_pretrained(str(folder)).sigmas
    assert (sigmas[0], sigmas[-2]) == (pytest.approx(100.0), pytest.approx(0.01))
    path.write_text(json.dumps({"prediction_type": "epsilon"}))
    with pytest.raises(ValueError, match="scheduler: prediction_type must be 'v_prediction'"):
        StableVideoDiffusion(str(folder)).check()
    path.write_text(json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"}))
    with pytest.raises(ValueError, match="flow matching"):
        StableVideoDiffusion(str(folder)).check()


def test_the_setting_goes_before_the_config():
    assert prediction_type({"prediction_type": "epsilon"}, "v_prediction", "here") == "v_prediction"
    assert prediction_type({"prediction_type": "epsilon"}, None, "here") == "epsilon"
