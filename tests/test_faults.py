"""The rows of the fault list that a model and its training can meet, by their numbers."""

from __future__ import annotations

import numpy as np
import pytest

import cycnn

from .contract import cases
from .helpers import normal, placements, same_bits


def network(**options):
    """Return a small built network."""
    layers = [cycnn.Conv(5, 3), cycnn.ReLU(), cycnn.MaxPool(2), cycnn.Flatten(), cycnn.Dense(3)]
    return cycnn.Sequential(layers, **({"input_shape": (6, 7, 2), "rng": 0} | options))


def trainer_of(model, learning_rate=0.1):
    """Return a trainer of a classifier."""
    return cycnn.Trainer(model, cycnn.CrossEntropy(), cycnn.SGD(learning_rate))


@pytest.fixture
def x(rng):
    """Return four images."""
    return normal(rng, (4, 6, 7, 2))


Y = np.array([0, 1, 2, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_1_nan_in_x_reaches_its_own_row_only(x, value):
    model = network()
    clean = model.predict(x)
    x[2, 3, 3, 1] = value
    y = model.predict(x)
    assert not np.isfinite(y[2]).all()
    assert same_bits(y[[0, 1, 3]], clean[[0, 1, 3]])


BORDERED = {"MaxUnpool", "Pad", "ConvTranspose"}  # some of their outputs see no input


@pytest.mark.parametrize("row", cases())
def test_1_nan_goes_through_every_layer_and_stays_in_its_row(rng, row):
    layer, inputs = row.build(), row.inputs(rng, 3)
    clean, _ = row.call(layer, inputs)
    for x in inputs:
        if x.dtype.kind == "f":  # the others are indices
            x[1] = np.nan
    y, _ = row.call(layer, inputs)
    lost = ~np.isnan(y[1])
    assert not lost.all() if type(layer).__name__ in BORDERED else not lost.any()
    assert same_bits(y[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_2_nan_in_x_is_refused_in_training(x, value):
    x[2, 3, 3, 1] = value
    with pytest.raises(ValueError, match="finite|NaN|nan|inf"):
        trainer_of(network()).fit(x, Y, verbose=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_2_nan_in_y_is_refused_in_training(x, value):
    model = cycnn.Sequential([cycnn.Flatten(), cycnn.Dense(1)], input_shape=(6, 7, 2), rng=0)
    before = model.parameters()["1.weight"].data.copy()
    trainer = cycnn.Trainer(model, cycnn.MeanSquaredError(), cycnn.SGD(0.1))
    target = np.array([0.5, 1, value, 2])
    for train in (lambda: trainer.fit(x, target, verbose=0), lambda: trainer.step(x, target)):
        with pytest.raises(ValueError, match="target must be finite"):
            train()
    assert same_bits(model.parameters()["1.weight"].data, before)


def test_2_nan_in_weights_stops_training(x):
    model = network()
    model.parameters()["0.bias"].assign(np.full(5, np.nan))
    with pytest.raises(FloatingPointError, match="epoch 1.*batch 1"):
        trainer_of(model).fit(x, Y, verbose=0)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int8", "uint8", "uint64", "int32", ">f4"])
def test_4_5_9_any_real_x_is_cast_and_never_wraps(dtype):
    model = network()
    x = (np.arange(4 * 6 * 7 * 2).reshape(4, 6, 7, 2) % 128).astype(dtype)
    assert same_bits(model.predict(x), model.predict(x.astype("float32")))


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_3_a_softmax_of_nothing_but_infinities_is_nan(value):
    logits = np.zeros((2, 3), "float32")
    logits[1] = value
    for layer in (cycnn.Softmax(), cycnn.LogSoftmax()):
        y, _ = layer.build((3,))(logits)
        assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()
    assert np.isnan(cycnn.CrossEntropy()(logits, [0, 0])[0])


def test_7_8_9_10_11_a_model_takes_arrays_from_anywhere_in_memory(x):
    model = network()
    expected, loss = model.predict(x), trainer_of(network()).step(x, Y)
    for name, placed in placements(x):
        assert same_bits(model.predict(placed), expected), name
        assert trainer_of(network()).step(placed, Y) == loss, name


@pytest.mark.parametrize("wrong", [None, "text", object(), 1j, [["a"]], {}])
def test_6_what_is_no_number_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        network().predict(wrong)
    with pytest.raises((TypeError, ValueError)):
        network().predict(np.full((2, 6, 7, 2), wrong))


def test_12_batch_of_none_predicts_nothing(x):
    assert network().predict(x[:0]).shape == (0, 3)


def test_13_batch_of_none_is_refused_in_training(x):
    trainer = trainer_of(network())
    for train in (trainer.fit, trainer.step, trainer.evaluate):
        with pytest.raises(ValueError, match="row|batch|empty|0"):
            train(x[:0], Y[:0])
    with pytest.raises(ValueError, match="row|batch|empty|0"):
        cycnn.CrossEntropy()(np.zeros((0, 3)), np.zeros(0, int))


@pytest.mark.parametrize("shape", [(6, 7, 0), (0, 7, 2), (6, -1, 2), (6, 2.5, 2), (), "abc", 7])
def test_14_impossible_input_shapes(shape):
    with pytest.raises((TypeError, ValueError), match=r"."):
        network(input_shape=shape)


def test_15_a_kernel_larger_than_its_input_is_named_with_both_sizes():
    with pytest.raises(ValueError, match="9.*7|7.*9"):
        cycnn.Conv(4, 9).build((20, 7, 2), rng=0)
    with pytest.raises(ValueError, match="9.*8|8.*9"):
        cycnn.Conv(4, 5, dilation=2).build((20, 8, 2), rng=0)
    with pytest.raises(ValueError, match="3.*2|2.*3"):
        cycnn.MaxPool(3).build((5, 2, 4))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cycnn.Conv(4, 3, stride=0), "stride.*0"),
        (lambda: cycnn.Conv(4, 3, stride=(1, -1)), "stride.*-1"),
        (lambda: cycnn.Conv(4, 3, dilation=0), "dilation.*0"),
        (lambda: cycnn.Conv(4, 3, padding=-1), "padding.*-1"),
        (lambda: cycnn.Conv(4, 3, padding=((0, -1), (0, 0))), "padding.*-1"),
        (lambda: cycnn.Conv(4, 3, padding="full"), "padding.*full"),
        (lambda: cycnn.Conv(4, 3, padding_mode="mirror"), "padding_mode.*mirror"),
        (lambda: cycnn.Conv(0, 3), "filters.*0"),
        (lambda: cycnn.Conv(4, 0), "kernel_size.*0"),
        (lambda: cycnn.Conv(4.5, 3), r"filters.*4\.5"),
        (lambda: cycnn.Conv(4, (3, "a")), "kernel_size.*a"),
        (lambda: cycnn.Conv(4, 3, groups=0), "groups.*0"),
        (lambda: cycnn.DepthwiseConv(3, multiplier=0), "multiplier.*0"),
        (lambda: cycnn.MaxPool(0), "pool_size.*0"),
        (lambda: cycnn.MaxPool(2, stride=0), "stride.*0"),
        (lambda: cycnn.AvgPool(2, dilation=0), "dilation.*0"),
        (lambda: cycnn.AvgPool(2, padding=-1), "padding.*-1"),
        (lambda: cycnn.BatchNorm(momentum=1.5), r"momentum.*1\.5"),
        (lambda: cycnn.BatchNorm(eps=-1e-5), "eps.*-1e-05"),
        (lambda: cycnn.BatchNorm(eps=float("nan")), "eps.*nan"),
        (lambda: cycnn.Dropout(1.0), r"rate.*1\.0"),
        (lambda: cycnn.Dropout(-0.1), r"rate.*-0\.1"),
        (lambda: cycnn.Dense(0), "features.*0"),
        (lambda: cycnn.Concat(axis=0), "axis.*0"),
    ],
)
def test_16_wrong_arguments_are_named_at_construction(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize(
    "make, name",
    [
        (lambda value: cycnn.BatchNorm(momentum=value), "momentum"),
        (lambda value: cycnn.BatchNorm(eps=value), "eps"),
        (lambda value: cycnn.Dropout(value), "rate"),
        (lambda value: cycnn.Add([1.0, value]), "coefficients"),
        (lambda value: cycnn.CrossEntropy(label_smoothing=value), "label_smoothing"),
        (lambda value: cycnn.Hinge(value), "margin"),
        (lambda value: cycnn.Huber(value), "delta"),
        (lambda value: cycnn.SGD(0.1, momentum=value), "momentum"),
        (lambda value: cycnn.SGD(0.1, 0.9, value), "nesterov"),
        (lambda value: cycnn.Adam(weight_decay=value), "weight_decay"),
        (lambda value: cycnn.schedules.Cosine(value, 9), "start"),
        (lambda value: cycnn.schedules.OneCycle(1, 9, value), "rise"),
        (lambda value: cycnn.callbacks.WeightAverage(value), "decay"),
        (lambda value: cycnn.data.Mixup(value), "alpha"),
    ],
)
@pytest.mark.parametrize("value", ["0.5", [0.5], {}])
def test_16_what_is_no_number_is_named_at_construction(make, name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        make(value)


def test_17_pool_padding_beyond_half_the_window():
    for pool in (cycnn.MaxPool, cycnn.AvgPool, cycnn.LpPool):
        with pytest.raises(ValueError, match="padding.*2"):
            pool(3, padding=2).build((8, 8, 1))


def test_18_21_channels_rank_and_extents(x):
    model = network()
    for wrong, message in (
        (x[..., :1], r"\(6, 7, 2\).*\(.*6, 7, 1\)|2.*1"),
        (x[0], "."), (x[None], "."), (x[:, :, :5], "."), (x[0, 0, 0, 0], "."),
    ):  # fmt: skip
        for use in (model.predict, model):
            with pytest.raises(ValueError, match=message):
                use(wrong)


def test_19_groups_must_divide():
    with pytest.raises(ValueError, match="groups.*3.*4|4.*groups.*3"):
        cycnn.Conv(4, 3, groups=3)
    with pytest.raises(ValueError, match="groups.*3|3.*groups"):
        cycnn.Conv(6, 3, groups=3).build((6, 6, 4), rng=0)


def test_20_a_parameter_of_another_shape():
    parameter = network().parameters()["0.bias"]
    with pytest.raises(ValueError, match=r"\(5,\).*\(4,\)"):
        parameter.assign(np.zeros(4))


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 1, 2, 3], "3"),
        ([0, 1, 2, -1], "-1"),
        ([0, 1, 2, 0.5], r"0\.5"),
        ([0, 1, 2, np.nan], "nan"),
        (["a", "b", "c", "d"], "label"),
        ([[0], [1], [2], [0]], r"\(4, 1\)"),
        ([0, 1, 2], "3.*4|4.*3"),
    ],
)
def test_22_23_27_wrong_labels(x, labels, message):
    model = network()
    before = [p.data.copy() for p in model.parameters().values()]
    trainer = trainer_of(model)
    for train in (lambda: trainer.fit(x, labels, verbose=0), lambda: trainer.step(x, labels)):
        with pytest.raises((TypeError, ValueError), match=message):
            train()
    assert all(map(same_bits, before, [p.data for p in model.parameters().values()]))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint64", "float32", ">i4", "bool"])
