"""The training loop: steps, epochs, and the ways a run can end.

Every random number is a function of (seed, step, process): the crops come from
`RandomCrops.batch(step, ...)`, and the generator of the noise is seeded before each step. That is
why a run that was interrupted anywhere goes on exactly as if it had not been.
"""

from __future__ import annotations

import copy
import math
import shlex
import time
from collections.abc import Callable

import torch
from torch import Tensor

from models.base import Codec
from models.errors import TrainingError
from training.latents import RateModel
from training.log import VALIDATION, Log, figures, psnr_of
from training.loss import rate_distortion
from training.optimizers import Schedule, build_optimizer
from training.run import Run
from training.settings import Settings
from training.team import Team

STRETCH = {"cuda": 16}  # steps after which the host reads their figures: each time a GPU waits
FINISHED, TIME_IS_UP, SIGNALLED, NOT_FINITE = "finished", "time is up", "signalled", "not finite"
PARTS = ("model", "averaged", "optimizer", "schedule")  # of a state, beside the numbers


class Trainer:
    """Trains `model` on `batches(step)`, from step 0 or a loaded state.

    Both lie on the team's device, channels last. A batch: crops (B, 3, P, P), or of y,
    (B, M, P/16, P/16), if `settings.keeps_latents`. `settings`: completed. `held_out`: for
    validation, all of one (3, H, W), H and W multiples of the model's downsampling, or none.
    `run`: None in all processes but the first. `signals`: not empty once a stop is asked for.
    """

    def __init__(
        self, settings: Settings, model: Codec, batches: Callable[[int], Tensor],
        held_out: list[Tensor], run: Run | None, log: Log, team: Team, signals: list[int],
    ):  # fmt: skip
        self.settings, self.run, self.log, self.team = settings, run, log, team
        self.batches, self.held_out, self.signals = batches, held_out, signals
        self.batch_size = settings.batch_size * team.size  # crops of a step, of all processes
        self.model = model.train()
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.averaged = copy.deepcopy(model).eval() if settings.ema else model
        self.optimizer = build_optimizer(settings.optimizer, model, settings.lr, settings.rest_lr)
        self.schedule = Schedule(self.optimizer, settings)
        trained = RateModel(model) if settings.keeps_latents else model
        if settings.compile:
            trained.compile()
        self.forward = team.wrap(trained)
        self.step = 0  # steps done, skipped ones included
        self.zero = time.monotonic()  # less the seconds of the sessions before this one
        self.skipped = 0  # skipped steps in a row
        self.window = [0.0] * 4  # sums since the last row of the curve: loss, bpp, mse, steps
        self.stretch = STRETCH.get(team.device.type, 1) if team.size == 1 else 1
        self.unread: list[Tensor] = []  # figures of the last steps, on the device
        self.before: dict = {}  # the state that the first of these began with

    def state_dict(self) -> dict:
        """All that the following steps depend on."""
        state = {name: getattr(self, name) for name in ("step", "seconds", "skipped", "window")}
        state |= {name: getattr(self, name).state_dict() for name in PARTS}
        return state if self.settings.ema else state | {"averaged": None}

    def load_state_dict(self, state: dict) -> None:
        self.step, self.skipped, self.window = state["step"], state["skipped"], state["window"]
        self.zero = time.monotonic() - state["seconds"]
        for name in PARTS:
            if state[name] is not None:
                getattr(self, name).load_state_dict(state[name])

    def train(self) -> str:
        """Run until the end, the time limit, a signal, or too many non-finite steps in a row: which
        of these it was. The state is saved in every case, if there is room for it."""
        settings = self.settings
        self.began = self.saved = time.monotonic()  # of this session
        self.first_step = self.step
        self.log.begin(self.step, settings.total)
        while self.step < settings.total:
            reason = self.one_step()
            if self.step % settings.steps_per_epoch == 0:
                self.end_epoch()
            elif self.step % settings.log_every == 0:
                self.report({})
            if self.skipped >= settings.max_skips:
                reason = NOT_FINITE
            if reason and self.step < settings.total:
                if reason == TIME_IS_UP and settings.scheduler == "constant":
                    self.checkpoint((self.step - 1) // settings.steps_per_epoch)  # as they are
                self.save_state()
                return reason
            if time.monotonic() - self.saved > settings.save_minutes * 60:
                self.save_state()
        return FINISHED

    @property
    def seconds(self) -> float:
        """Of all sessions of the run."""
        return time.monotonic() - self.zero

    def save_state(self) -> None:
        self.settle()
        self.saved = time.monotonic()
        if self.run is not None:
            self.run.save(self.state_dict())

    def checkpoint(self, epoch: int) -> None:
        """Keep the weights of an epoch."""
        self.settle()
        if self.run is not None:
            progress = {
                "steps": self.step, "images_seen": self.step * self.batch_size,
                "hours": round(self.seconds / 3600, 6),  # a trial takes a fraction of a second
                "hardware": self.team.hardware,
            }  # fmt: skip
            self.run.checkpoint(self.averaged, epoch, progress)

    def one_step(self, read: bool = False) -> str | None:
        """One optimiser step; returns why to stop after it, the same in all processes.

        Its figures are read at once if `read`, or if the stretch is one step; see `settle`.
        """
        settings, read = self.settings, read or self.stretch == 1
        if not read and not self.unread:
            self.before = copy.deepcopy(self.state_dict())
        self.schedule.set(self.step)
        try:
            x = self.batches(self.step)
            noise = (settings.seed * 1_000_003 + self.step) * 65_537 + self.team.rank
            torch.manual_seed(noise % 2**63)  # another stream for every step and process
            with self.team.waiting():
                stats = self.gradients(x)
                late = float(time.monotonic() - self.began > (settings.time_limit or math.inf))
                asked = [float(bool(self.signals)), late]
                if read:
                    both = torch.cat([stats, torch.tensor(asked, device=stats.device)])
                    *values, asked[0], asked[1] = self.team.mean(both)
        except Exception:
            self.save_state()  # no weight has changed yet
            raise
        if not read:
            self.unread.append(stats)
        if not read or self.note(self.step, *values):
            self.optimizer.step()
            self.average()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if len(self.unread) == self.stretch:
            self.settle()
        signalled, late = asked
        return SIGNALLED if signalled else TIME_IS_UP if late else None

    def gradients(self, x: Tensor) -> Tensor:
        """Forward and backward; loss, bpp, mse and norm of the gradient, (4,) on the device."""
        settings, device = self.settings, self.team.device
        mode = self.quantization()
        if self.step == settings.ste_start:
            self.model.solve_quantiles()
        half = settings.precision == "bf16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            output = self.forward(x, quantization=mode)
        loss, bpp, mse = rate_distortion(output, x, settings.lmbda, settings.metric)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip or math.inf)
        return torch.stack([loss.detach(), bpp, mse, norm])

    def note(self, step: int, loss: float, bpp: float, mse: float, norm: float) -> bool:
        """Count a step, and say its figures; whether it may be taken, that is, is finite."""
        if finite := math.isfinite(loss) and math.isfinite(norm):
            self.skipped = 0
            self.window = [a + b for a, b in zip(self.window, (loss, bpp, mse, 1.0), strict=True)]
        else:
            self.skipped += 1
            self.log.say(
                f"step {step}: the loss ({loss:g}) or the gradient (norm {norm:g}) is not "
                f"finite; step skipped, {self.skipped} in a row."
            )
        self.log.advance(step + 1, figures(loss, bpp, psnr_of(mse)))
        return finite

    def settle(self) -> None:
        """Read the figures of the steps that were taken unread, so that a GPU need not wait for
        the host in each. If one is not finite, they are undone, and done again one by one."""
        if not self.unread:
            return
        rows, end, self.unread = torch.stack(self.unread).tolist(), self.step, []
        if all(math.isfinite(loss) and math.isfinite(norm) for loss, _, _, norm in rows):
            for step, row in enumerate(rows, end - len(rows)):
                self.note(step, *row)
            return
        zero = self.zero
        self.load_state_dict(self.before)
        self.zero = zero  # the time went by all the same
        self.optimizer.zero_grad(set_to_none=True)
        while self.step < end:
            self.one_step(read=True)

    def quantization(self) -> str:
        """The mode of `forward` at this step."""
        return "ste" if self.step >= self.settings.ste_start else self.settings.quantization

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights towards the present ones; fast at first."""
        if self.settings.ema:
            decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
            means = [p for p in self.averaged.parameters() if p.requires_grad]
            torch._foreach_lerp_(means, self.parameters, 1 - decay)

    def end_epoch(self) -> None:
        """Validate and store the weights if it is time, report."""
        self.settle()
        settings = self.settings
        epoch = self.step // settings.steps_per_epoch - 1
        last = self.step == settings.total
        due = last or (epoch + 1) % settings.val_time == 0
        result = self.team.share(self.validate() if due and self.team.rank == 0 else {})
        if result:
            self.schedule.end_epoch(result["val_loss"])
        if self.quantization() != "noise":  # of the next step
            self.model.solve_quantiles()  # the medians that rounding is centred on
        self.report(result)
        if last or (epoch + 1) % settings.check_time == 0:
            if last:  # first the state: if writing the checkpoint fails, nothing is lost
                self.save_state()
            self.checkpoint(epoch)
            self.save_state()

    @torch.no_grad()
    def validate(self) -> dict:
        """Loss, bpp and PSNR with rounded latents, in fp32; means over the held-out images."""
        if not self.held_out:
            return {}
        model = self.averaged.eval()
        model.solve_quantiles()
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in torch.stack(self.held_out).split(self.settings.test_batch_size):
            x = batch.to(self.team.device, memory_format=torch.channels_last)
            output = model(x, quantization="round")
            x_hat = output["x_hat"].clamp_(0, 1)
            loss, bpp, _ = rate_distortion(output, x, self.settings.lmbda, self.settings.metric)
            mses = (x_hat - x).square().flatten(1).mean(1).tolist()
            psnr = sum(map(psnr_of, mses)) / len(x)
            sums += len(x) * torch.tensor([loss.item(), bpp.item(), psnr])
        self.model.train()
        return dict(zip(VALIDATION, (sums / len(self.held_out)).tolist(), strict=True))

    def report(self, validation: dict) -> None:
        """A row of the curve: means since the last row, and the validation if there is one."""
        self.settle()
        loss, bpp, mse, steps = self.window
        self.window = [0.0] * 4
        row = {
            "step": self.step, "epoch": (self.step - 1) // self.settings.steps_per_epoch,
            "images": self.step * self.batch_size, "seconds": self.seconds,
            "lr": self.optimizer.param_groups[0]["lr"], **validation,
        }  # fmt: skip
        if steps:
            row |= {"loss": loss / steps, "bpp": bpp / steps}
            if not self.settings.keeps_latents:
                row["psnr"] = psnr_of(mse / steps)
        self.log.record(row)

    def finish(self, reason: str) -> None:
        """Leave the results of the run, say why it ended and what to do next. TrainingError if
        that is no success."""
        settings, step, run = self.settings, self.step, self.run
        if run is None:
            return
        path = run.checkpoint_path(settings.epoch - 1)
        if reason == FINISHED:
            if not run.owns(path):
                self.checkpoint(settings.epoch - 1)
            if settings.record:
                run.record()
        if steps := step - self.first_step:
            seconds = time.monotonic() - self.began
            pace = steps * self.batch_size / seconds
            self.log.say(f"{steps} steps in {seconds:.0f} s: {pace:.1f} images/s.")
        if reason == NOT_FINITE:
            raise TrainingError(
                f"{self.skipped} steps in a row up to step {step - 1} had a loss or gradient "
                "that is not finite. The weights are those before; lower --lr, or use --warmup and "
                "--clip."
            )
        if run.saved != step:
            raise TrainingError(f"Stopped after step {step}. {run.what_is_saved()}.")
        to_go_on = f"to go on, repeat the command with --resume --exp_version {run.folder.name}."
        test = f"python test.py --model_name {settings.model_name} --metric {settings.metric}"
        test += f" --checkpoint {shlex.quote(str(path))}"
        if settings.import_module:
            test += f" --import_module {settings.import_module}"
        self.log.say({
            FINISHED: f"Finished after step {step}. To test it: {test}",
            TIME_IS_UP: f"The time is up after step {step} of {settings.total}; {to_go_on}",
            SIGNALLED: f"Stopped after step {step} of {settings.total}; {to_go_on}",
        }[reason])  # fmt: skip
