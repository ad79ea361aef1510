"""Noise schedule of the latent-diffusion branch: alpha_bar, respaced steps and posterior
coefficients, in float64 NumPy.

The clock of this branch: integer t grows towards noise, t = 0 is the cleanest of the 1000 training
steps. An *index* counts respaced steps (index 300 of "ddim500" is t = 600). Mirrors
guided_diffusion/{gaussian_diffusion,respace}.py of the release: beta_t linear from 1e-4 to 0.02 (Ho
et al. 2020, section 4), respacing after Nichol and Dhariwal 2021 and Song et al. 2021.
"""

from __future__ import annotations

from typing import List, Optional

import numpy as np

TIMESTEPS = 1000
BETA_FIRST, BETA_LAST = 1e-4, 0.02
RHO = 7  # of "rho" spacing (Karras et al. 2022, table 1)
SPACINGS = ("uniform", "quadratic", "lambda", "rho")


def check_eta(eta, what: str) -> None:
    """Raise ValueError, naming `what`, unless eta is a number from 0 (deterministic) to 1
    (ancestral); NaN is none.
    """
    if not isinstance(eta, (int, float, np.number)) or not 0 <= eta <= 1:
        raise ValueError(f"{what}: eta is {eta}; expected 0 (deterministic) to 1 (ancestral)")


def ddim_counts(timesteps: int = TIMESTEPS) -> List[int]:
    """Step counts N for which "ddimN" exists: those reached by an integer stride over `timesteps`
    (62 of them for 1000).
    """
    return sorted({len(range(0, timesteps, stride)) for stride in range(1, timesteps)})


def respaced_steps(respacing: str, timesteps: int = TIMESTEPS) -> np.ndarray:
    """The original timesteps that `respacing` keeps, an ascending int array.

    respacing: "" keeps all; "ddimN" takes an integer stride; "a,b,c" splits the steps into equal
    sections and keeps a, b, c of them. Raises ValueError for anything else, naming the nearest N
    that "ddimN" can have.
    """
    if respacing == "":
        return np.arange(timesteps)
    if respacing.startswith("ddim"):
        return _strided(respacing, timesteps)
    return _sections(respacing, timesteps)


def _strided(respacing: str, timesteps: int) -> np.ndarray:
    count = int(respacing[4:]) if respacing[4:].isdigit() else 0
    for stride in range(1, timesteps):
        if len(range(0, timesteps, stride)) == count:
            return np.arange(0, timesteps, stride)
    counts = ddim_counts(timesteps)
    nearest = sorted(sorted(counts, key=lambda n: abs(n - count))[:4])
    raise ValueError(
        f"respacing {respacing!r}: no integer stride over {timesteps} steps keeps exactly {count}; "
        f"the nearest that exist are {', '.join(f'ddim{n}' for n in nearest)}"
    )


def _sections(respacing: str, timesteps: int) -> np.ndarray:
    parts = respacing.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise ValueError(
            f"respacing {respacing!r}: expected '' (all steps), 'ddimN' or positive numbers of "
            "steps per section, as '250,50'"
        )
    counts = [int(part) for part in parts]
    steps: List[int] = []
    size, extra = divmod(timesteps, len(counts))
    start = 0
    for i, count in enumerate(counts):
        section = size + (i < extra)
        if count > section:
            raise ValueError(
                f"respacing {respacing!r}: section {i + 1} has {section} steps and cannot keep "
                f"{count} of them; ask for fewer"
            )
        stride = (section - 1) / (count - 1) if count > 1 else 1

        # The stride is added up, not multiplied: where a step lies half-way, that rounding decides.
        current = 0.0
        for _ in range(count):
            steps.append(start + round(current))
            current += stride
        start += section
    return np.array(sorted(set(steps)))