def test_23_labels_of_any_whole_kind(x, dtype):
    labels = np.array([0, 1, 1, 0])
    expected = trainer_of(network()).step(x, labels)
    assert trainer_of(network()).step(x, labels.astype(dtype)) == expected


@pytest.mark.parametrize("weight", [[0, 0, 0, 0], [1, -1, 1, 1], [1, np.nan, 1, 1], [1, 1, 1]])
def test_24_impossible_weights(x, weight):
    with pytest.raises(ValueError, match="weight"):
        trainer_of(network()).fit(x, Y, sample_weight=weight, verbose=0)
    with pytest.raises(ValueError, match="weight"):
        cycnn.CrossEntropy()(np.zeros((4, 3)), Y, weight)


def test_25_one_class_only(x):
    model = network()
    y = np.ones(4, int)
    history = trainer_of(model).fit(x, y, epochs=2, validation=(x, y), verbose=0)
    assert np.isfinite([*history["loss"], *history["val_loss"]]).all()
    alone = network(rng=1)[:-1]
    one = cycnn.Sequential([*alone.layers, cycnn.Dense(1)], input_shape=(6, 7, 2), rng=0)
    assert trainer_of(one).fit(x, np.zeros(4), verbose=0)["loss"] == [0.0]  # -log 1


def test_28_batch_norm_over_a_single_value():
    layer = cycnn.BatchNorm().build((3,))
    with pytest.raises(ValueError, match="BatchNorm|batch"):
        layer(np.ones((1, 3)), training=True)
    assert layer(np.ones((1, 3)))[0].shape == (1, 3)


