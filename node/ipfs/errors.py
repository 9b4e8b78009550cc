"""What can go wrong between us and an IPFS daemon."""

from __future__ import annotations

from node.contract import ExitCode, HostError, ShoalError


class DaemonError(HostError):
    """The daemon does not start, or has ended."""


class IpfsError(ShoalError):
    """The daemon refused, in its own words; what was expected of the swarm does not hold."""

    exit_code = ExitCode.VIOLATED


class UnreachableError(IpfsError):
    """Nobody answers at the daemon's RPC."""


class IpfsTimeoutError(IpfsError):
    """Not done in the time given."""


class CidError(IpfsError):
    """A text that is no CID of the kind Shoal uses."""


class UnverifiedError(IpfsError):
    """Bytes that are not what was asked for."""


class TooLargeError(UnverifiedError):
    """More bytes than we are willing to take."""


def from_message(message: str) -> IpfsError:
    """The daemon's own words as an error of the right kind."""
    if "deadline exceeded" in message:
        return IpfsTimeoutError(message)
    return IpfsError(message)
