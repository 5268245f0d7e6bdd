"""The training loop: `Trainer(model, loss, optimizer).fit(x, y)`."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cycnn._check import Array, as_input, integer, positive_int
from cycnn.data import Augment, Batch, Batches, Index, Rng, Stream
from cycnn.feed import HeldOut, check_finite, check_rows, class_weights, held_out_rows
from cycnn.graph import Model, TrainingRuns
from cycnn.guard import (
    LastGood,
    TrainingError,
    interrupts_wait,
    random_states,
    set_random_states,
)
from cycnn.history import History, RateCurve
from cycnn.losses import Loss, check_weights
from cycnn.metrics import Metric, named_metrics
from cycnn.optim import Optimizer
from cycnn.progress import Progress
from cycnn.rates import sweep_rates
from cycnn.resume import Position, describe, differing, read_training, write_training


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
        an epoch, not weighted, or for those marked `cycnn.metrics.whole` only what they are on
        the validation rows. By default what the loss names: accuracy for `CrossEntropy`.
    callbacks : sequence of Callback or callable
        A callable is called after each epoch as `callback(trainer, epoch, logs)`: the epoch counts
        from 1, logs are its figures. Training ends when one returns True or sets `trainer.stop`.
        See `cycnn.callbacks` for those there are and for what else they may follow.

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
        self.metrics = named_metrics(loss.metrics if metrics is None else metrics)
        # A sort keeps the order of equals: those that come after the others come last.
        self.callbacks = tuple(sorted(callbacks, key=lambda c: getattr(c, "after_others", False)))
        self.history = History()
        self.stop = False
        self._runs = TrainingRuns(model)
        self._position: Position | None = None  # of the fit that runs or was broken off
        self._resumed = False  # whether the next fit goes on from there
        self._metrics = {n: m for n, m in self.metrics.items() if not getattr(m, "whole", False)}

    def fit(
        self,
        x: Any,
        y: ArrayLike | None = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        validation: float | tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
        rng: Rng = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | ArrayLike | None = None,
        augment: Augment | Sequence[Augment] | None = None,
        accumulate: int = 1,
        verbose: int = 1,
    ) -> History:
        """Train for so many more epochs; a second call continues where the first one ended.

        The last batch of an epoch has the rows that remain, perhaps a single one: a model that
        normalises over one value per channel refuses that (choose another batch size). A Ctrl-C
        takes effect between two updates. After `resume`, the fit that was broken off goes on.

        Parameters
        ----------
        x : array_like of shape (N, ...), or iterable of (x, y) or (x, y, sample_weight)
            The rows, of any real dtype; only a batch at a time is cast to the model's. Without y,
            an iterable of batches, which is gone through once in each epoch.
        y : array_like, optional
            The targets, as the loss takes them.
        epochs : int
            How often to go through all rows.
        batch_size : int
            Rows per batch, where x is an array.
        validation : float or (x, y), optional
            What val_loss and the other val_ figures are taken on after each epoch: rows given, or
            a fraction held out of x, by class for integer targets. The same fraction of the same
            data always holds out the same rows, so a second fit does not train on them either.
        shuffle : bool
            Draw a new order in each epoch, where x is an array.
        rng : int or Generator, optional
            Source of the order and of what `augment` draws.
        sample_weight : array_like of shape (N,), optional
            What each row counts in the loss; rows of weight 0 are left out.
        class_weight : mapping of int to float, or array_like of shape (C,), optional
            What each label counts; multiplies the sample weights. Labels not in a mapping: 1.
        augment : callable or list of them, optional
            `augment(x, rng) -> x`, called with each batch after the cast; see `random_shift`,
            `random_flip`, `random_cutout`, `random_noise` and `Mixup` in `cycnn.data`.
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
            x, targets the loss refuses, weights that are negative, not finite or all zero. The
            batches of an iterable are checked when they come.
        TrainingError
            The loss is no longer finite. The model and the optimizer go back to a state at most
            16 updates old that gave a finite loss.
        """
        epochs, batch_size = integer(epochs, "epochs"), positive_int(batch_size, "batch_size")
        accumulate = positive_int(accumulate, "accumulate")
        if verbose not in (0, 1, 2):
            raise ValueError(f"verbose must be 0, 1 or 2, got {verbose!r}")
        generator = np.random.default_rng(rng)
        data: Batches | Stream
        held_out: HeldOut | None
        if y is None and isinstance(x, Iterable) and not hasattr(x, "__array__"):
            for name, value in (("sample_weight", sample_weight), ("class_weight", class_weight)):
                if value is not None:
                    raise ValueError(f"{name} must come with arrays x and y, got batches")
            if epochs > 1 and iter(x) is x:
                raise ValueError(f"epochs must be 1 for an iterator, it runs dry, got {epochs}")
            held_out = None if validation is None else self._validation(validation)
            data = Stream(x, self._batch, accumulate=accumulate, rng=generator, augment=augment)
        else:
            x, target = self._rows(x, y)
            check_finite(x)
            weight = None if sample_weight is None else check_weights(sample_weight, len(x))
            if isinstance(validation, (tuple, list)) or validation is None:
                rows: Index = np.arange(len(x))
                held_out = None if validation is None else self._validation(validation)
            else:
                rows, held_out = held_out_rows(x, target, weight, validation)
            if class_weight is not None:
                by_class = class_weights(class_weight, target, self.model.output_shape[-1])
                weight = by_class if weight is None else by_class * weight
            counts = self.loss.row_weights(target, weight)
            if counts is not None:
                check_weights(counts[rows], len(rows), "sample_weight times class_weight")
            data = Batches(
                x, target, weight, rows, counts=counts, dtype=self.model.dtype,
                batch_size=batch_size, accumulate=accumulate, shuffle=shuffle, rng=generator,
                augment=augment,
            )  # fmt: skip
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
        batch = self._batch(x, y)
        with interrupts_wait():
            return self._update([batch], batch.total, {})["loss"] / batch.total

    def find_lr(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        lowest: float = 1e-6,
        highest: float = 1.0,
        steps: int = 100,
        batch_size: int = 32,
        rng: Rng = None,
    ) -> RateCurve:
        """Try learning rates, each a little higher than the one before, and return their losses.

        The range test of Smith (2017), section 3.3: one update for each rate, on fresh batches; it
        ends early when the loss is no number any more or four times the smallest. Losses are
        smoothed, as a mean that forgets by 0.9. The model and the optimizer come back as they were.

        Parameters
        ----------
        x : array_like of shape (N, ...)
        y : array_like
        lowest, highest : float
            The rates grow from the one to the other, by the same factor at each update.
        steps : int
            How many rates to try.
        batch_size : int
        rng : int or Generator, optional
            Source of the batches.

        Returns
        -------
        RateCurve
            `curve.learning_rate` and `curve.loss`, arrays, and `curve.suggestion`.

        Examples
        --------
        >>> curve = trainer.find_lr(x, y, rng=0)                             # doctest: +SKIP
        >>> trainer = Trainer(model, loss, Adam(curve.suggestion))           # doctest: +SKIP
        """
        if not 0 < lowest < highest < math.inf:
            raise ValueError(
                f"find_lr: lowest must be above 0 and below highest, got {lowest!r}, {highest!r}"
            )
        steps = integer(steps, "find_lr: steps", 2)
        x, target = self._rows(x, y)
        check_finite(x)
        data = Batches(
            x, target, None, np.arange(len(x)), counts=self.loss.row_weights(target, None),
            dtype=self.model.dtype, batch_size=positive_int(batch_size, "find_lr: batch_size"),
            rng=np.random.default_rng(rng),
        )  # fmt: skip
        rates = np.geomspace(lowest, highest, steps)
        return sweep_rates(self._update, data, self.model, self.optimizer, rates)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that the rest of the training depends on to a file, which `resume` reads.

        Weights and buffers, the optimizer's state and its schedule's, the state of every random
        generator, the history, the state of the callbacks, and the place in the epoch. The file
        appears whole or not at all; an older one at `path` stays whole until the new one is.

        A callback may save during a fit, as `Checkpoint` does, and anyone after a Ctrl-C.
        """
        notes = {
            "made of": describe(self.model, self.optimizer, self.callbacks),
            "history": self.history.epochs, "random": random_states(self.model),
        }  # fmt: skip
        parts = {
            "parameters": {name: p.data for name, p in self.model.parameters().items()},
            "buffers": self.model.buffers(),
            "optimizer": self.optimizer.state(),
            **{f"callback{i}": c.state() for i, c in self._stateful()},
        }
        if self._position is not None:
            self._position.stop = self.stop
        write_training(path, parts, notes, self._position)

    def resume(self, path: str | os.PathLike[str]) -> None:
        """Take up a training that `save` wrote, on a trainer that was made in the same way.

        If it was saved in the middle of a `fit`, the next call of `fit`, with the same data and
        arguments, goes on from there, and ends with the same bits as if nothing had happened.
        Epochs done are counted: `fit(epochs=10)` after a stop in epoch 7 runs the rest of it and 3
        more, and after a stop at the very end none.

        Raises
        ------
        ModelFileError
            If the file is damaged, of another kind or of a newer format.
        ValueError
            If it was saved by a trainer of another model, optimizer or other callbacks; the
            trainer is left as it was.
        OSError
            If it cannot be read.
        """
        parts, notes, position = read_training(path)
        if wrong := differing(
            notes["made of"], describe(self.model, self.optimizer, self.callbacks)
        ):
            raise ValueError(f"resume: the trainer must be like the one saved, got {wrong}")
        parameters = self.model.parameters()
        self.optimizer.load_state(parts["optimizer"])
        for name, array in parts["parameters"].items():
            parameters[name].assign(array)
        for name, array in parts["buffers"].items():
            self.model.set_buffer(name, array)
        for i, callback in self._stateful():
            callback.load_state(parts.get(f"callback{i}", {}))
        self.history = History(notes["history"])
        set_random_states(self.model, notes["random"])
        self._position, self._resumed = position, position is not None

    def _rows(self, x: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array]:
        """Return x, in its own dtype, and the targets, both checked against the model."""
        return check_rows(x, y, self.model, self.loss)

    def _batch(self, x: Any, y: Any, sample_weight: Any = None) -> Batch:
        """Return rows given as one batch, checked."""
        x, target = self._rows(x, y)
        weight = None if sample_weight is None else check_weights(sample_weight, len(x))
        counts = self.loss.row_weights(target, weight)
        count = float(len(x) if counts is None else counts.sum())
        return Batch(as_input(x, self.model.dtype, "x"), target, weight, count)

    def _validation(self, rows: Any) -> HeldOut:
        """Return rows given to validate on, checked."""
        if not isinstance(rows, (tuple, list)) or len(rows) != 2:
            raise ValueError(
                f"validation must be (x, y), or a fraction of arrays, got {rows!r:.80}"
            )
        x, target = self._rows(*rows)
        check_finite(x)
        return x, target, None

    def _run(
        self, data: Batches | Stream, epochs: int, held_out: HeldOut | None, verbose: int
    ) -> History:
        """Train for so many epochs; see `fit`."""
        position = self._begin(data, epochs)
        progress = Progress(position.last, verbose)
        good = LastGood(self.model, self.optimizer)
        try:
            while position.epoch <= position.last and not self.stop:
                logs = self._epoch(data, position, good, progress)
                if held_out is not None:
                    figures = self._evaluate(*held_out)
                    logs |= {f"val_{name}": value for name, value in figures.items()}
                with interrupts_wait():
                    self._end_epoch(logs, position, data.rng.bit_generator.state)
                progress.end_epoch(logs)
        except TrainingError:
            self._position = None  # the model is not there any more
            raise
        finally:
            progress.close()
            self._runs.forget()
        for callback in self.callbacks:
            getattr(callback, "on_fit_end", _nothing)(self)
        self._position = None
        return History(self.history.epochs[position.first :])

    def _begin(self, data: Batches | Stream, epochs: int) -> Position:
        """Return where to begin: at a new epoch, or where the training resumed was broken off."""
        position, settings = self._position, data.settings()
        if self._resumed and position is not None:
            if position.settings != settings:
                raise ValueError(
                    f"fit: to go on, it must get the data and arguments it had, "
                    f"{position.settings}, got {settings}"
                )
            position.last, self.stop = position.first + epochs, position.stop
            data.rng.bit_generator.state = position.begun
        else:
            first = len(self.history.epochs)
            begun = data.rng.bit_generator.state
            position = Position(first, first + epochs, settings, first + 1, begun)
            self.stop = False
        self._position, self._resumed = position, False
        return position

    def _end_epoch(self, logs: dict[str, float], position: Position, begun: Any) -> None:
        """Tell everybody the figures of the epoch that ends."""
        self.history.epochs.append(logs)
        position.next_epoch(begun)
        self.optimizer.learning_rate.end_epoch(logs)
        for callback in self.callbacks:
            call = getattr(callback, "on_epoch_end", callback)
            self.stop |= bool(call(self, len(self.history.epochs), logs))

    def _epoch(
        self, data: Batches | Stream, position: Position, good: LastGood, progress: Progress
    ) -> dict[str, float]:
        """Go through the rest of an epoch and return the means over all of it."""
        progress.begin_epoch(position.epoch, len(data), position.updates)
        try:
            for batches, weight in data.epoch(position.updates, position.now):
                with interrupts_wait():
                    figures = self._update(batches, weight, self._metrics, good)
                    position.add(figures, weight, data.rng.bit_generator.state)
                    for callback in self.callbacks:
                        getattr(callback, "on_update_end", _nothing)(self)
                progress.end_batch(figures["loss"] / weight)
            if not position.updates:
                raise ValueError("fit: an epoch must have at least one batch, got none")
            if not all(np.isfinite(p.data).all() for p in self.model.parameters().values()):
                raise TrainingError("the weights are no longer finite")
        except TrainingError as error:
            good.restore()
            raise TrainingError(
                f"epoch {position.epoch}, batch {position.updates + 1}: {error}; the model went "
                f"back to its state after update {self.optimizer.steps} (a smaller learning_rate "
                "or a clip_norm may help)"
            ) from None
        sums = position.sums
        means = {name: sums[name] / sums["rows"] for name in self._metrics}
        return {"loss": sums["loss"] / sums["weight"], **means}

    def _update(
        self, batches: Iterable[Batch], weight: float, metrics: Mapping[str, Metric],
        good: LastGood | None = None,
    ) -> dict[str, float]:  # fmt: skip
        """Update once, by the weighted mean over `batches`, whose rows count `weight` together.

        Returns the number of rows, and the sums over them of weight times loss and of each metric.
        """
        sums = dict.fromkeys(("rows", "loss", *metrics), 0.0)
        parameters = self.model.parameters()
        with self._runs.paces.run() as pace:
            try:
                for x, target, weights, part in batches:
                    pace.on(x.shape)
                    y, backward = self._runs(x)
                    value, loss_backward = self.loss(y, target, weights)
                    if not math.isfinite(value):
                        raise TrainingError(f"the loss is {value}")
                    sums["rows"] += len(x)
                    sums["loss"] += part * value
                    for name, metric in metrics.items():
                        sums[name] += len(x) * metric(target, y)
                    dy = loss_backward()
                    if part != weight:
                        dy *= part / weight
                    backward(dy)
            except BaseException:
                for parameter in parameters.values():
                    parameter.clear_grad()
                raise
            if good is not None:
                good.offer()
            self.optimizer.step(parameters)
        return sums

    def _evaluate(self, x: Array, target: Array, weight: Array | None) -> dict[str, float]:
        y = self.model.predict(x)
        value, _ = self.loss(y, target, weight)
        return {"loss": value} | {name: m(target, y) for name, m in self.metrics.items()}

    def _stateful(self) -> list[tuple[int, Any]]:
        """Return the callbacks that have a state, numbered among all."""
        return [(i, c) for i, c in enumerate(self.callbacks) if hasattr(c, "load_state")]


def _nothing(trainer: Trainer) -> None:
    """Stand for what a callback does not have."""