@pytest.mark.parametrize("rate", [float("nan"), -0.1, float("inf"), "0.1", None])
def test_29_wrong_learning_rates(rate):
    for optimizer in (cycnn.SGD, cycnn.Adam):
        with pytest.raises((TypeError, ValueError), match="learning_rate"):
            optimizer(rate)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: cycnn.SGD(0.1, momentum=1.0), r"momentum.*1\.0"),
        (lambda: cycnn.SGD(0.1, momentum=float("nan")), "momentum.*nan"),
        (lambda: cycnn.SGD(0.1, nesterov=True), "nesterov"),
        (lambda: cycnn.SGD(0.1, weight_decay=-1), "weight_decay.*-1"),
        (lambda: cycnn.SGD(0.1, clip_norm=0), "clip_norm.*0"),
        (lambda: cycnn.Adam(0.1, beta1=1.0), r"beta1.*1\.0"),
        (lambda: cycnn.Adam(0.1, beta2=-0.5), r"beta2.*-0\.5"),
        (lambda: cycnn.Adam(0.1, eps=0.0), "eps.*0"),
    ],
)
def test_29_wrong_optimizers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_30_divergence_leaves_good_weights(x):
    model = network()
    with pytest.raises(FloatingPointError, match="epoch"):
        trainer_of(model, 1e30).fit(x, Y, epochs=50, verbose=0)
    assert np.isfinite(model.predict(x)).all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: cycnn.Dense(2**40).build((2**30,), rng=0),
        lambda: cycnn.Conv(2**31, 2**10).build((2**11, 2**11, 2**20), rng=0),
        lambda: cycnn.Dense(2**62).build((8,), rng=0),
    ],
)
def test_31_32_impossible_sizes(build, x):
    model = network()
    before = model.predict(x)
    with pytest.raises((MemoryError, ValueError, OverflowError)):
        build()
    assert same_bits(model.predict(x), before)


