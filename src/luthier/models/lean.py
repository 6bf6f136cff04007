"""Small functions of transformer blocks with their gradients written out: less memory, less time.

Autograd keeps what every elementary operation read, much of it in float32; written out, a function
keeps its inputs only. The results are the modelling code's, operation for operation, and what is
exchanged is first compared with it. Worth it on a CPU, where memory traffic is what remains besides
the matrices.
"""

import types
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis; x and weight of one dtype.

    Computed in float32 and rounded before the weight is applied (Zhang and Sennrich 2019).
    """
    return cast(Tensor, _RmsNorm.apply(x, weight, epsilon))  # type: ignore[no-untyped-call]


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, the activation of gated feed-forward blocks (Shazeer 2020)."""
    return cast(Tensor, _SiluProduct.apply(gate, up))  # type: ignore[no-untyped-call]


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
) -> Tensor:
    """x W^T + bias + scale x A^T B^T, with W and bias frozen.

    x [..., I] and weight [O, I] have one dtype; down A [R, I] and up B [O, R] are converted to it,
    their gradients back to their own.
    """
    return cast(Tensor, _LoraLinear.apply(x, weight, bias, down, up, scale))  # type: ignore[no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        output, inverse = _run(_norm_forward, x, weight, epsilon)
        ctx.save_for_backward(x, weight, inverse)
        return cast(Tensor, output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        grad_x = _run(_norm_backward, gradients[0], x, weight, inverse)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            product = (x.float() * inverse).to(x.dtype) * gradients[0]
            grad_weight = product.flatten(0, -2).sum(0, dtype=torch.float32).to(weight.dtype)
        return grad_x, grad_weight, None


def _norm_forward(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    wide = x.to(torch.float32, copy=True)
    norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    inverse = norm.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
    return wide.mul_(inverse).to(x.dtype).mul_(weight), inverse


def _norm_backward(grad: Tensor, x: Tensor, weight: Tensor, inverse: Tensor) -> Tensor:
    normed = x.float() * inverse
    wide = (grad * weight).float()
    share = (wide * normed).mean(-1, keepdim=True)
    return wide.addcmul_(normed, share, value=-1).mul_(inverse).to(x.dtype)


class _SiluProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return cast(Tensor, _run(_gated_forward, gate, up))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        grad_gate, grad_up = _run(_gated_backward, gradients[0], *ctx.saved_tensors)
        return grad_gate, grad_up


def _gated_forward(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate).mul_(up)


def _gated_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
    return grad_gate, functional.silu(gate).mul_(grad)


_compiled: dict[Callable[..., Any], Callable[..., Any]] = {}
"""Function -> its compiled form, once there are some."""


def compile_kernels(compiled: bool) -> None:
    """From now on in this process, compute each of the functions as one compiled kernel, or not.

    A kernel reads and writes memory once, and rounds at its end only, where the plain form rounds
    after every operation. Compiling takes about half a minute when it is not cached yet.
    """
    _compiled.clear()
    if compiled:
        for function in (_norm_forward, _norm_backward, _gated_forward, _gated_backward):
            _compiled[function] = torch.compile(function, dynamic=True)


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    return _compiled.get(function, function)(*arguments)


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor,
                scale: float) -> Tensor:  # fmt: skip
        low_down, low_up = down.to(x.dtype), (up * scale).to(x.dtype)
        flat = x.flatten(0, -2)
        inner = flat @ low_down.t()
        output = functional.linear(flat, weight, bias)
        output.addmm_(inner, low_up.t())
        ctx.save_for_backward(x, weight, inner, low_down, low_up)
        ctx.scale, ctx.dtypes = scale, (down.dtype, up.dtype)
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inner, down, up = ctx.saved_tensors
        grad = gradients[0].flatten(0, -2)
        grad_inner = grad @ up
        grad_down = (grad_inner.t() @ x.flatten(0, -2)).to(ctx.dtypes[0])
        grad_up = (grad.t() @ inner).to(ctx.dtypes[1]).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad @ weight).addmm_(grad_inner, down).view_as(x)
        return grad_x, None, None, grad_down, grad_up, None


def make_lean(model: nn.Module) -> None:
    """Let the norms and gated blocks of a model compute with the functions above.

    Only modules whose result stays the same on a probe are changed.
    """
    for module in model.modules():
        for fits, width, lean in (
            (_is_norm, _norm_width, _norm),
            (_is_gated, _gated_width, _gated),
        ):
            if fits(module) and _agree(module, width(module), lean):
                module.forward = types.MethodType(lean, module)


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _norm_width(module: Any) -> int:
    return len(module.weight)


def _norm(self: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight, self.variance_epsilon)


def _is_gated(module: nn.Module) -> bool:
    parts = {name for name, _ in module.named_children()}
    return {"gate_proj", "up_proj", "down_proj"} <= parts


def _gated_width(module: Any) -> int:
    return int(module.gate_proj.in_features)


def _gated(self: Any, x: Tensor) -> Tensor:
    return cast(Tensor, self.down_proj(silu_product(self.gate_proj(x), self.up_proj(x))))


@torch.no_grad()
def _agree(module: nn.Module, width: int, lean: Callable[[Any, Tensor], Tensor]) -> bool:
    """Whether the lean form gives what the module gives, up to rounding."""
    weight = next((p for p in module.parameters() if p.is_floating_point()), None)
    if weight is None:  # in 4 bits
        return False
    probe = torch.linspace(-3, 5, 2 * width, device=weight.device).sin_().mul_(3)
    probe = probe.view(1, 2, width).to(weight.dtype)
    rounding = torch.finfo(weight.dtype).eps
    plain, leaner = module(probe), lean(module, probe)
    return torch.allclose(
        plain, leaner, rtol=4 * rounding, atol=4 * rounding * float(plain.abs().max())
    )
