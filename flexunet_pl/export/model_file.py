"""Export of a checkpoint, in the format that is asked for."""

from pathlib import Path
from typing import Literal

from flexunet_pl.checkpoint import read_checkpoint
from flexunet_pl.console import say
from flexunet_pl.errors import ModelFileError, UserError
from flexunet_pl.interop.experiment import check_input, check_output
from flexunet_pl.interop.keras import save_keras_weights
from flexunet_pl.task import load_model

Format = Literal["keras", "weights.h5", "h5"]


def export_model(
    checkpoint: Path, to: Format | None = None, output: Path | None = None, overwrite: bool = False
) -> None:
    """Write the network of a checkpoint as a file that Keras, and so the original, opens.

    Args:
        checkpoint: The checkpoint.
        to: keras: the whole model of Keras 3, for load_model; weights.h5: weights of Keras 3; h5: weights in the
            legacy format, for load_weights("best_model.h5") of the original. By default what the output ends in.
        output: The file to write; by default the checkpoint's name with the format's ending.
        overwrite: Whether to replace a file of that name.

    Raises:
        UserError: If neither format nor output is given, the two do not fit, or the output exists.
        ModelFileError: If the checkpoint cannot be read.
    """
    check_input(checkpoint)
    if output is None:
        if to is None:
            raise UserError("export: name a format, as in `--to keras`, or an output")
        output = checkpoint.with_suffix(f".{to}")
    elif to is not None and (
        not output.name.endswith(f".{to}") or (to == "h5" and output.name.endswith(".weights.h5"))
    ):
        raise UserError(f"{output}: is no name for this format, Keras looks at it; let it end in .{to}")
    check_output(output, checkpoint, overwrite=overwrite)
    size = read_checkpoint(checkpoint).get("hyper_parameters", {}).get("image_size")
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        raise ModelFileError(f"{checkpoint}: is no checkpoint of flexunet: it has no image_size")
    save_keras_weights(load_model(checkpoint), output, (size[0], size[1]))
    say(f"{output} written ({output.stat().st_size / 1e6:.1f} MB)")
