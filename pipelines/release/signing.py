"""Signs the sums of a release with a local ed25519 key."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.errors import InputError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAKE = "make one by `openssl genpkey -algorithm ed25519 -out KEY.pem`"


class Signer:
    """A private key that was read from a PEM file without a password.

    Raises:
        InputError: it cannot be read or is of another kind.
    """

    def __init__(self, path: Path) -> None:
        self.key = read_key(path)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of bytes, 64 bytes as RFC 8032 has them."""
        return self.key.sign(data)


def read_key(path: Path) -> "Ed25519PrivateKey":
    """Read a private key.

    Raises:
        InputError: it cannot be read or is of another kind; neither its content nor its parser's words are shown.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise InputError(f"--sign {path} cannot be read: {error.strerror}; {MAKE}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"--sign {path} is no private key in PEM without a password; {MAKE}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"--sign {path} is a key of another kind than ed25519; {MAKE}")
    return key
