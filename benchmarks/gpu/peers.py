"""torch's losses, with gradients, on the GPU if it has one."""

from collections.abc import Callable

import torch

from benchmarks.common import Batch
from benchmarks.gpu.parts import milliseconds

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def _times(total: Callable[[], torch.Tensor], leaf: torch.Tensor) -> dict:
    """Of a loss, and of its gradient with respect to `leaf`."""

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
        found["peak MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return found


def torch_times(batch: Batch, cudnn: bool) -> dict:
    """Of the CTC loss; cuDNN's takes all frames, and targets on the CPU only."""
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

    return _times(total, logits)


def torchaudio_times(arguments: tuple) -> dict:
    """Of the transducer loss."""
    from torchaudio.functional import rnnt_loss

    logits = torch.tensor(arguments[0], device=DEVICE, requires_grad=True)
    rest = [torch.tensor(x, device=DEVICE) for x in arguments[1:]]
    return _times(lambda: rnnt_loss(logits, *rest, blank=0, reduction="sum"), logits)
