"""The training loop: `Trainer(model, loss, optimizer).fit(x, y)`."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array, as_input, integer, positive_int
from cycnn.data import Augment, Batch, Batches, Index, Rng, random_split, stratified_split
from cycnn.graph import Model
from cycnn.losses import Loss, Metric, check_weights
from cycnn.optim import Optimizer
from cycnn.progress import Progress

_UPDATES_BETWEEN_COPIES = 16


class TrainingError(FloatingPointError):
    """Training stopped because the loss, or a weight, is no longer a finite number."""


class History(Mapping[str, list[float]]):
    """The figures of a fit: `history["loss"]` is a list of one number per epoch.

    A mapping from names (loss, the metrics, and the same of the validation rows with `val_` in
    front) to lists; NaN stands for an epoch in which a figure was not taken.

    Attributes
    ----------
    epochs : list of dict
        The figures of each epoch.

    Examples
    --------
    >>> history = History([{"loss": 0.7, "accuracy": 0.5}, {"loss": 0.4, "accuracy": 0.9}])
    >>> history["loss"], list(history)
    ([0.7, 0.4], ['loss', 'accuracy'])
    """

    def __init__(self, epochs: Iterable[Mapping[str, float]] = ()) -> None:
        self.epochs = [dict(logs) for logs in epochs]

    def __getitem__(self, name: str) -> list[float]:
        if name not in iter(self):
            raise KeyError(name)
        return [logs.get(name, math.nan) for logs in self.epochs]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for logs in self.epochs for name in logs))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"History of {len(self.epochs)} epochs: {', '.join(self)}"


class Trainer:
    """Fits a model to data: batches, gradients, updates, figures.

    Parameters
    ----------
    model : Sequential, Graph or another model
        Built, with one input and one output.
    loss : Loss
    optimizer : Optimizer
    metrics : mapping of str to callable, or sequence of callables, optional
        Each `metric(target, y) -> float` is reported beside the loss: the mean over the rows of
        an epoch, not weighted. By default what the loss names: accuracy for `CrossEntropy`.
    callbacks : sequence
        After each epoch `callback.on_epoch_end(trainer, epoch, logs)` is called, or the callable
        itself where there is no such method: the epoch counts from 1, logs are its figures.
        Training ends when one returns True or sets `trainer.stop`.

    Attributes
    ----------
    history : History
        All epochs so far, of every `fit`.
    stop : bool
        Set to True to end `fit` after the running epoch.

    Examples
    --------
    >>> trainer = Trainer(model, CrossEntropy(), Adam(1e-3))                 # doctest: +SKIP
    >>> history = trainer.fit(x, y, epochs=10, validation=0.1, rng=0)        # doctest: +SKIP
    >>> history["val_accuracy"][-1], trainer.evaluate(x_test, y_test)        # doctest: +SKIP
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        optimizer: Optimizer,
        *,
        metrics: Mapping[str, Metric] | Iterable[Metric] | None = None,
        callbacks: Sequence[Any] = (),
    ) -> None:
        for name, value, kind in (
            ("model", model, Model), ("loss", loss, Loss), ("optimizer", optimizer, Optimizer)
        ):  # fmt: skip
            if not isinstance(value, kind):
                raise TypeError(f"Trainer: {name} must be of class {kind.__name__}, got {value!r}")
        for name, shape in (("input", model.input_shape), ("output", model.output_shape)):
            if isinstance(shape[0], tuple):
                raise ValueError(f"Trainer: model must have one {name}, got {len(shape)}")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.metrics = _named(loss.metrics if metrics is None else metrics)
        self.callbacks = tuple(callbacks)
        self.history = History()
        self.stop = False

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike | None = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation: float | tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
        rng: Rng = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | ArrayLike | None = None,
        augment: Augment | None = None,
        accumulate: int = 1,
        verbose: int = 1,
    ) -> History:
        """Train for so many more epochs; a second call continues where the first one ended.

        The last batch of an epoch has the rows that remain, perhaps a single one: a model that
        normalises over one value per channel refuses that (choose another batch size). A Ctrl-C
        takes effect between two updates.

        Parameters
        ----------
        x : array_like of shape (N, ...)
            The rows, of any real dtype; only a batch at a time is cast to the model's.
        y : array_like
            The targets, as the loss takes them.
        epochs : int
            How often to go through all rows.
        batch_size : int
            Rows per batch.
        validation : float or (x, y), optional
            What val_loss and the other val_ figures are taken on after each epoch: rows given, or
            a fraction held out of x, by class for integer targets. The same fraction of the same
            data always holds out the same rows, so a second fit does not train on them either.
        shuffle : bool
            Draw a new order in each epoch.
        rng : int or Generator, optional
            Source of the order and of what `augment` draws.
        sample_weight : array_like of shape (N,), optional
            What each row counts in the loss; rows of weight 0 are left out.
        class_weight : mapping of int to float, or array_like of shape (C,), optional
            What each label counts; multiplies the sample weights. Labels not in a mapping: 1.
        augment : callable, optional
            `augment(x, rng) -> x`, called with each batch after the cast; see `random_shift`.
        accumulate : int
            Batches per update. The update is that of one batch of `accumulate * batch_size`
            rows, but for layers that look at a whole batch, such as BatchNorm.
        verbose : int
            0 is silent, 1 shows a bar or lines, 2 only one line per epoch.

        Returns
        -------
        History
            The epochs of this call.

        Raises
        ------
        ValueError, TypeError
            Before any training: rows that do not fit the model or the targets, NaN or infinity in
            x, targets the loss refuses, weights that are negative, not finite or all zero.
        TrainingError
            The loss is no longer finite. The model and the optimizer go back to a state at most
            16 updates old that gave a finite loss.
        """
        epochs, batch_size = integer(epochs, "epochs"), positive_int(batch_size, "batch_size")
        accumulate = positive_int(accumulate, "accumulate")
        if verbose not in (0, 1, 2):
            raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
        x, target = self._rows(x, y)
        _check_finite(x)
        weight = None if sample_weight is None else check_weights(sample_weight, len(x))
        rows, held_out = self._hold_out(x, target, weight, validation)
        if class_weight is not None:
            by_class = _class_weights(class_weight, target, self.model.output_shape[-1])
            weight = by_class if weight is None else by_class * weight
        if weight is not None:
            check_weights(weight[rows], len(rows), "sample_weight times class_weight")
        data = Batches(
            x,
            target,
            weight,
            rows,
            dtype=self.model.dtype,
            batch_size=batch_size,
            accumulate=accumulate,
            shuffle=shuffle,
            rng=np.random.default_rng(rng),
            augment=augment,
        )
        return self._run(data, epochs, held_out, verbose)

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> dict[str, float]:
        """Return the loss and the metrics of the model's predictions.

        Parameters
        ----------
        x : array_like of shape (N, ...)
        y : array_like
            The targets, as the loss takes them.

        Returns
        -------
        dict
            Such as {"loss": 0.07, "accuracy": 0.98}.
        """
        return self._evaluate(*self._rows(x, y), None)

    def step(self, x: ArrayLike, y: ArrayLike) -> float:
        """Update the model once, by one batch, and return the loss it had before.

        Parameters
        ----------
        x : array_like of shape (N, ...)
        y : array_like
            The targets, as the loss takes them.

        Raises
        ------
        TrainingError
            The loss is not finite; nothing is updated.
        """
        x, target = self._rows(x, y)
        batch: Batch = (as_input(x, self.model.dtype, "x"), target, None)
        with _interrupts_wait():
            return self._update([batch], len(x), {})["loss"] / len(x)

    def _rows(self, x: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array]:
        """Return x, in its own dtype, and the targets, both checked against the model."""
        x = np.asarray(x)
        shape = self.model.input_shape
        if x.dtype.kind not in "fiub":
            raise TypeError(f"Trainer: x must hold real numbers, got dtype {x.dtype}")
        if x.ndim == 0 or x.shape[1:] != shape:
            expected = ", ".join(["N", *map(str, shape)])
            raise ValueError(f"Trainer: x must have shape ({expected}), got {x.shape}")
        if len(x) == 0:
            raise ValueError("Trainer: x must have at least one row, got 0")
        if y is None:
            raise ValueError("Trainer: y must hold a target for each row of x, got None")
        y = np.asarray(y)
        if y.shape[:1] != x.shape[:1]:
            raise ValueError(
                f"Trainer: y must have as many rows as x, {len(x)}, got shape {y.shape}"
            )
        return x, self.loss.check_target(y, (len(x), *self.model.output_shape))

    def _hold_out(
        self, x: Array, target: Array, weight: Array | None, validation: Any
    ) -> tuple[Index, Batch | None]:
        """Return the rows to train on and what to validate on."""
        if validation is None:
            return np.arange(len(x)), None
        if isinstance(validation, (tuple, list)):
            if len(validation) != 2:
                raise ValueError(f"validation must be (x, y), got {len(validation)} items")
            x_held, target_held = self._rows(*validation)
            _check_finite(x_held)
            return np.arange(len(x)), (x_held, target_held, None)
        if not 0 < validation < 1:
            raise ValueError(f"validation must be a fraction in (0, 1), got {validation!r}")
        if target.ndim == 1 and target.dtype.kind in "iu":
            rows, held = stratified_split(target, validation, rng=0)
        else:
            rows, held = random_split(len(x), validation, rng=0)
        if weight is not None:
            weight = check_weights(weight[held], len(held), "sample_weight of the rows held out")
        return rows, (x[held], target[held], weight)

    def _run(self, data: Batches, epochs: int, held_out: Batch | None, verbose: int) -> History:
        """Train for so many epochs; see `fit`."""
        self.stop = False
        first = len(self.history.epochs)
        progress = Progress(first + epochs, verbose)
        checkpoint = _Checkpoint(self.model, self.optimizer)
        try:
            for epoch in range(first + 1, first + epochs + 1):
                logs = self._epoch(epoch, data, checkpoint, progress)
                if held_out is not None:
                    figures = self._evaluate(*held_out)
                    logs |= {f"val_{name}": value for name, value in figures.items()}
                self.history.epochs.append(logs)
                progress.end_epoch(logs)
                for callback in self.callbacks:
                    call = getattr(callback, "on_epoch_end", callback)
                    self.stop |= bool(call(self, epoch, logs))
                if self.stop:
                    break
        finally:
            progress.close()
        return History(self.history.epochs[first:])

    def _epoch(
        self, epoch: int, data: Batches, checkpoint: _Checkpoint, progress: Progress
    ) -> dict[str, float]:
        """Go through the data once and return the means of loss and metrics."""
        progress.begin_epoch(epoch, len(data))
        sums, weights, number = dict.fromkeys(("loss", *self.metrics), 0.0), 0.0, 0
        try:
            for batches, weight in data:
                number += 1
                with _interrupts_wait():
                    figures = self._update(batches, weight, self.metrics, checkpoint)
                sums = {name: total + figures[name] for name, total in sums.items()}
                weights += weight
                progress.end_batch(figures["loss"] / weight)
            if not all(np.isfinite(p.data).all() for p in self.model.parameters().values()):
                raise TrainingError("the weights are no longer finite")
        except TrainingError as error:
            checkpoint.restore()
            raise TrainingError(
                f"epoch {epoch}, batch {number}: {error}; the model went back to its state after "
                f"update {self.optimizer.steps} (a smaller learning_rate or a clip_norm may help)"
            ) from None
        rows = len(data.rows)
        return {name: v / (weights if name == "loss" else rows) for name, v in sums.items()}

    def _update(
        self,
        batches: Iterable[Batch],
        weight: float,
        metrics: Mapping[str, Metric],
        checkpoint: _Checkpoint | None = None,
    ) -> dict[str, float]:
        """Update once, by the weighted mean over `batches`, whose weights sum to `weight`.

        Returns the sums over the rows of weight times loss and of each metric.
        """
        sums = dict.fromkeys(("loss", *metrics), 0.0)
        parameters = self.model.parameters()
        try:
            for x, target, weights in batches:
                y, backward = self.model(x, training=True)
                value, loss_backward = self.loss(y, target, weights)
                if not math.isfinite(value):
                    raise TrainingError(f"the loss is {value}")
                part = float(len(x) if weights is None else weights.sum())
                sums["loss"] += part * value
                for name, metric in metrics.items():
                    sums[name] += len(x) * metric(target, y)
                dy = loss_backward()
                if part != weight:
                    dy *= part / weight
                backward(dy, input_gradient=False)
        except BaseException:
            for parameter in parameters.values():
                parameter.clear_grad()
            raise
        if checkpoint is not None:
            checkpoint.offer()
        self.optimizer.step(parameters)
        return sums

    def _evaluate(self, x: Array, target: Array, weight: Array | None) -> dict[str, float]:
        y = self.model.predict(x)
        value, _ = self.loss(y, target, weight)
        return {"loss": value} | {name: m(target, y) for name, m in self.metrics.items()}


