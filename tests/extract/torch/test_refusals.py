"""What is not read is refused in one line that says where and what to do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torch.set_num_threads(1)

from torch import nn  # noqa: E402

from hwsim.errors import HwsimError  # noqa: E402
from hwsim.extract.torch import read_module  # noqa: E402
from tests.extract.torch.test_operators import Of, X, parameter, read  # noqa: E402

ADVICE = "torch.export needs fixed lengths, no packed sequences and no Python decisions on values of tensors"


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(HwsimError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    return text


def test_operators_that_are_not_read_are_listed() -> None:
    def unknown(_: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(torch.special.i0(x)) + torch.erfinv(x)

    text = refused(lambda: read_module(nn.Sequential(nn.Identity(), Of(unknown)), (X,), "joint"))
    shown = re.sub(r"test_operators\.py:\d+", "LINE", text)
    assert shown == ("joint: operators must be ones that are read, got aten.special_i0.default (2 nodes, first of '1' "
                     "at LINE), aten.erfinv.default (1 node, first of '1' at LINE)")  # fmt: skip


def test_many_operators_that_are_not_read_are_counted() -> None:
    def unknown(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x.erfinv() + x.digamma() + x.lgamma() + torch.special.i0(x) + x.sinc()

    assert refused(lambda: read(unknown, X)).endswith(" and 2 more")


def test_random_numbers_are_not_folded() -> None:
    assert "got aten.rand_like.default (1 node" in refused(lambda: read(lambda _, x: x + torch.rand_like(x), X))


@pytest.mark.parametrize("decide", [
    lambda _, x: x if x.sum() > 0 else -x, lambda _, x: x[:, : int(x.sum())].relu(),
    lambda _, x: [x] * int(x.argmax()),
])  # fmt: skip
def test_decisions_on_values_are_refused_with_their_line(decide: Callable[..., Any]) -> None:
    text = refused(lambda: read(decide, X))
    assert text.startswith("encoder: the module must export, got ")
    assert "at test_refusals.py:" in text
    assert text.endswith(f": {ADVICE}")


def test_decisions_of_modules_of_pytorch_have_their_line() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module, mask = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), torch.zeros(6, 6)
    assert " at transformer.py:" in refused(lambda: read_module(module, (X, mask)))


def test_sizes_that_depend_on_values_are_refused() -> None:
    text = refused(lambda: read(lambda _, x: x.nonzero(), X))
    assert text.startswith("'nonzero' must have a size that does not depend on values, got (u0, 3)")


def test_errors_of_the_module_itself_are_one_line() -> None:
    text = refused(lambda: read_module(nn.Linear(8, 4), (torch.zeros(2, 7),)))
    assert text.startswith("encoder: the module must export, got ")
    assert "reduction dim" in text or "shapes cannot be multiplied" in text


def test_parameters_that_are_not_read_are_listed() -> None:
    spare = {f"p{at}": parameter(2) for at in range(7)}
    text = refused(lambda: read_module(Of(lambda m, x: x @ m.w, w=parameter(8, 4), **spare), (X,)))
    assert text == ("encoder: every parameter must be read, got 7 that are not: p0 (2), p1 (2), p2 (2), p3 (2), p4 (2) "
                    'and 2 more: pass the part that runs, or unused="note"')  # fmt: skip


def test_unused_is_checked() -> None:
    assert refused(lambda: read_module(nn.Linear(8, 4), (X,), unused="drop")) == (  # type: ignore[arg-type]
        "unused must be refuse or note, got drop"
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused() -> None:
    script = torch.jit.script(nn.Linear(8, 4))
    assert refused(lambda: read_module(script, (X,))) == (
        "module must be an nn.Module, got TorchScript: build the module from its Python class and load its weights"
    )


def test_pytorch_may_be_missing() -> None:
    code = "import sys; sys.modules['torch'] = None; import hwsim.extract.torch"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "hwsim.errors.HwsimError: reading PyTorch modules needs PyTorch: install hwsim[train]"
    )


def test_a_path_is_no_module() -> None:
    assert refused(lambda: read_module("model.pt", (X,))) == (  # type: ignore[arg-type]
        "module must be an nn.Module, got str: build it from its Python class, and read a checkpoint with load_weights"
    )


@pytest.mark.parametrize(("module", "x", "text"), [
    (nn.ConvTranspose1d(8, 4, 3), torch.zeros(1, 8, 9), "must be ones that are read, got aten.conv_transpose1d"),
    (nn.Conv3d(1, 2, 3), torch.zeros(1, 1, 5, 5, 5), "must be a convolution over one or two axes, got 3"),
    (Of(lambda _, x: torch.conv1d(x, x)), torch.zeros(1, 1, 3), "must have a kernel and a bias of parameters"),
    (Of(lambda _, x: torch.einsum("ii->i", x)), torch.zeros(3, 3), "must have one or two operands without diagonals"),
    (Of(lambda _, x: torch.einsum("i,i,i->", x, x, x)), torch.zeros(3), "must have one or two operands"),
    (Of(lambda m, x: torch.addmm(m.b, x, x, beta=2.0), b=parameter(3)), torch.zeros(3, 3), "must have alpha and beta"),
    (Of(lambda m, i: m.t[:, i], t=parameter(3, 3)), torch.zeros(2, dtype=torch.long), "must be by one computed index"),
    (Of(lambda _, x: torch.ones(3)), torch.zeros(3), "the module must give what depends on its inputs, got constants"),
])  # fmt: skip
def test_forms_that_are_not_read(module: nn.Module, x: torch.Tensor, text: str) -> None:
    assert text in refused(lambda: read_module(module, (x,), unused="note"))


def test_a_module_is_in_training_again_after_a_refusal() -> None:
    module = nn.Sequential(nn.Linear(8, 4), nn.Dropout(), Of(lambda _, x: x.erfinv()))
    module[1].eval()
    refused(lambda: read_module(module, (X,)))
    assert [part.training for part in module.modules()] == [True, True, False, True]
