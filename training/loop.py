"""The training loop: steps, epochs, and the ways a run can end.

Every random number is a function of (seed, step, process): the crops come from
`RandomCrops.batch(step, ...)`, and the generator of the noise is seeded before each step. That is
why a run that was interrupted anywhere goes on exactly as if it had not been.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from models.base import Codec
from training.latents import STRIDE, RateModel
from training.log import VALIDATION, Log, figures, psnr_of
from training.loss import RateDistortion, rate_alone
from training.optimizers import build_optimizer
from training.run import Run
from training.schedules import Schedule
from training.settings import Settings
from training.team import Team

STRETCH = {"cuda": 16}  # steps after which the host reads their figures: each time a GPU waits
FINISHED, TIME_IS_UP, SIGNALLED, NOT_FINITE = "finished", "time is up", "signalled", "not finite"
PARTS = ("model", "averaged", "optimizer", "schedule")  # of a state, beside the numbers


class Trainer:
    """Trains `model` on `batches(step)`, from step 0 or a loaded state.

    A batch: crops (B, 3, P, P), or of y, (B, M, P/16, P/16), if `settings.keeps_latents`.
    `settings`: completed. `held_out`: for validation, all of one (3, H, W), H and W multiples of
    the model's downsampling, or none. `run`: None in all processes but the first.
    """

    def __init__(
        self, settings: Settings, model: Codec, batches: Callable[[int], Tensor],
        held_out: list[Tensor], run: Run | None, team: Team,
        stop_asked: Callable[[], bool] = lambda: False,
    ):  # fmt: skip
        self.settings, self.team, self.run = settings, team, run
        self.log = run.log if run else Log()
        self.batches, self.held_out, self.stop_asked = batches, held_out, stop_asked
        self.model = model.to(team.device, memory_format=torch.channels_last).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.averaged = copy.deepcopy(self.model).eval() if settings.ema else self.model
        self.loss = RateDistortion(settings.lmbda, settings.metric)
        rates = settings.lr, settings.rest_lr
        self.optimizer = build_optimizer(settings.optimizer, self.model, *rates)
        self.schedule = Schedule(
            self.optimizer, settings.scheduler, total=settings.total, warmup=settings.warmup,
            steps_per_epoch=settings.steps_per_epoch, milestones=settings.milestones,
        )  # fmt: skip
        trained = RateModel(self.model) if settings.keeps_latents else self.model
        if settings.compile:
            trained.compile()
        self.forward = team.wrap(trained)
        self.step = 0  # steps done, skipped ones included
        self.earlier = 0.0  # seconds of the sessions before this one
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
        self.step, self.earlier = state["step"], state["seconds"]
        self.skipped, self.window = state["skipped"], state["window"]
        for name in PARTS:
            if state[name] is not None:
                getattr(self, name).load_state_dict(state[name])

    def train(self) -> str:
        """Run until the end, the time limit, a signal, or too many non-finite steps in a row.

        Returns which of these it was. The state is saved in every case, if there is room for it.
        """
        settings = self.settings
        self.began = self.saved = time.monotonic()
        self.first_step = self.step
        self.log.begin(self.step, settings.total)
        while self.step < settings.total:
            reason = self.one_step()
            if self.step % settings.steps_per_epoch == 0:
                self.end_epoch()
            elif self.step % settings.log_every == 0:
                self.report()
            if self.skipped >= settings.max_skips:
                reason = NOT_FINITE
            if self.step == settings.total:
                break
            if reason:
                if reason == TIME_IS_UP and settings.scheduler == "constant":
                    self.checkpoint((self.step - 1) // settings.steps_per_epoch)  # as they are
                self.save_state()
                return reason
            if time.monotonic() - self.saved > settings.save_minutes * 60:
                self.save_state()
        return FINISHED

    @property
    def session_seconds(self) -> float:
        return time.monotonic() - self.began

    @property
    def seconds(self) -> float:
        """Of all sessions of the run."""
        return self.earlier + self.session_seconds

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
                "steps": self.step, "images_seen": self.images_seen,
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
            parts = {name: getattr(self, name).state_dict() for name in PARTS}
            self.before = copy.deepcopy(parts)
        self.schedule.set(self.step)
        try:
            x = self.batches(self.step).to(self.team.device)
            torch.manual_seed(noise_seed(settings.seed, self.step, self.team.rank))
            with self.team.waiting():
                stats = self.gradients(x)
                late = float(self.session_seconds > (settings.time_limit or math.inf))
                asked = [float(self.stop_asked()), late]
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
        x = x.contiguous(memory_format=torch.channels_last)
        mode = self.quantization()
        if self.step == settings.ste_start:
            self.model.solve_quantiles()
        half = settings.precision == "bf16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
            output = self.forward(x, quantization=mode)
        if settings.keeps_latents:
            terms = rate_alone(output, x[:, 0].numel() * STRIDE**2)
        else:
            terms = self.loss(output, x)
        terms.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip or math.inf)
        return torch.stack([terms.loss.detach(), terms.bpp, terms.mse, norm])

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
        first = end - len(rows)
        if all(math.isfinite(loss) and math.isfinite(norm) for loss, _, _, norm in rows):
            for step, row in enumerate(rows, first):
                self.note(step, *row)
            return
        for name in PARTS:
            getattr(self, name).load_state_dict(self.before[name])
        self.optimizer.zero_grad(set_to_none=True)
        self.step = first
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
        result = self.team.share(self.validate() if due and self.team.is_first else None)
        if result:
            self.schedule.end_epoch(result["val_loss"])
        elif due and self.window[3]:
            self.schedule.end_epoch(self.window[0] / self.window[3])
        if self.quantization() != "noise":  # of the next step
            self.model.solve_quantiles()  # the medians that rounding is centred on
        self.report(result or {})
        if last or (epoch + 1) % settings.check_time == 0:
            if last:  # first the state: if writing the checkpoint fails, nothing is lost
                self.save_state()
            self.checkpoint(epoch)
            self.save_state()

    @torch.no_grad()
    def validate(self) -> dict | None:
        """Loss, bpp and PSNR with rounded latents, in fp32; means over the held-out images."""
        if not self.held_out:
            return None
        model = self.averaged.eval()
        model.solve_quantiles()
        sums = torch.zeros(3, dtype=torch.float64)
        for batch in torch.stack(self.held_out).split(self.settings.test_batch_size):
            x = batch.to(self.team.device, memory_format=torch.channels_last)
            output = model(x, quantization="round")
            x_hat = output["x_hat"].clamp(0, 1)
            terms = self.loss({**output, "x_hat": x_hat}, x)
            mses = (x_hat - x).square().flatten(1).mean(1).tolist()
            psnr = sum(map(psnr_of, mses)) / len(x)
            sums += len(x) * torch.tensor([terms.loss.item(), terms.bpp.item(), psnr])
        self.model.train()
        return dict(zip(VALIDATION, (sums / len(self.held_out)).tolist(), strict=True))

    def report(self, validation: dict | None = None) -> None:
        """A row of the curve: means since the last row, and the validation if there is one."""
        self.settle()
        loss, bpp, mse, steps = self.window
        self.window = [0.0] * 4
        row = {
            "step": self.step, "epoch": (self.step - 1) // self.settings.steps_per_epoch,
            "images": self.images_seen, "seconds": self.seconds,
            "lr": self.optimizer.param_groups[0]["lr"], **(validation or {}),
        }  # fmt: skip
        if steps:
            row |= {"loss": loss / steps, "bpp": bpp / steps}
            if not self.settings.keeps_latents:
                row["psnr"] = psnr_of(mse / steps)
        self.log.record(row)

    @property
    def images_seen(self) -> int:
        """Crops of all steps so far, of all processes."""
        return self.step * self.settings.batch_size * self.team.size


def noise_seed(seed: int, step: int, rank: int) -> int:
    """A different stream of noise for every step and process."""
    return ((seed * 1_000_003 + step) * 65_537 + rank) % 2**63
