"""What a built model consists of: layers in running order, stages declared or traced, and what is refused."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray import models
from fused_ray.config import ModelConfig
from fused_ray.errors import ConfigError
from fused_ray.models import Stage, chain
from fused_ray.models.anatomy import anatomy, gated, staged

SHAPE = (1, 8, 8)


class Block(nn.Module):
    """A residual block: nothing can be cut inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.second, self.first = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(F.relu(self.first(x)))


class Residual(nn.Module):
    """Defined in another order than it runs in; its output weight belongs to no called module."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.out = nn.Linear(16, classes)
        self.blocks = nn.Sequential(Block(16), Block(16))
        self.norm = nn.LayerNorm(16)
        self.enter = nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.blocks(F.relu(self.enter(x.flatten(1)))))
        return F.linear(x, self.out.weight, self.out.bias)


class Branching(Residual):
    """Its course depends on its input, so no graph can be traced."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Skipping(nn.Module):
    """The image is needed until the end: a graph, but no chain."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        return self.two(self.one(x)) + x[:, :4]


class Declaring(Residual):
    """Declares stages, rightly or not."""

    wrong = False

    def stages(self) -> list[Stage]:
        enter = Stage(("enter",), lambda x: (torch.sigmoid if self.wrong else F.relu)(self.enter(x.flatten(1))))
        blocks = tuple(f"blocks.{i}.{name}" for i in (0, 1) for name in ("first", "second"))
        return [enter, Stage((*blocks, "norm"), lambda x: self.norm(self.blocks(x))), Stage(("out",), self.out)]


class Lying(Declaring):
    wrong = True


class Forgetful(Declaring):
    """A layer is in no stage."""

    def stages(self) -> list[Stage]:
        first, second, last = super().stages()
        return [first, Stage(second.layers[:-1], second.forward), last]


class Dropping(nn.Module):
    """Functional dropout, which tracing fixes as off."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, 64), nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(F.dropout(self.one(x.flatten(1)), 0.5, self.training))


class Helped(nn.Module):
    """A layer for training only, which stands first; one that is never used; one that runs without gradients."""

    def __init__(self, shape: tuple[int, int, int], classes: int, frozen: bool = False, wrong: str = "") -> None:
        super().__init__()
        self.noise, self.spare = nn.Linear(64, 64), nn.Linear(3, 3)
        self.body, self.fixed, self.head = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, classes)
        self.body.requires_grad_(not frozen)
        self.wrong = wrong

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1)
        h = torch.sigmoid(self.body(self.noise(x) if self.training else x))
        with torch.no_grad():
            fixed = self.fixed(h)
        if self.wrong == "in place":
            h += fixed
        logits = self.head(h + fixed)
        return logits.detach() if self.wrong == "detached" else logits


