"""A trained model whose first part is kept: slice, new head, freeze, unfreeze."""

from __future__ import annotations

import numpy as np

import cycnn

from .helpers import same_bits


def test_a_sliced_model_gets_a_new_head(rng, tmp_path):
    (x, y), (x_test, y_test) = cycnn.datasets.digits()
    few = y < 5
    model = cycnn.Sequential(
        [cycnn.Conv(16, 3, padding="same"), cycnn.BatchNorm(), cycnn.ReLU(), cycnn.MaxPool(2),
         cycnn.Flatten(), cycnn.Dense(5)], input_shape=(8, 8, 1), rng=0,
    )  # fmt: skip
    trainer = cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.Adam(5e-3))
    trainer.fit(x[few], y[few], epochs=3, rng=0, verbose=0)

    body = model[:-1].freeze()
    tuned = cycnn.Sequential([*body.layers, cycnn.Dense(10)], input_shape=(8, 8, 1), rng=1)
    kept = [p.data.copy() for p in body.parameters().values()]
    kept += [b.copy() for b in body.buffers().values()]
    head = tuned[-1].weight.data.copy()
    optimizer = cycnn.Adam(5e-3, weight_decay=0.1)
    trainer = cycnn.Trainer(tuned, cycnn.CrossEntropy(), optimizer)
    trainer.fit(x, y, epochs=6, rng=0, verbose=0)
    assert all(
        map(
            same_bits,
            kept,
            [*(p.data for p in body.parameters().values()), *body.buffers().values()],
        )
    )
    assert not same_bits(tuned[-1].weight.data, head)
    assert not any("5." not in key and "/" in key for key in optimizer.state())
    frozen = trainer.evaluate(x_test, y_test)["accuracy"]
    assert frozen > 0.85

    body.unfreeze()
    trainer = cycnn.Trainer(tuned, cycnn.CrossEntropy(), cycnn.Adam(1e-3))
    trainer.fit(x, y, epochs=2, rng=0, verbose=0)
    assert not same_bits(kept[0], tuned[0].weight.data)
    assert same_bits(tuned[0].weight.data, model[0].weight.data)  # one layer, in both models
    assert trainer.evaluate(x_test, y_test)["accuracy"] > frozen - 0.02
    tuned.save(tmp_path / "tuned")
    assert np.array_equal(cycnn.load(tmp_path / "tuned").predict(x_test), tuned.predict(x_test))