class _Checkpoint:
    """The latest state that is known to give a finite loss, in memory that is used again."""

    def __init__(self, model: Model, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.parameters: dict[str, Array] = {}
        self.state: dict[str, Array] = {}
        self.offers = 0
        self._take()

    def offer(self) -> None:
        """Take each sixteenth state offered: a copy at every update would cost time."""
        self.offers += 1
        if self.offers % _UPDATES_BETWEEN_COPIES == 0:
            self._take()

    def _take(self) -> None:
        weights = {name: p.data for name, p in self.model.parameters().items() if p.trainable}
        _copy(weights, self.parameters)
        self.buffers = self.model.buffers()  # never written to: set_buffer replaces them
        _copy(self.optimizer._live(), self.state)

    def restore(self) -> None:
        """Put the state back."""
        parameters = self.model.parameters()
        for name, array in self.parameters.items():
            parameters[name].assign(array)
        for name, array in self.buffers.items():
            self.model.set_buffer(name, array)
        self.optimizer.load_state(self.state)


def _copy(source: Mapping[str, Array], target: dict[str, Array]) -> None:
    """Copy all arrays of `source` into those of `target`, which gets what it lacks."""
    for name, array in source.items():
        if name in target:
            np.copyto(target[name], array)
        else:
            target[name] = array.copy()


@contextmanager
def _interrupts_wait() -> Iterator[None]:
    """Let a Ctrl-C that comes inside the block wait for its end: no update is left half done."""
    previous = signal.getsignal(signal.SIGINT)
    if not callable(previous) or threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if waiting:
            previous(*waiting[0])


def _named(metrics: Mapping[str, Metric] | Iterable[Metric]) -> dict[str, Metric]:
    """Return metrics by name; those of a sequence are named like their functions."""
    if not isinstance(metrics, Mapping):
        metrics = {getattr(m, "__name__", type(m).__name__): m for m in metrics}
    for name, metric in metrics.items():
        if not callable(metric):
            raise TypeError(f"Trainer: metrics must be callables, got {metric!r} for {name!r}")
    if "loss" in metrics:
        raise ValueError("Trainer: metrics must not be named 'loss'")
    return dict(metrics)


def _class_weights(weights: Mapping[int, float] | ArrayLike, target: Array, classes: int) -> Array:
    """Return the weight of each row's class."""
    if target.ndim != 1 or target.dtype.kind not in "iu":
        raise ValueError("class_weight must come with integer labels")
    if isinstance(weights, Mapping):
        if unknown := set(weights) - set(range(classes)):
            raise ValueError(f"class_weight must name labels 0 .. {classes - 1}, got {unknown}")
        weights = [weights.get(label, 1.0) for label in range(classes)]
    return check_weights(weights, classes, "class_weight")[target]


def _check_finite(x: Array) -> None:
    """Raise ValueError where a row of x holds NaN or infinity; a few rows are read at a time."""
    if x.dtype.kind != "f":
        return
    rows = max(1, 2**20 // max(1, x[0].size))
    for start in range(0, len(x), rows):
        finite = np.isfinite(x[start : start + rows]).reshape(-1, x[0].size).all(axis=1)
        if not finite.all():
            row = start + int(np.argmin(finite))
            raise ValueError(f"Trainer: x must be finite, got NaN or infinity in row {row}")