class Gates(nn.Module):
    """Layers before a ReLU, with and without what lets a gradient past it, and before a smooth function."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        self.enter, self.plain, self.normed, self.norm = (
            *(nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)),
        )
        self.skipped, self.smooth, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, classes)
        nn.init.zeros_(self.out.weight)  # as some models begin: nothing would come back through it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.plain(torch.tanh(self.enter(x.flatten(1)))))
        x = F.relu(self.norm(self.normed(x)))
        x = x + F.relu(x + self.skipped(x))
        return self.out(F.gelu(self.smooth(x)))


def sequence(shape: tuple[int, int, int], classes: int, width: int = 16) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Linear(width, classes)
    )


def attention(shape: tuple[int, int, int], classes: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 8), layer, nn.Flatten(), nn.Linear(8, classes))


def half(shape: tuple[int, int, int], classes: int) -> nn.Module:
    return sequence(shape, classes).half()


def tied(shape: tuple[int, int, int], classes: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, classes))
    model[2].weight = model[1].weight
    return model


def flags(shape: tuple[int, int, int], classes: int) -> nn.Module:
    model = sequence(shape, classes)
    model.register_buffer("seen", torch.zeros(2, dtype=torch.bool))
    return model


def strided(shape: tuple[int, int, int], classes: int) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, classes))
    model[1].weight = nn.Parameter(torch.randn(64, classes).t())
    return model


def drawing(shape: tuple[int, int, int], classes: int) -> nn.Module:
    model = sequence(shape, classes)
    model.register_buffer("fixed", torch.randn(3), persistent=False)
    return model


def broken(shape: tuple[int, int, int], classes: int) -> nn.Module:
    raise RuntimeError("no\nsuch luck")


FACTORIES = {f.__name__: f for f in (Residual, Helped, Gates, Branching, Skipping, Declaring, Lying, Forgetful,
                                     Dropping, sequence, attention, half, tied, flags, strided, drawing,
                                     broken)}  # fmt: skip
FACTORIES |= {"text": lambda shape, classes: "a model", "few": lambda shape, classes: sequence(shape, 3)}
FACTORIES |= {"bare": lambda shape, classes: nn.Flatten(), "large": lambda shape, classes: nn.Linear(9, classes)}
FACTORIES |= {"pixels": lambda shape, classes: nn.Sequential(nn.Flatten(), nn.ReLU())}
FACTORIES |= {"probabilities": lambda shape, classes: nn.Sequential(sequence(shape, classes), nn.Softmax(1))}


@pytest.fixture(autouse=True)
def _module() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        module = types.ModuleType("own_models")
        module.__dict__.update(FACTORIES, number=3)
        patch.setitem(sys.modules, "own_models", module)
        yield


def own(name: str, **args: object) -> ModelConfig:
    return ModelConfig(factory=f"own_models:{name}", args=args)


def refusal(config: ModelConfig, shape: tuple[int, int, int] = SHAPE) -> str:
    with pytest.raises(ConfigError) as caught:
        anatomy(config, shape, 4)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_layers_come_in_the_order_in_which_they_run() -> None:
    found = anatomy(own("Residual"), SHAPE, 4)
    blocks = tuple(f"blocks.{i}.{name}" for i in (0, 1) for name in ("first", "second"))
    assert found.layers == ("enter", *blocks, "norm", "out")
    assert found.norms == ("norm",)
    assert found.ranked == ("enter", *blocks, "out")
    assert found.parameters == 64 * 16 + 16 + 4 * (16 * 16 + 16) + 32 + 16 * 4 + 4


def test_layers_that_no_gradient_reaches_in_evaluation_are_idle() -> None:
    """Those that evaluation runs all the same are layers, but none to rank."""
    for frozen, ranked in ((False, ("body", "head")), (True, ("head",))):  # a user's own freezing is another matter
        found = anatomy(own("Helped", frozen=frozen), SHAPE, 4)
        assert found.layers == ("body", "fixed", "head")
        assert found.idle == ("noise", "spare", "fixed")
        assert found.ranked == ranked
        assert found.entries == (64 * 16 + 16, 16 * 16 + 16, 16 * 4 + 4)


def test_entries_are_those_that_an_adapter_may_change() -> None:
    found = anatomy(own("attention"), SHAPE, 4)
    entries = dict(zip(found.layers, found.entries, strict=True))
    assert entries["2.self_attn"] == 3 * 8 * 8 + 3 * 8
    assert entries["2.self_attn.out_proj"] == 8 * 8 + 8


def test_layers_before_a_relu_cannot_learn_from_zero() -> None:
    config, before = own("Gates"), torch.get_rng_state()
    layers = anatomy(config, SHAPE, 4).layers
    assert layers == ("enter", "plain", "normed", "norm", "skipped", "smooth", "out")
    assert gated(config, SHAPE, 4, layers) == ("plain", "norm")
    assert gated(config, SHAPE, 4, ["out", "plain"]) == ("plain",)
    assert torch.equal(before, torch.get_rng_state())


def test_attention_is_two_layers_that_stand_together() -> None:
    found = anatomy(own("attention"), SHAPE, 4)
    assert found.ranked == ("1", "2.self_attn", "2.self_attn.out_proj", "2.linear1", "2.linear2", "4")
    assert found.norms == ("2.norm1", "2.norm2")


def test_a_traced_chain_is_cut_between_blocks_and_gives_the_models_bits() -> None:
    model = models.build(own("Residual"), SHAPE, 4).eval()
    stages, cut = staged(model, SHAPE)
    assert cut == "traced"
    assert [stage.layers for stage in stages] == [
        ("enter",),
        ("blocks.0.second", "blocks.0.first"),
        ("blocks.1.second", "blocks.1.first"),
        ("norm",),
        ("out",),
    ]
    x = torch.linspace(-1, 1, 5 * 64).reshape(5, *SHAPE)
    expected = model(x)
    for stage in stages:
        x = stage.forward(x)
    assert torch.equal(x, expected)


def test_traced_stages_follow_the_models_weights() -> None:
    """They share its tensors: what is written to the model in place is what they compute with."""
    model = models.build(own("Residual"), SHAPE, 4).eval()
    stages, _ = staged(model, SHAPE)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.out.bias.fill_(2.0)
    x = torch.ones(1, *SHAPE)
    for stage in stages:
        x = stage.forward(x)
    assert x.tolist() == [[2.0] * 4]


def test_a_sequence_is_cut_before_every_layer_and_what_has_no_weight_goes_with_the_stage_before() -> None:
    model = models.build(own("sequence"), SHAPE, 4)
    assert [stage.layers for stage in staged(model, SHAPE)[0]] == [("1",), ("3",), ("4",)]
    first = staged(model, SHAPE)[0][0].forward(-torch.ones(2, *SHAPE))
    assert (first >= 0).all()  # the ReLU is in it


@pytest.mark.parametrize("name", ["Branching", "Skipping"])
def test_what_is_no_chain_is_one_stage(name: str) -> None:
    assert (anatomy(own(name), SHAPE, 4).stages, anatomy(own(name), SHAPE, 4).cut) == (1, "none")


def test_a_chain_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model = models.build(own("sequence"), SHAPE, 4)
    right = chain.traced(model)
    wrong = [*right[:-1], Stage(right[-1].layers, lambda x: right[-1].forward(x) * (1 + 1e-6))]
    monkeypatch.setattr(chain, "traced", lambda model: wrong)
    assert staged(model, SHAPE)[1] == "none"
    monkeypatch.setattr(chain, "traced", lambda model: right)
    assert staged(model, SHAPE)[1] == "traced"


def test_declared_stages_are_taken_if_they_are_right() -> None:
    assert (anatomy(own("Declaring"), SHAPE, 4).stages, anatomy(own("Declaring"), SHAPE, 4).cut) == (3, "declared")


@pytest.mark.parametrize("name", ["Lying", "Forgetful"])
def test_declared_stages_that_are_wrong_are_refused(name: str) -> None:
    assert refusal(own(name)).startswith(f"model.factory: own_models:{name}: the model's stages()")


def test_looking_at_a_model_leaves_its_mode_and_the_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    anatomy(own("sequence", width=17), SHAPE, 4)
    assert torch.equal(torch.rand(3), expected)
    model = models.build(own("sequence"), SHAPE, 4)
    staged(model, SHAPE)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (ModelConfig(factory="no_such_module_anywhere:model"), "cannot import no_such_module_anywhere"),
        (own("absent"), "own_models has no function absent"),
        (own("number"), "own_models has no function number"),
        (own("sequense"), "own_models has no function sequense; did you mean sequence?"),
        (ModelConfig(factory="own_models.py:sequence"), "name it as in an import, without .py"),
        (own("probabilities"), "the model returns probabilities, which the loss would take for logits; leave the soft"),
        (own("text"), "it returned str, no torch.nn.Module"),
        (own("broken"), "cannot make a model for images of 1 x 8 x 8 and 4 classes: RuntimeError: no such luck"),
        (own("sequence", depth=3), "unexpected keyword argument 'depth'"),
        (own("few"), "the model gives [3, 3], not [3, 4] logits"),
        (own("large"), "the model fails on images of 1 x 8 x 8: RuntimeError"),
        (own("half"), "1.weight is torch.float16"),
        (own("flags"), "seen is torch.bool"),
        (own("strided"), "1.weight does not lie in one piece"),
        (own("tied"), "2.weight: a weight that two modules share"),
        (own("pixels"), "the model gives [3, 64]"),
        (own("Helped", wrong="in place"), "cannot learn: its backward pass fails: one of the variables needed"),
        (own("Helped", wrong="detached"), "no gradient leads from the model's logits to any of its layers"),
        (ModelConfig(name="simplevit", args={"patch": 3}), "patches of 3 x 3 pixels do not cover 8 x 8"),
        (ModelConfig(name="simplevit", args={"width": 10}), "width 10 must be a multiple of 4"),
        (ModelConfig(name="vit-small", args={"patch": 3}), "patches of 3 x 3 pixels do not cover 8 x 8"),
        (ModelConfig(name="lenet"), "the model fails on images of 1 x 8 x 8: RuntimeError"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_in_one_line_that_names_it(config: ModelConfig, said: str) -> None:
    message = refusal(config)
    assert message.startswith(f"{config.where}: ")
    assert said in message


def test_images_that_are_not_square_need_another_model() -> None:
    assert "are not square" in refusal(ModelConfig(name="vit-small"), (1, 8, 16))
    assert anatomy(ModelConfig(name="simplevit", args={"depth": 1}), (2, 8, 16), 4).stages == 4


def test_a_file_beside_the_current_directory_is_found(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the command that started has another folder first on its path."""
    (tmp_path / "beside_here.py").write_text(
        "from torch import nn\ndef net(shape, classes):\n    return nn.Linear(1, 1)"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert isinstance(models.build(ModelConfig(factory="beside_here:net"), SHAPE, 4), nn.Linear)


def test_what_a_factory_draws_is_the_same_each_time_and_weights_are_the_seeds() -> None:
    torch.manual_seed(1)
    one, before = models.build(own("drawing"), SHAPE, 4), torch.get_rng_state()
    torch.manual_seed(2)
    other = models.build(own("drawing"), SHAPE, 4)
    assert torch.equal(one.fixed, other.fixed)
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())
    first, again, third = (models.initialise(own("drawing"), SHAPE, 4, seed, "init") for seed in (0, 0, 1))
    assert torch.equal(first[1].weight, again[1].weight)
    assert not torch.equal(first[1].weight, third[1].weight)


def test_dropout_depends_on_the_seed_alone() -> None:
    model = models.build(own("Dropping"), SHAPE, 4).train()
    x = torch.ones(4, *SHAPE)
    found = []
    for seed in (1, 1, 2):
        torch.rand(1)
        with models.seeded(seed):
            found.append(model(x))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
