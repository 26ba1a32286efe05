"""A training loop that can be stopped at any time and continued to exactly the same result.

Everything a run depends on is in its checkpoints: weights, optimiser, the position in the data,
and the settings it was started with. The loop works for any Flax NNX model and any Grain iterator.
"""

from training.checkpoints import load_config, load_model, save_model
from training.loop import train
from training.optimizer import make_optimizer

__all__ = ["load_config", "load_model", "make_optimizer", "save_model", "train"]