class Schedule:
    """The (respaced) diffusion process: Schedule("ddim500"), or Schedule() for all 1000 steps.

    timesteps: int64 [N], ascending, what the network takes as t. alpha_bar: float64 [N] of those
    steps, in their order, so falling. alpha_bar_prev: of the next cleaner step, 1 for the clean
    image. Everything else follows from the betas of the respaced process.
    """

    def __init__(self, respacing: str = ""):
        self.respacing = respacing
        self.timesteps = respaced_steps(respacing)
        beta = np.linspace(BETA_FIRST, BETA_LAST, TIMESTEPS, dtype=np.float64)
        self.alpha_bar = np.cumprod(1.0 - beta)[self.timesteps]
        self.alpha_bar_prev = np.append(1.0, self.alpha_bar[:-1])
        self.beta = 1.0 - self.alpha_bar / self.alpha_bar_prev
        self.posterior_variance = self.beta * (1.0 - self.alpha_bar_prev) / (1.0 - self.alpha_bar)

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def posterior_log_variance(self) -> np.ndarray:
        """log of the posterior variance, float64 [N]; entry 0, whose variance is 0, repeats entry 1
        (as the release clips it).
        """
        return np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))

    @property
    def posterior_mean_coefficients(self):
        """(of x0, of x_t) in the mean of q(x_{t-1} | x_t, x0), two float64 [N] arrays (Ho et al.
        2020, eq. 7).
        """
        of_x0 = self.beta * np.sqrt(self.alpha_bar_prev) / (1.0 - self.alpha_bar)
        of_x_t = (1.0 - self.alpha_bar_prev) * np.sqrt(1.0 - self.beta) / (1.0 - self.alpha_bar)
        return of_x0, of_x_t

    def check_index(self, index, what: str = "start index") -> None:
        """Raise ValueError unless every entry of `index` (int or int array) is an index of this
        schedule.
        """
        # release: an index past the end reads uninitialised memory; here: an error.
        array = np.asarray(index)
        integers = array.dtype.kind in "iu" and array.size > 0
        if not integers or array.min() < 0 or array.max() >= len(self):
            raise ValueError(
                f"{what} {index}: expected an integer from 0 to {len(self) - 1}, an index into "
                f"the {len(self)} steps of {self.respacing or 'the full schedule'} (not an "
                "original timestep)"
            )

    def visited(
        self, start_index: int, steps: Optional[int] = None, spacing: str = "uniform"
    ) -> np.ndarray:
        """The indices at which a sampler of `steps` steps calls its predictor: descending ints, the
        first start_index - 1; None visits every index down to 0.

        spacing: "uniform" takes equal strides of the index, the clean image being index -1;
        "quadratic" of its root (Song et al. 2021, D.2); "lambda" of log(alpha / sigma); "rho" of
        (sigma / alpha) ** (1 / RHO), both down to index 0, where alpha = sqrt(alpha_bar) and
        sigma = sqrt(1 - alpha_bar). Each is rounded to the nearest index that is free. Raises
        ValueError for more steps than indices, less than one, or another spacing.
        """
        self.check_index(start_index - 1, what="last index to denoise from (start_index - 1)")
        if spacing not in SPACINGS:
            raise ValueError(f"spacing {spacing!r}: expected one of {', '.join(SPACINGS)}")
        steps = start_index if steps is None else steps
        if not 1 <= steps <= start_index:
            raise ValueError(
                f"{steps} steps: expected 1 to {start_index}, the indices of "
                f"{self.respacing or 'the full schedule'} from {start_index - 1} down"
            )

        # Strides of the index or of its root, to the clean image at -1.
        if spacing in ("uniform", "quadratic"):
            fractions = np.linspace(1, 0, steps + 1)[:-1] ** (1 if spacing == "uniform" else 2)
            return _descending(np.round(fractions * start_index - 1).astype(int))

        # Strides of the noise level, to index 0.
        ratio = np.sqrt(1 / self.alpha_bar[:start_index] - 1)  # sigma / alpha
        height = np.log(ratio) if spacing == "lambda" else ratio ** (1 / RHO)
        heights = np.linspace(height[-1], height[0], steps)
        return _descending(np.round(np.interp(heights, height, np.arange(start_index))).astype(int))


def _descending(indices: np.ndarray) -> np.ndarray:
    """The indices with repetitions moved aside: each at least one below the one before, and leaving
    room for those after it.
    """
    moved = [int(indices[0])]
    for left, index in zip(range(len(indices) - 2, -1, -1), indices[1:]):
        moved.append(max(min(int(index), moved[-1] - 1), left))
    return np.array(moved)
