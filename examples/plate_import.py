"""Converts published torch weights of LPRNet to a checkpoint for plate_read.py and plate_train.py.

    python examples/plate_import.py WEIGHTS.pth OUT

The names in the file are those of github.com/sirius-ai/LPRNet_Pytorch. torch is not needed.
"""

import argparse
from collections.abc import Mapping, Sequence

import numpy as np
from flax import nnx

import training
from plates import models
from plates.charset import charset_of
from plates.torch_file import load_state_dict


def fill_lprnet(model: nnx.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copies weights by their torch names into `model`; all must fit and be used."""
    unused = {name for name in weights if not name.endswith("num_batches_tracked")}

    def take(variable: nnx.Variable | None, name: str) -> None:
        if variable is None or name not in weights:
            raise ValueError(f"{name} is missing")
        value = np.asarray(weights[name], np.float32)
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)  # out, in, height, width → height, width, in, out
        if value.shape != variable.shape:
            raise ValueError(f"{name} has shape {value.shape}; it must be {variable.shape}")
        variable[...] = value
        unused.discard(name)

    if not isinstance(model, models.LPRNet):
        raise TypeError(f"model is a {type(model).__name__}; it must be an LPRNet")

    def take_conv(conv: models.Conv, name: str) -> None:
        take(conv.kernel, f"{name}.weight")
        take(conv.bias, f"{name}.bias")

    def take_norm(norm: nnx.BatchNorm, name: str) -> None:
        for variable, its_name in (
            (norm.scale, "weight"),
            (norm.bias, "bias"),
            (norm.mean, "running_mean"),
            (norm.var, "running_var"),
        ):
            take(variable, f"{name}.{its_name}")

    for index, layer in ((0, model.stem), (16, model.wide), (20, model.tall)):
        take_conv(layer.conv, f"backbone.{index}")
        take_norm(layer.norm, f"backbone.{index + 1}")
    for index, block, norm in zip((4, 8, 11), model.blocks, model.norms, strict=True):
        for place, conv in enumerate(block.convs):
            take_conv(conv, f"backbone.{index}.block.{2 * place}")
        take_norm(norm, f"backbone.{index + 1}")
    take_conv(model.container, "container.0")
    if unused:
        raise ValueError(f"the model has no weights named {', '.join(sorted(unused))}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Import torch weights of LPRNet.")
    parser.add_argument("weights", metavar="WEIGHTS.pth")
    parser.add_argument("out", metavar="OUT", help="directory for the checkpoint")
    parser.add_argument("--charset", metavar="FILE", help="characters; default: those of plates")
    args = parser.parse_args(arguments)
    charset = charset_of(args.charset)
    # Published weights were trained with a mean over the batch in the network: keep that.
    description = {"name": "lprnet", "normalise": "batch", "fixed_norms": True}
    model = models.build(description, len(charset) + 1)
    try:
        weights = load_state_dict(args.weights)
        fill_lprnet(model, weights)
    except (OSError, ValueError) as error:
        raise SystemExit(f"{args.weights}: {error}") from error
    training.save_model(args.out, model, {"model": description, "charset": charset})
    numbers = sum(v.size for k, v in weights.items() if not k.endswith("num_batches_tracked"))
    print(f"{args.out}: {numbers} numbers imported")


if __name__ == "__main__":
    main()
