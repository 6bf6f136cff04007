"""Small functions of transformer blocks with their gradients written out: less memory, less time.

Autograd keeps what every elementary operation read, much of it in float32; written out, a function
keeps its inputs only. The results are the modelling code's, operation for operation, and what is
exchanged is first compared with it. Worth it on a CPU, where memory traffic is what remains besides
the matrices.
"""

import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis; x and weight of one dtype.

    Computed in float32 and rounded before the weight is applied (Zhang and Sennrich 2019).
    """
    if _is_plain(x):
        return _norm_forward(x, weight, epsilon)[0]
    return cast(Tensor, _RmsNorm.apply(x, weight, epsilon))  # type: ignore[no-untyped-call]


def silu_product(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, the activation of gated feed-forward blocks (Shazeer 2020)."""
    if _is_plain(gate):
        return _gated_forward(gate, up)
    return cast(Tensor, _SiluProduct.apply(gate, up))  # type: ignore[no-untyped-call]


def _is_plain(x: Tensor) -> bool:
    """Whether nothing learns, so that nothing need be kept, and no kernel was compiled."""
    return not torch.is_grad_enabled() and not _compiled


class Adapted(NamedTuple):
    """A frozen linear layer with an adapter, all in the input's dtype: x W^T + bias + x A^T B^T.

    The adapter's part is there first and the layer's is summed on top, rounded once. Added to what
    is rounded already, most of a young adapter's update lies under half a step of bfloat16 and is
    lost, and training is the slower for it.
    """

    weight: Tensor
    """W [O, I]."""
    bias: Tensor | None
    """[O]."""
    down: Tensor
    """A [R, I], which learns."""
    up: Tensor
    """B [O, R] times the adapter's scale, which learns."""

    def output(self, x: Tensor, inner: Tensor) -> Tensor:
        """[T, O] for x [T, I] and x A^T."""
        update = functional.linear(inner, self.up).addmm_(x, self.weight.t())
        return update if self.bias is None else update.add_(self.bias)


def adapted_linears(x: Tensor, *layers: Adapted) -> tuple[Tensor, ...]:
    """The output of each layer for the same x [..., I]; their adapters share one product with x."""
    matrices = [matrix for layer in layers for matrix in layer]
    outputs = _AdaptedLinears.apply(x, *matrices)  # type: ignore[no-untyped-call]
    # Shaped out here: what a function gives as a view may not be changed in place (OLMo clamps).
    return tuple(output.view(*x.shape[:-1], -1) for output in outputs)


def adapted_feed_forward(x: Tensor, gate: Adapted, up: Adapted, down: Adapted) -> Tensor:
    """down(silu(gate(x)) * up(x)) for x [..., I].

    The adapters of gate and up share one product with x; what goes into down is not kept for the
    backward pass, but computed again.
    """
    output: Tensor = _AdaptedFeedForward.apply(x, *gate, *up, *down)  # type: ignore[no-untyped-call]
    return output.view(*x.shape[:-1], -1)


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
        grad_gate, grad_up, _ = _run(_gated_backward, gradients[0], *ctx.saved_tensors)
        return grad_gate, grad_up


def _gated_forward(gate: Tensor, up: Tensor) -> Tensor:
    return functional.silu(gate).mul_(up)


def _gated_backward(grad: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of gate and up, and their product again."""
    grad_gate = torch.ops.aten.silu_backward(grad * up, gate)
    opened = functional.silu(gate)
    product = opened * up
    return grad_gate, opened.mul_(grad), product


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


class _AdaptedLinears(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *matrices: Any) -> tuple[Tensor, ...]:
        layers, flat = _layers(matrices), x.flatten(0, -2)
        inners = _inners(flat, layers)
        ctx.save_for_backward(x, *inners, *matrices)
        return tuple(layer.output(flat, inner) for layer, inner in zip(layers, inners, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        inners, layers = saved[: len(gradients)], _layers(saved[len(gradients) :])
        flat = x.flatten(0, -2)
        grad_x, learnt = _backward(flat, layers, inners, gradients, ctx.needs_input_grad[0])
        return None if grad_x is None else grad_x.view_as(x), *learnt


class _AdaptedFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *matrices: Any) -> Tensor:
        gate, up, down = _layers(matrices)
        flat = x.flatten(0, -2)
        inner_gate, inner_up = _inners(flat, (gate, up))
        opening, lifted = gate.output(flat, inner_gate), up.output(flat, inner_up)
        product = _run(_gated_forward, opening, lifted)
        (inner_down,) = _inners(product, (down,))
        ctx.save_for_backward(x, inner_gate, inner_up, inner_down, opening, lifted, *matrices)
        return down.output(product, inner_down)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inner_gate, inner_up, inner_down, opening, lifted, *matrices = ctx.saved_tensors
        gate, up, down = _layers(matrices)
        flat, grad = x.flatten(0, -2), gradients[0]
        low = grad @ down.up
        grad_product = (low @ down.down).addmm_(grad, down.weight)
        grad_gate, grad_up, product = _run(_gated_backward, grad_product, opening, lifted)
        of_down = None, None, low.t() @ product, grad.t() @ inner_down
        inners, grads = (inner_gate, inner_up), (grad_gate, grad_up)
        grad_x, learnt = _backward(flat, (gate, up), inners, grads, ctx.needs_input_grad[0])
        return None if grad_x is None else grad_x.view_as(x), *learnt, *of_down


def _layers(matrices: Sequence[Any]) -> list[Adapted]:
    width = len(Adapted._fields)
    return [Adapted(*matrices[i : i + width]) for i in range(0, len(matrices), width)]


def _inners(x: Tensor, layers: Sequence[Adapted]) -> tuple[Tensor, ...]:
    """x A^T of each layer, for x [T, I]."""
    downs = [layer.down for layer in layers]
    inner = x @ torch.cat(downs).t()
    return tuple(inner.split([len(down) for down in downs], dim=1))


def _backward(
    x: Tensor, layers: Sequence[Adapted], inners: Sequence[Tensor], grads: Sequence[Tensor],
    needs_x: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
    """Gradients of x [T, I], if it needs one, and of every layer's matrices in order."""
    low = torch.cat([grad @ layer.up for grad, layer in zip(grads, layers, strict=True)], dim=1)
    downs = [layer.down for layer in layers]
    of_downs = (low.t() @ x).split([len(down) for down in downs])
    learnt: list[Tensor | None] = []
    for grad, inner, of_down in zip(grads, inners, of_downs, strict=True):
        learnt += [None, None, of_down, grad.t() @ inner]
    if not needs_x:
        return None, learnt
    grad_x = low @ torch.cat(downs)
    for grad, layer in zip(grads, layers, strict=True):
        grad_x.addmm_(grad, layer.weight)
    return grad_x, learnt


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
    if not {"gate_proj", "up_proj", "down_proj"} <= parts:
        return False
    return hasattr(module.gate_proj, "in_features")  # which layers that only hold a linear one lack


def _gated_width(module: Any) -> int:
    return int(module.gate_proj.in_features)


def _gated(self: Any, x: Tensor) -> Tensor:
    layers = self.gate_proj, self.up_proj, self.down_proj
    if torch.is_grad_enabled() and all(hasattr(layer, "adapted") for layer in layers):
        gate, up, down = (layer.adapted(x.dtype) for layer in layers)
        if gate and up and down:
            return adapted_feed_forward(x, gate, up, down)
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
