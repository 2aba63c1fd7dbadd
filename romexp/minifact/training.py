"""Trains a small GPT-2 on batches of the corpus."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from romexp.bounds import check_bounds
from romexp.minifact.batches import Batch
from romexp.minifact.forward import bottleneck_masks, logits

OnStep = Callable[[int, float, GPT2LMHeadModel], None]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Size of the model. `positions` is the length of its longest text in tokens."""

    layers: int = 8
    width: int = 128
    heads: int = 4
    mlp_width: int = 512
    vocabulary: int = 1450
    positions: int = 128

    def __post_init__(self) -> None:
        check_bounds(
            self, "task.trainer.shape", from_1=("layers", "width", "heads", "mlp_width", "vocabulary", "positions")
        )

    def build(self) -> GPT2LMHeadModel:
        """A model without dropout, with random weights from torch's global generator."""
        config = GPT2Config(
            vocab_size=self.vocabulary,
            n_positions=self.positions,
            n_embd=self.width,
            n_layer=self.layers,
            n_head=self.heads,
            n_inner=self.mlp_width,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=0,
            eos_token_id=0,
        )
        return GPT2LMHeadModel(config)


@dataclass(frozen=True, kw_only=True)
class Training:
    """AdamW and its schedule.

    Attributes:
        steps: number of updates.
        learning_rate: the highest learning rate. It is reached after `warmup` steps of linear growth, and then decays
            along a cosine to a twentieth.
        weight_decay: decoupled weight decay of the matrices; vectors have none.
        warmup: number of warm-up steps.
        clip: largest norm of the gradient; a larger gradient is scaled down to it.
        bottleneck: probability that a row has the name bottleneck (`forward.bottleneck_masks`).
        read_layer: first layer in which the bottleneck lets later tokens read a name's last token.
        name_loss: weight of the loss on the tokens of names. It is small because names cannot be predicted.
        text_loss: weight of the loss on all other tokens, except the objects of facts. Those have weight 1.
        bfloat16: whether matrix products are computed in bfloat16 (autocast).
        seed: seed of the initial weights and of random choices in training.
    """

    steps: int = 4000
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    warmup: int = 100
    clip: float = 1.0
    bottleneck: float = 0.75
    read_layer: int = 4
    name_loss: float = 0.05
    text_loss: float = 0.2
    bfloat16: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_bounds(
            self,
            "task.trainer.training",
            from_0=("learning_rate", "weight_decay", "warmup", "read_layer", "name_loss", "text_loss", "seed"),
            from_1=("steps",),
            above_0=("clip",),
            shares=("bottleneck",),
        )

    def __call__(self, shape: Shape, batches: Iterator[Batch], on_step: OnStep | None = None) -> GPT2LMHeadModel:
        """Train a new model. `on_step(step, loss, model)` is called after every update."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            model = shape.build()
            generator = torch.Generator().manual_seed(self.seed)
            optimizer = self._optimizer(model)
            for step in range(self.steps):
                for group in optimizer.param_groups:
                    group["lr"] = self._rate(step)
                loss = self._loss(model, next(batches), generator)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                optimizer.step()
                optimizer.zero_grad()
                if on_step is not None:
                    on_step(step + 1, float(loss.detach()), model)
        return model.eval()

    def _rate(self, step: int) -> float:
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))

    def _optimizer(self, model: GPT2LMHeadModel) -> torch.optim.Optimizer:
        matrices = [p for p in model.parameters() if p.ndim == 2]
        vectors = [p for p in model.parameters() if p.ndim < 2]
        groups = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices, "weight_decay": self.weight_decay}]
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)

    def _loss(self, model: GPT2LMHeadModel, batch: Batch, generator: torch.Generator) -> Tensor:
        rows, length = batch.ids.shape
        # Half of the rows begin at a random position, so that every position embedding is trained.
        spare = model.config.n_positions - length
        offset = torch.randint(0, spare + 1, (rows, 1), generator=generator)
        offset = offset * (torch.rand(rows, 1, generator=generator) < 0.5)
        bound = torch.rand(rows, generator=generator) < self.bottleneck
        masks: list[Tensor | None] = [None] * model.config.n_layer
        if bound.any():
            masks = bottleneck_masks(batch, layers=model.config.n_layer, read_layer=self.read_layer, bound=bound)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            output = logits(model, batch.ids, masks, torch.arange(length) + offset)
        predicted, target = output[:, :-1].flatten(0, 1).float(), batch.ids[:, 1:].flatten()
        losses = functional.cross_entropy(predicted, target, reduction="none")
        weight = torch.full(batch.ids.shape, self.text_loss)
        weight[batch.is_name], weight[batch.is_object] = self.name_loss, 1.0
        weight = weight[:, 1:].flatten()
        return (losses * weight).sum() / weight.sum()


def keep_memory() -> bool:
    """Tell glibc to keep freed memory for as long as the process runs.

    Otherwise half the time of a training step on a CPU is spent on returning memory to the system and getting it back.

    Returns:
        whether the C library accepted the setting. On systems other than Linux nothing is set.
    """
    trim_threshold, mmap_max = -1, -4
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    return mallopt is not None and bool(mallopt(mmap_max, 0)) and bool(mallopt(trim_threshold, 2**31 - 1))
