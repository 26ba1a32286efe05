"""A training loop that can be stopped at any time and continued to exactly the same result.

Everything a run depends on is in its checkpoints: weights, optimiser, the position in the data,
and the settings it was started with. It can be continued on other devices and by another number of
processes. The loop works for any Flax NNX model and any Grain iterator.
"""

from training.checkpoints import load_config, load_model, save_model
from training.devices import Devices, Rows, drawn_batches
from training.loop import train
from training.options import WHERE, add_options, at_least_one, check_options
from training.processes import is_first, joined
from training.steps import OPTIMIZERS, make_optimizer, value_and_gradients

__all__ = [
    "OPTIMIZERS",
    "WHERE",
    "Devices",
    "Rows",
    "add_options",
    "at_least_one",
    "check_options",
    "drawn_batches",
    "is_first",
    "joined",
    "load_config",
    "load_model",
    "make_optimizer",
    "save_model",
    "train",
    "value_and_gradients",
]