@pytest.mark.parametrize("size", [2**40, 2**62, 2**70])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: cycnn.Conv(2, 1, padding=size),
        lambda size: cycnn.Conv(2, 1, padding=((0, 0), (0, size))),
        lambda size: cycnn.Conv(2, 2, dilation=size, padding=size),
        lambda size: cycnn.ConvTranspose(2, 1, stride=size),
        lambda size: cycnn.Pad(size),
        lambda size: cycnn.Upsample(size),
        lambda size: cycnn.AdaptiveAvgPool(size),
        lambda size: cycnn.MaxUnpool((size, 1)),
        lambda size: cycnn.LocallyConnected(size, 1),
    ],
)
def test_31_sizes_beyond_any_memory(x, make, size):
    def use():
        layer, shape = make(size), x.shape[1:]
        if layer.merges:
            return layer.build((shape, shape))((x, np.zeros(x.shape, int)))
        return layer.build(shape, rng=0)(x)

    with pytest.raises((MemoryError, ValueError)):
        use()


def test_32_an_output_that_does_not_fit_in_memory(x):
    layer = cycnn.Conv(1, 1, padding=2**20, bias=False).build((6, 7, 2), rng=0)
    with pytest.raises((MemoryError, ValueError)):
        layer(x)
    assert layer.weight.data.shape == (1, 1, 2, 1)


def test_33_use_before_build(x):
    with pytest.raises(cycnn.NotBuiltError, match="Conv.*build"):
        cycnn.Conv(4, 3)(x)
    with pytest.raises(RuntimeError):
        cycnn.Dense(4)(np.zeros((1, 2)))
    model = cycnn.Sequential([cycnn.Flatten(), cycnn.Dense(3)])
    for use in (model, model.predict, trainer_of):
        with pytest.raises(cycnn.NotBuiltError, match="Sequential.*build"):
            use(model if use is trainer_of else x)


def test_a_layer_is_built_once_per_shape(x):
    layer = cycnn.Conv(4, 3).build((6, 7, 2), rng=0)
    kept = layer(x)[0]
    model = cycnn.Sequential([layer, cycnn.Flatten()], input_shape=(6, 7, 2), rng=1)
    assert model.predict(x).shape == (4, kept[0].size)


def test_subnormals_are_neither_flushed_nor_slowed_for_the_process():
    tiny = np.float32(1e-45)
    layer = cycnn.Dense(1, bias=False).build((1,), rng=0)
    layer.weight.assign([[1.0]])
    assert layer(np.array([[tiny]]))[0][0, 0] == tiny
    assert np.float32(tiny) * np.float32(1) == tiny
