"""Flags to settings, refusals in words, and the loss."""

from __future__ import annotations

import pytest
import torch

import train
from models import checkpoint
from tests.helpers import make
from tests.training.runs import settings
from training.log import psnr_of
from training.loss import rate_distortion


def test_defaults_are_those_of_the_report():
    expected = {
        "Factorized": (200, "plateau", 128, 192),
        "Hyperprior": (200, "multistep", 128, 192),
        "JointAutoregressiveHierarchicalPriors": (250, "plateau", 192, 192),
        "CheckerboardAutogressive": (250, "plateau", 192, 192),
    }
    for name, values in expected.items():
        s = settings("--model_name", name, "--dataset", "somewhere")
        assert (s.epoch, s.scheduler, s.N, s.M) == values
        assert (s.batch_size, s.patch_size, s.lr, s.optimizer) == (64, 256, 1e-4, "adam")
        assert s.milestones == [40, 90, 140] and s.lmbda == 0.0067 and s.ema == 0


def test_steps_follow_from_the_data_or_the_flag():
    s = settings("--dataset", "somewhere", "--ste_fraction", "0.25").completed(640, 1)
    assert (s.steps_per_epoch, s.total, s.ste_start) == (10, 2000, 1500)
    s = settings("--dataset", "somewhere").completed(640, processes=2)
    assert (s.processes, s.steps_per_epoch, s.ste_start) == (2, 5, s.total)
    s = settings("--dataset", "x", "--epoch", "3", "--steps_per_epoch", "7")
    assert s.completed(640, 2).total == 21


def test_operating_points():
    s = settings("--model_name", "checkerboard", "--code_rate", "high")
    assert (s.model_name, s.lmbda, s.N, s.M) == ("CheckerboardAutogressive", 0.025, 192, 320)
    s = settings("--lmbda", "0.0483", "--N", "16")
    assert (s.code_rate, s.N, s.M) == ("high", 16, 320)
    s = settings("--model_name", "hyperprior", "--quality", "8")
    assert (s.lmbda, s.N, s.M) == (0.18, 192, 320)
    s = settings("--quality", "1", "--metric", "ms-ssim", "--patch_size", "192")
    assert (s.lmbda, s.N, s.M) == (2.4, 128, 192)


ZOO = {  # CompressAI's documentation, "Training"
    "mse": (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800),
    "ms-ssim": (2.40, 4.58, 8.73, 16.64, 31.73, 60.50, 115.37, 220.00),
}
# N and M of its `zoo.image.cfgs`, for quality 1 to 8.
ZOO_CHANNELS = {
    "Factorized": [(128, 192)] * 5 + [(192, 320)] * 3,
    "Hyperprior": [(128, 192)] * 5 + [(192, 320)] * 3,
    "JointAutoregressiveHierarchicalPriors": [(192, 192)] * 4 + [(192, 320)] * 4,
}


@pytest.mark.parametrize("metric", ZOO)
@pytest.mark.parametrize("name", ZOO_CHANNELS)
def test_qualities_are_those_of_compressai(name, metric):
    pairs = zip(ZOO[metric], ZOO_CHANNELS[name], strict=True)
    for quality, (lmbda, channels) in enumerate(pairs, start=1):
        words = ("--model_name", name, "--quality", str(quality), "--metric", metric)
        s = settings(*words, "--dataset", "somewhere")
        assert (s.lmbda, s.metric, (s.N, s.M)) == (lmbda, metric, channels)


