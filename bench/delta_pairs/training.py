"""How is a small real network trained and trained on? Two hidden layers on digits, AdamW, in numpy."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Weights = dict[str, Array]


class Network:
    """Two hidden layers on scikit-learn's digits, trained with AdamW in numpy."""

    def __init__(self, width: int, seed: int) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        self._rng = np.random.default_rng(seed)
        self._inputs = (digits.data / 16).astype(np.float32)
        self._labels = digits.target
        sizes = [64, width, width, 10]
        self.weights: Weights = {}
        for index, (before, after) in enumerate(itertools.pairwise(sizes)):
            scale = np.sqrt(2 / before)
            self.weights[f"layer.{index}.weight"] = self._rng.normal(0, scale, (after, before)).astype(np.float32)
            self.weights[f"layer.{index}.bias"] = np.zeros(after, np.float32)
        self._moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.weights.items()}
        self._step = 0

    def train(self, steps: int, rate: float, *, only: str = "") -> Weights:
        """Go on for `steps` batches of 64; the weights after them. `only` freezes all layers but one."""
        for _ in range(steps):
            self._step += 1
            batch = self._rng.integers(0, len(self._inputs), 64)
            for name, slope in self._slopes(self._inputs[batch], self._labels[batch]).items():
                if not name.startswith(only):
                    continue
                first, second = self._moments[name]
                first += 0.1 * (slope - first)
                second += 0.001 * (slope * slope - second)
                scaled = first / (1 - 0.9**self._step) / (np.sqrt(second / (1 - 0.999**self._step)) + 1e-8)
                self.weights[name] -= rate * (scaled + 0.01 * self.weights[name])
        return {name: weight.copy() for name, weight in self.weights.items()}

    def _slopes(self, inputs: Array, labels: Array) -> Weights:
        layers = [inputs]
        for index in range(3):
            out = layers[-1] @ self.weights[f"layer.{index}.weight"].T + self.weights[f"layer.{index}.bias"]
            layers.append(np.maximum(out, 0) if index < 2 else out)
        chances = np.exp(layers[-1] - layers[-1].max(axis=1, keepdims=True))
        slope = chances / chances.sum(axis=1, keepdims=True)
        slope[np.arange(len(labels)), labels] -= 1
        slope = (slope / len(labels)).astype(np.float32)
        slopes = {}
        for index in (2, 1, 0):
            slopes[f"layer.{index}.weight"] = slope.T @ layers[index]
            slopes[f"layer.{index}.bias"] = slope.sum(axis=0)
            slope = (slope @ self.weights[f"layer.{index}.weight"]) * (layers[index] > 0)
        return slopes
