"""torch's losses, with gradients, on the GPU if it has one."""

from collections.abc import Callable

import torch

from benchmarks.common import Batch
from benchmarks.gpu.parts import milliseconds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _times(total: Callable[[], torch.Tensor], leaf: torch.Tensor) -> dict:
    """Of a loss, and of its gradient with respect to `leaf`; and the memory that this adds."""

    def gradient():
        leaf.grad = None
        total().backward()

    def alone():
        with torch.no_grad():
            return total()

    def wait(_):
        return torch.cuda.synchronize() if leaf.is_cuda else None

    if leaf.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    found = {"loss and gradient": milliseconds(gradient, wait), "loss": milliseconds(alone, wait)}
    if leaf.is_cuda:
        found["added MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


# cuDNN's loss takes fewer labels only; torch would take its own kernel instead, and not say so.
CUDNN_LABELS = 256


def torch_times(batch: Batch, cudnn: bool) -> dict:
    """Of the CTC loss; cuDNN's takes all frames, and targets on the CPU only."""
    most = int(batch.label_lengths.max())
    if cudnn and most >= CUDNN_LABELS:
        return {"left out": f"cuDNN takes fewer than {CUDNN_LABELS} labels, and here are {most}."}
    logits = torch.tensor(batch.logits.transpose(1, 0, 2).copy(), device=DEVICE)
    logits.requires_grad_()
    labels, frames, lengths = (torch.tensor(x, dtype=torch.int32) for x in batch[1:])
    if cudnn:
        frames = torch.full_like(frames, len(logits))
        labels = torch.cat([y[:n] for y, n in zip(labels, lengths, strict=True)])
    else:
        labels, frames, lengths = (x.long().to(DEVICE) for x in (labels, frames, lengths))

    def total():
        with torch.backends.cudnn.flags(enabled=cudnn):
            return torch.nn.functional.ctc_loss(
                logits.log_softmax(2), labels, frames, lengths, reduction="sum"
            )

    if cudnn and logits.is_cuda and not any("Cudnn" in name for name in operations(total())):
        return {"left out": "torch takes its own kernel here, not cuDNN's."}
    return _times(total, logits)


def operations(value: torch.Tensor) -> set[str]:
    """The names of what computes the gradient of `value`."""
    found, nodes = set(), [value.grad_fn]
    while nodes:
        if (node := nodes.pop()) is not None:
            found.add(node.name())
            nodes += [before for before, _ in node.next_functions]
    return found


def torchaudio_times(arguments: tuple) -> dict:
    """Of the transducer loss."""
    from torchaudio.functional import rnnt_loss

    logits = torch.tensor(arguments[0], device=DEVICE, requires_grad=True)
    rest = [torch.tensor(x, device=DEVICE) for x in arguments[1:]]
    return _times(lambda: rnnt_loss(logits, *rest, blank=0, reduction="sum"), logits)
