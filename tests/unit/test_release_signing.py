"""Releases signed by a local key: who made it can be checked where the key came another way."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption
from cryptography.hazmat.primitives.serialization import PrivateFormat as Private
from cryptography.hazmat.primitives.serialization import PublicFormat as Public

from pipelines.release.shipped.verify import check
from pipelines.release.signing import Signer
from stages.errors import InputError
from tests.unit.release_folder import make_release, sum_anew


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a private and a public key as openssl would, and return their paths."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_keys(tmp_path_factory.mktemp("keys"), "maker")


@pytest.fixture(scope="module")
def signed_once(keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_release(tmp_path_factory.mktemp("release") / "1.0.0", classes=0, signer=Signer(keys[0]))


@pytest.fixture
def signed(signed_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(signed_once, tmp_path / "release")
    return tmp_path / "release"


def test_the_holder_of_the_key_is_named(signed: Path, keys):
    found = check(signed, key=keys[1])
    assert found.problems == []
    assert f"SHA256SUMS was signed by the holder of {keys[1]}" in found.notes


def test_without_a_key_it_says_that_hashes_prove_no_origin(signed: Path):
    found = check(signed)
    assert found.problems == []
    assert found.notes[-1].startswith("signed: give --key PUBLIC.pem to check SHA256SUMS.sig; hashes prove")


def test_openssl_checks_the_same_signature(signed: Path, keys):
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    line = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(keys[1]), "-rawin", "-in", "SHA256SUMS"]
    done = subprocess.run([*line, "-sigfile", "SHA256SUMS.sig"], cwd=signed, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_sums_made_anew_and_foreign_keys_are_refused(signed: Path, keys, tmp_path: Path):
    _, other = write_keys(tmp_path, "other")
    assert check(signed, key=other).problems == [f"SHA256SUMS.sig is not a signature of SHA256SUMS by the key {other}"]
    (signed / "more.txt").write_text("x")
    sum_anew(signed)
    problems = check(signed, key=keys[1]).problems
    assert f"SHA256SUMS.sig is not a signature of SHA256SUMS by the key {keys[1]}" in problems
    (signed / "SHA256SUMS.sig").unlink()
    assert (
        "SHA256SUMS.sig is missing: a key was given, but the release is not signed"
        in check(signed, key=keys[1]).problems
    )


def test_a_key_that_is_none_is_refused(signed: Path, keys, tmp_path: Path):
    for path in (keys[0], tmp_path / "none.pem"):  # the private one is not what a receiver has
        (problem,) = check(signed, key=path).problems
        assert problem.startswith(f"{path} is no ed25519 public key in PEM")


def test_without_cryptography_it_says_how_else(signed: Path, keys):
    script = (
        "import runpy, sys; sys.modules['cryptography'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    line = [sys.executable, "-I", "-c", script, str(signed / "verify.py"), "--key", str(keys[1])]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"openssl pkeyutl -verify -pubin -inkey {keys[1]} -rawin -in SHA256SUMS" in done.stderr


def test_signing_wants_an_open_ed25519_key(tmp_path: Path):
    curve, locked = generate_private_key(SECP256R1()), Ed25519PrivateKey.generate()
    (tmp_path / "curve.pem").write_bytes(curve.private_bytes(Encoding.PEM, Private.PKCS8, NoEncryption()))
    password = BestAvailableEncryption(b"secret")
    (tmp_path / "locked.pem").write_bytes(locked.private_bytes(Encoding.PEM, Private.PKCS8, password))
    (tmp_path / "text.pem").write_text("my secret words")
    cases = {
        "none.pem": "cannot be read",
        "text.pem": "is no private key in PEM without a password",
        "locked.pem": "is no private key in PEM without a password",
        "curve.pem": "is a key of another kind than ed25519",
    }
    for name, message in cases.items():
        with pytest.raises(InputError, match=message) as refused:
            Signer(tmp_path / name)
        assert "secret" not in str(refused.value)
        assert "openssl genpkey -algorithm ed25519 -out KEY.pem" in str(refused.value)
