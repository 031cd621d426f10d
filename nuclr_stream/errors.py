"""Every error that this project raises on purpose. Messages name file, field, value and remedy."""

from __future__ import annotations


class NuclrStreamError(Exception):
    """Root of all errors raised on purpose; command lines turn it into one line on stderr and exit code 2."""


class ConfigError(NuclrStreamError):
    """A setting is unknown, of the wrong type or out of range."""


class RecordingError(NuclrStreamError):
    """A recording file cannot be used: unsorted samples, unit rows out of range, missing fields."""


class BundleError(NuclrStreamError):
    """A bundle is incomplete, altered or of an unknown format."""


class ProviderError(NuclrStreamError):
    """The execution provider that was asked for is not really there."""


class NonFiniteError(NuclrStreamError):
    """A graph returned NaN or infinity."""


class PlacementError(NuclrStreamError):
    """A transition matrix or a planned trajectory cannot be used."""


class EndpointError(NuclrStreamError):
    """A socket cannot be bound, or may not be for safety."""


class SnapshotError(NuclrStreamError):
    """A saved state is damaged, or is not one of this bundle and these settings."""


class AccessError(NuclrStreamError):
    """A key or the allow-list cannot be used, or a key may not do what it was used for."""


class DeniedError(AccessError):
    """A message that the sender's key may not send; `reason` is a short stable word (a metric label)."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class DaemonGoneError(NuclrStreamError):
    """The daemon has published nothing for a second."""


class WireError(NuclrStreamError):
    """A message is malformed or outside the declared bounds.

    `reason` is a short stable word (a metric label): it never holds content of the message.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
