"""The registry, the configs and what stacks promise beyond the laws of `check_model`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import SMALL, small

from jaxrl_seq import ops
from jaxrl_seq.models import (
    MODELS,
    S5Config,
    TransformerConfig,
    as_functions,
    config_to_dict,
    make_model,
    model_config,
    model_name,
    register_model,
)
from tests.kinds import every_model


def types(name, x, dtype="float32"):
    """Shapes and types of parameters, fresh carry, carry and y after a chunk x[T, B, D]; compiles nothing."""
    model = as_functions(small(name, dtype=dtype))
    params = jax.eval_shape(lambda key: model.init(key, x.shape[-1]), jax.random.key(0))
    fresh = jax.eval_shape(lambda: model.initialize_carry((x.shape[1],)))
    carry, y = jax.eval_shape(model.apply, params, fresh, x, jnp.zeros(x.shape[:2], bool))
    return params, fresh, carry, y


def compiled(model):
    fns = as_functions(model)
    return fns._replace(init=jax.jit(fns.init, static_argnums=1), apply=jax.jit(fns.apply))


@pytest.mark.parametrize("name", SMALL)
def test_any_input_width_and_types_of_observations(name):
    hash(small(name))
    for x in (jnp.ones((3, 2, 7)), jnp.ones((3, 2, 16), jnp.bfloat16), jnp.ones((3, 2, 2), jnp.int32)):
        params, fresh, carry, y = types(name, x)
        assert y.shape == (3, 2, 16) and y.dtype == jnp.float32
        assert ("embed" in params["params"]) == (x.shape[-1] != 16)
        assert jax.tree.structure(carry) == jax.tree.structure(fresh)


@pytest.mark.parametrize("name", SMALL)
def test_float64_observations_do_not_change_the_carry(name):
    with jax.enable_x64(True):
        params, fresh, carry, y = types(name, jnp.ones((3, 2, 16), jnp.float64))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert y.dtype == jnp.float32
    assert jax.tree.map(lambda leaf: leaf.dtype, carry) == jax.tree.map(lambda leaf: leaf.dtype, fresh)


@pytest.mark.parametrize("name", every_model(SMALL))
def test_memory_is_used_except_by_the_control(name):
    model = compiled(small(name))
    params = model.init(jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(1), (5, 1, 3))
    none = jnp.zeros((5, 1), bool)
    _, y = model.apply(params, model.initialize_carry((1,)), x, none)
    _, other = model.apply(params, model.initialize_carry((1,)), x.at[0].set(0), none)
    remembers = bool(jnp.abs(y[-1] - other[-1]).max() > 1e-5)
    assert remembers == (name != "mlp")
    np.testing.assert_allclose(np.square(y).mean(-1), 1, rtol=1e-3)
    assert small(name).has_memory == remembers


def test_control_has_an_empty_carry():
    assert make_model("mlp").initialize_carry((4,)) == ()


def test_clock_is_shared_and_carries_split_by_environment():
    model = small("transformer")
    carry = model.initialize_carry((4,))
    part = ops.take_envs(carry, jnp.array([1, 3]))
    shapes = {jax.tree_util.keystr(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(part)}
    assert shapes["[0].clock"] == () and shapes["[0].age"] == (2,)


@pytest.mark.parametrize("name", SMALL)
def test_bfloat16_rounds_operands_not_states(name):
    _, _, carry, y = types(name, jnp.ones((3, 2, 3)), "bfloat16")
    assert y.dtype == jnp.float32
    leaves = jax.tree_util.tree_leaves_with_path(carry)
    low = {jax.tree_util.keystr(path[-1:]) for path, leaf in leaves if leaf.dtype == jnp.bfloat16}
    names = {jax.tree_util.keystr(path[-1:]) for path, _ in leaves}
    assert low == names & {".keys", ".values"}  # caches and nothing else
    assert low or name not in ("transformer", "gtrxl", "gpt", "rmt")


def test_s5_starts_stable_and_its_implementations_agree():
    def make(impl):
        return compiled(make_model("s5", width=8, state=16, blocks=2, discretization="bilinear", impl=impl))

    scan, associative = make("scan"), make("associative")
    variables = scan.init(jax.random.key(0), 8)
    params = variables["params"]["blocks_0"]["mixer"]
    decay, _ = ops.bilinear(-jnp.exp(params["log_decay"]), params["frequency"], jnp.exp(params["log_dt"]))
    assert (decay[0] ** 2 + decay[1] ** 2 < 1).all()
    np.testing.assert_allclose(params["frequency"][:4], params["frequency"][4:])
    x = jax.random.normal(jax.random.key(1), (9, 2, 8))
    reset = jax.random.bernoulli(jax.random.key(2), 0.3, (9, 2))
    start = scan.initialize_carry((2,))
    got, want = (model.apply(variables, start, x, reset)[1] for model in (associative, scan))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_mixers_say_how_to_be_used_at_another_width():
    from jaxrl_seq.models import GRU

    with pytest.raises(ValueError, match=r"GRU works at width 8 .*\(1, 1, 5\); put it into a SequenceStack"):
        as_functions(GRU(8)).init(jax.random.key(0), 5)


def test_names_and_configs():
    assert set(SMALL) == set(MODELS)  # every model is tested
    config = model_config("s5", width=32, layers=3)
    assert model_name(config) == "s5"
    data = config_to_dict(config)
    assert data["name"] == "s5" and data["width"] == 32
    assert model_config(**data) == config
    for cls in MODELS.values():
        assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(cls))
        assert cls().build().features == cls().width


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: make_model("grru"), "Unknown model 'grru'. Did you mean 'gru'.*Known: .*transformer"),
        (lambda: make_model("s5", sate=4), "option of model s5 'sate'. Did you mean 'state'"),
        (lambda: S5Config(state=9), r"state=9 must be a multiple of 2 \* blocks=2; nearest: 8 or 10"),
        (lambda: S5Config(state=8, blocks=3), r"2 \* blocks=6; nearest: 6 or 12"),
        (lambda: S5Config(dt_min=0.5, dt_max=0.1), "dt_max=0.1 must be at least dt_min=0.5"),
        (lambda: S5Config(discretization="euler"), "Unknown discretization 'euler'.*bilinear, zoh"),  # type: ignore
        (
            lambda: TransformerConfig(width=20, heads=8),
            r"width=20 must be a multiple of 2 \* heads=16; nearest: 16 or 32",
        ),
        (
            lambda: TransformerConfig(heads=4, kv_heads=3),
            "heads=4 must be a multiple of kv_heads=3; nearest: 3 or 6",
        ),
        (lambda: TransformerConfig(window=0), "window must be positive, got 0"),
        (lambda: make_model("gru", dtype="float16"), "Unknown dtype 'float16'.*Known: bfloat16, float32"),
    ],
)
def test_errors_name_the_numbers_and_the_fix(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    "carry, x, reset, words",
    [
        (
            "gru",
            (3, 2, 5),
            jnp.zeros((2, 3), bool),
            r"so reset must be bool\[3, 2\], got bool\[2, 3\]",
        ),
        ("gru", (3, 2, 5), jnp.zeros((3, 2)), r"reset must be bool\[3, 2\], got float32\[3, 2\]"),
        ("gru", (0, 2, 5), jnp.zeros((0, 2), bool), r"at least one of each, got shape \(0, 2, 5\)"),
        ("gru", (2, 5), jnp.zeros(2, bool), r"x must be \[T, B, D\] .*got shape \(2, 5\)"),
        (
            "gru",
            (3, 4, 5),
            jnp.zeros((3, 4), bool),
            r"is \(2, 16\), but 4 environments .* need \(4, 16\)",
        ),
        (
            "s5",
            (3, 2, 5),
            jnp.zeros((3, 2), bool),
            r"carry is of another model: .*make it with initialize_carry\(\(2,\)",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(carry, x, reset, words):
    model = small("gru")
    params = jax.eval_shape(lambda key: as_functions(model).init(key, 5), jax.random.key(0))
    with pytest.raises(ValueError, match=words):
        jax.eval_shape(model.apply, params, small(carry).initialize_carry((2,)), jnp.zeros(x), reset)


def test_a_carry_of_another_window_is_refused():
    model, other = small("transformer"), small("transformer", window=9)
    params = jax.eval_shape(lambda key: as_functions(model).init(key, 5), jax.random.key(0))
    with pytest.raises(ValueError, match=r"is \(2, 2, 4, 9\), but 2 environments .* need \(2, 2, 4, 8\)"):
        carry = other.initialize_carry((2,))
        jax.eval_shape(model.apply, params, carry, jnp.zeros((3, 2, 5)), jnp.zeros((3, 2), bool))


def test_registering():
    with pytest.raises(ValueError, match="'gru' is taken by GRUConfig"):
        register_model("gru")(dataclasses.make_dataclass("Other", [("width", int, 4)]))
    with pytest.raises(ValueError, match="must be a dataclass with a build"):
        register_model("plain")(int)
    assert "plain" not in MODELS