def test_ms_ssim_goes_on_from_an_mse_checkpoint_at_a_low_rate(tmp_path):
    parent = checkpoint.path_for("Factorized", 9, 0.0067, tmp_path)
    model = make("Factorized", lmbda=0.0067)
    checkpoint.save(parent, model, config={}, provenance={})
    words = f"--model_name Factorized --N {model.N} --M {model.M} --init_ckpt {parent} \
        --metric ms-ssim --quality 3 --patch_size 176 \
        --batch_size 1 --epoch 1 --steps_per_epoch 1 --optimizer adam --ema 0 \
        --scheduler multistep --warmup 0 --num_workers 0 --test_batch_size 1 --gpu_id cpu \
        --no_tensorboard --runs {tmp_path}/runs --ckpts {tmp_path}"
    assert train.main(words.split()) == 0
    child = checkpoint.load(checkpoint.path_for("Factorized", 0, 8.73, tmp_path))
    assert (child.point.metric, child.point.lmbda) == ("ms-ssim", 8.73)
    assert child.metadata["provenance"]["parent"] == parent.name
    assert child.metadata["config"]["lr"] == 1e-5
    # Adam's first step is its learning rate for every weight.
    moved = child.g_a[0].bias - checkpoint.load(parent).g_a[0].bias
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 1e-5), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model_name other", "choose one of: Factorized"),
        ("--quality 3 --lmbda 0.01", "give it alone"),
        ("--metric ms-ssim", "--quality 1..8 or --lmbda"),
        ("--quality 2 --metric ms-ssim --patch_size 128", "at least 161"),
        ("--code_rate low --lmbda 0.025", "does not belong to code rate 'low'"),
        ("--model_name hyperprior --patch_size 100", "multiple of 64"),
        ("--latent_views 2", "add --fixed g_a g_s"),
        ("--rescale 0.5", "add --init_ckpt or --init_transforms"),
        ("--optimizer adam --rest_lr 1e-3", "add --optimizer muon"),
        ("--exp_version ..", "a folder's name, not '..'"),
        ("--gpu_id 99", "not '99'; torch sees"),
        ("--gpu_id cpu,0", "or cpu, not 'cpu,0'"),
        ("--gpu_id gpu", "numbers of GPUs"),
        ("--dataset nowhere", "nowhere does not exist"),
        ("--resume --runs nowhere", "no run to resume"),
    ],
)
def test_what_cannot_be_is_one_line(words, message, capsys):
    assert train.main(words.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    """--lmbda nan|--lmbda inf|--lr 0|--rest_lr -1|--clip nan|--ema 1|--rescale 0|--ste_fraction 2
    --time_limit 0|--save_minutes -1|--N 0|--M -4|--threads 100000|--batch_size 0|--val_time 0
    --num_workers -1|--steps_per_epoch -1|--quality 9|--latent_views 0|--max_skips 0|--seed -1
    --milestones -1|--epoch 1.5|--import_module my_model.py.""".replace("\n    ", "|").split("|"),
)
def test_a_number_out_of_its_bounds_is_refused_before_anything_is_written(
    words, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        train.main(words.split())
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and f"{words.split()[0]}: needs a" in error
    assert error.count("\n") == 2 and not list(tmp_path.iterdir())


def test_rate_distortion_by_hand():
    x = torch.zeros(2, 3, 4, 4)
    likelihoods = {"y": torch.full((2, 5, 1, 1), 0.5), "z": torch.full((2, 1, 1, 1), 0.25)}
    loss, bpp, mse = rate_distortion({"x_hat": x + 0.1, "likelihoods": likelihoods}, x, 0.01)
    assert mse.item() == pytest.approx(0.01)
    assert bpp.item() == pytest.approx((10 * 1 + 2 * 2) / 32)
    assert loss.item() == pytest.approx(0.01 * 255**2 * 0.01 + 14 / 32)
    assert psnr_of(0.01) == pytest.approx(20)


def test_ms_ssim_loss_is_zero_distortion_for_equal_images():
    x = torch.rand(1, 3, 192, 192)
    output = {"x_hat": x, "likelihoods": {"y": torch.full((1, 1, 1, 1), 0.5)}}
    loss, _, _ = rate_distortion(output, x, 8.73, "ms-ssim")
    assert loss.item() == pytest.approx(1 / 192**2, abs=1e-5)
