"""Settings of a run that belong to this machine, and have no meaning where a host runs the model."""

from ssn_probe.errors import RemoteError


def check_settings(remote: bool | str, *, device: str = "auto", gradient_checkpointing: bool = False) -> None:
    """Raises RemoteError for a setting that a host would not know of. A dtype is none: it must equal the host's."""
    if remote == "":
        raise RemoteError("The address of the host is empty.", "Give one such as https://api.ndif.us.")
    if remote and device != "auto":
        raise RemoteError(
            f"The device {device!r} would be one of this machine, and the model runs on a host.",
            "Leave the device out: the host chooses it.",
        )
    if remote and gradient_checkpointing:
        raise RemoteError(
            "Gradient checkpointing belongs to training, which runs on this machine only.",
            "Leave out gradient checkpointing, or run without --remote.",
        )
