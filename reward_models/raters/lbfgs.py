"""Minimise a differentiable loss of named tensors by L-BFGS. Knows nothing of raters or judgements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from reward_models.progress import counting


__all__ = ["minimise", "one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block: on tensors this small, threads cost ten times the work.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def minimise(
    loss: Callable[[dict[str, Tensor]], Tensor], start: dict[str, np.ndarray], max_iter: int, tol: float = 1e-9
) -> dict[str, np.ndarray]:
    """Minimise a loss of named tensors by L-BFGS in double precision, on one thread.

    Args:
        loss: Differentiable scalar; the result is never worse than `start`.
        start: Start value by name.
        max_iter: Most L-BFGS iterations.
        tol: Stop when the loss improves by less than this fraction.

    Returns:
        The best values by name, in the shapes of `start`.

    Example:
        >>> best = minimise(lambda p: (p["x"] - 3.0).square().sum(), {"x": np.zeros(2)}, max_iter=50)
        >>> best["x"].round(4).tolist()
        [3.0, 3.0]
    """
    sizes = [value.size for value in start.values()]
    if sum(sizes) == 0:
        return start

    def unpack(theta: np.ndarray | Tensor) -> dict[str, np.ndarray | Tensor]:
        parts = theta.split(sizes) if isinstance(theta, Tensor) else np.split(theta, np.cumsum(sizes)[:-1])
        return {name: part.reshape(start[name].shape) for name, part in zip(start, parts, strict=True)}

    def value_and_gradient(theta: np.ndarray) -> tuple[float, np.ndarray]:
        variable = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        value = loss(unpack(variable))  # type: ignore[arg-type]
        value.backward()
        assert variable.grad is not None
        return value.item(), variable.grad.numpy()

    with one_thread(), counting("iterations", max_iter) as iteration_done:
        result = minimize(
            value_and_gradient,
            np.concatenate([value.ravel() for value in start.values()]).astype(np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=lambda _: iteration_done(),
            options={"maxiter": max_iter, "ftol": tol, "gtol": 1e-8, "maxcor": 20},
        )
    return {name: np.array(part) for name, part in unpack(result.x).items()}
