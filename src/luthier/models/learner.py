"""What training asks of a model, whatever it computes."""

from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedModel


class Learner(Protocol):
    """A model whose trainable weights are chosen."""

    @property
    def network(self) -> nn.Module:
        """Everything that can learn."""
        ...

    @property
    def base(self) -> PreTrainedModel:
        """The transformers model inside."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def root(self) -> nn.Module | None:
        """What a model spread over processes computes in."""
        ...
