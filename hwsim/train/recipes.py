"""How each precision trains a transducer: the grids of matrices and of the activations that meet them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwsim.errors import HwsimError, nearest
from hwsim.numerics.calibration import BoundAware, Calibration, MinMax, NativeQat, Sawb
from hwsim.numerics.codebook import MuLaw
from hwsim.numerics.formats import Sparsity
from hwsim.numerics.quantizers import Quantizer
from hwsim.train.analog import NoisyWeights
from hwsim.train.attention import Recipes
from hwsim.train.modules import Recipe
from hwsim.train.quantizers import DynamicQuantizer, LearnedBounds
from hwsim.train.weights import SparseWeights, WeightRecipe


@dataclass(frozen=True, slots=True)
class LearnedRange:
    """Bounds that are trained (PACT), from `lower` and `upper`."""

    lower: float
    upper: float
    bits: int


@dataclass(frozen=True, slots=True)
class RunTimeRange:
    """A grid that each row finds at run time (native QAT), see `numerics.dynamic.DynamicGrid`."""

    bits: int


ActivationRecipe = Calibration | LearnedRange | RunTimeRange


@dataclass(frozen=True, slots=True)
class ConformerGrids:
    """Grids of the activations of a Conformer encoder. The first three meet weights."""

    normal: ActivationRecipe | None
    """What norms write; of run time where products alone read it, see `Recipes.kept`."""
    active: ActivationRecipe | None
    """What swish writes."""
    context: ActivationRecipe | None
    """What attention makes of the values."""
    other: Calibration | None = field(default_factory=lambda: MinMax(8))
    """What other layers write: queries, keys, values, sums before swish, gated inputs of the convolution."""
    scores: Calibration | None = field(default_factory=lambda: MinMax(8))
    stream: Calibration | None = field(default_factory=lambda: MinMax(16))
    """The residual stream."""
    kernel: Calibration | None = field(default_factory=lambda: NativeQat(8, axis=1))
    """Depthwise convolutions, whose weights meet one channel each."""
    encoding: Calibration | None = field(default_factory=lambda: BoundAware(1.0, 8))
    """Encodings of relative positions."""


@dataclass(frozen=True, slots=True)
class NetworkRecipe:
    """Grids of a transducer or a language model. None leaves reals; biases are always reals."""

    name: str
    weight: WeightRecipe | None = None
    """Matrices of LSTMs and projections."""
    embedding: Calibration | None = None
    """The table of labels, whose rows meet the weights of the first layer."""
    features: Calibration | LearnedRange | None = None
    """What enters the encoder."""
    hidden: Calibration | None = None
    """Hidden states of LSTMs."""
    joint: Calibration | RunTimeRange | None = None
    """What the joint's activation writes."""
    cell: Quantizer | None = None
    """Cell states."""
    conformer: ConformerGrids | None = None
    """Activations of a Conformer encoder, and its depthwise kernels."""
    note: str = ""
    """What was chosen beyond the source of the recipe."""

    @property
    def is_quantized(self) -> bool:
        """Whether anything is on a grid."""
        return self.weight is not None

    def block_recipes(self) -> Recipes:
        """The recipes of a Conformer block."""
        grids = self.conformer or ConformerGrids(*[None] * 8)
        normal, active, context = (_module(each) for each in (grids.normal, grids.active, grids.context))
        return Recipes(self.weight, grids.kernel, grids.stream, normal, grids.other, grids.scores, context,
                       grids.encoding, active)  # fmt: skip

    def features_grid(self) -> Recipe | None:
        """The recipe of the input."""
        return _module(self.features)

    def joint_grid(self) -> Recipe | None:
        """The recipe of what the joint's activation writes."""
        return _module(self.joint)


def _module(recipe: ActivationRecipe | None) -> Recipe | None:
    """A recipe for modules, bounds that are trained and grids of run time as modules of their own."""
    if isinstance(recipe, RunTimeRange):
        return DynamicQuantizer(NativeQat(recipe.bits), per="row")
    return LearnedBounds(recipe.lower, recipe.upper, recipe.bits) if isinstance(recipe, LearnedRange) else recipe


INT16_CELL = Quantizer(np.asarray(2.0**-11), 16)
"""An int16 cell state in steps of 2^-11, up to 16."""
_WIDE = ConformerGrids(MinMax(8), MinMax(8), MinMax(8))
_NARROW = ConformerGrids(LearnedRange(-2.5, 2.5, 4), LearnedRange(-0.3, 2.5, 4), LearnedRange(-1.0, 1.0, 4))
_RUN_TIME = ConformerGrids(RunTimeRange(4), RunTimeRange(4), RunTimeRange(4))
_INT4: dict[str, Any] = {
    "embedding": Sawb(4), "features": LearnedRange(-2.0, 2.0, 4), "hidden": BoundAware(1.0, 4),
    "joint": BoundAware(1.0, 4), "conformer": _NARROW,
}  # fmt: skip
_INT8: dict[str, Any] = {
    "embedding": NativeQat(8), "features": MinMax(8), "hidden": BoundAware(1.0, 8), "joint": BoundAware(1.0, 8),
    "conformer": _WIDE,
}  # fmt: skip
RECIPES: dict[str, NetworkRecipe] = {
    recipe.name: recipe
    for recipe in (
        NetworkRecipe("fp32"),
        NetworkRecipe("fp16", note="trained as fp32; rounded to halves where it is executed"),
        NetworkRecipe("int8", NativeQat(8, axis=1), **_INT8),
        NetworkRecipe("int4", Sawb(4), **_INT4, note="first and last layer in 4 bits as well, as in Fasoli 2022"),
        NetworkRecipe(
            "int4-native", NativeQat(4, axis=1), embedding=NativeQat(4), features=NativeQat(4), hidden=NativeQat(4),
            joint=NativeQat(4), conformer=_WIDE, note="activations on grids of the range seen in training, not dynamic",
        ),
        NetworkRecipe(
            "int4-dynamic", NativeQat(4, axis=1), embedding=NativeQat(4), features=NativeQat(4), hidden=NativeQat(4),
            joint=RunTimeRange(4), conformer=_RUN_TIME,
            note="rows of a Conformer that meet weights, and of the joint, find their grids at run time; static: "
                 "features, hidden states of LSTMs, in 8 bits what attention and the depthwise kernels read and what "
                 "blocks end in, in 16 the residual stream",
        ),
        NetworkRecipe("gq5", MuLaw(5), **_INT8, note="activations in 8 bits; the table of labels in 8 bits"),
        NetworkRecipe("int4-2:4", SparseWeights(Sawb(4), Sparsity(2, 4)), **_INT4,
                      note="the table of labels, which is looked up, is dense"),
        NetworkRecipe("analog", NoisyWeights(weight_noise=0.03),
                      note="noise of analog tiles in training; executed as fp16, programmed by hwsim.execute.analog"),
    )
}  # fmt: skip
"""By precision name."""


def network_recipe(name: str) -> NetworkRecipe:
    """The recipe of a precision. Raises HwsimError for an unknown name."""
    if name not in RECIPES:
        raise HwsimError(f"unknown training precision '{name}'{nearest(name, RECIPES)}")
    return RECIPES[name]
