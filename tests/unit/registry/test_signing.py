"""Signatures of manifests."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest

from inferdock.domain.errors import ConfigError, IntegrityError
from inferdock.registry.signing import Signer, TrustedKeys

DATA = b'{"name":"m"}'


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A key pair as openssl makes it."""
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_a_trusted_signature_is_accepted_and_named(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "a")
    signer = Signer(private)
    assert TrustedKeys([public]).check(DATA, signer.sign(DATA), what="m@1.0.0") == (signer.fingerprint,)


def test_openssl_alone_can_check_a_signature(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "a")
    signature = json.loads(Signer(private).sign(DATA))["signatures"][0]["signature"]
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "sig").write_bytes(base64.b64decode(signature))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", tmp_path / "data"]
    result = subprocess.run([*command, "-sigfile", tmp_path / "sig"], capture_output=True, text=True, check=False)
    assert "Verified Successfully" in result.stdout


def test_no_signature_is_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    _, public = make_key(tmp_path, "a")
    with pytest.raises(IntegrityError, match="not signed"):
        TrustedKeys([public]).check(DATA, None, what="m@1.0.0")


def test_a_signature_of_other_bytes_or_by_another_key_is_refused(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "a")
    stranger, _ = make_key(tmp_path, "b")
    for signatures in (Signer(private).sign(DATA + b" "), Signer(stranger).sign(DATA)):
        with pytest.raises(IntegrityError, match="no valid signature by a trusted key"):
            TrustedKeys([public]).check(DATA, signatures, what="m@1.0.0")


def test_a_stranger_cannot_pass_under_the_name_of_a_trusted_key(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "a")
    stranger, _ = make_key(tmp_path, "b")
    document = json.loads(Signer(stranger).sign(DATA))
    document["signatures"][0]["key"] = Signer(private).fingerprint
    with pytest.raises(IntegrityError, match="no valid signature"):
        TrustedKeys([public]).check(DATA, json.dumps(document).encode(), what="m@1.0.0")


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 50_000, b"\xff", b'{"schema":"x"}', b"x" * 100_000], ids=range(6))
def test_malformed_signatures_are_refused(tmp_path: Path, data: bytes) -> None:
    _, public = make_key(tmp_path, "a")
    with pytest.raises(IntegrityError, match="malformed"):
        TrustedKeys([public]).check(DATA, data, what="m@1.0.0")


def test_wrong_key_files_are_refused_with_a_cure(tmp_path: Path) -> None:
    private, public = make_key(tmp_path, "a")
    rsa = tmp_path / "rsa.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", rsa], check=True, capture_output=True)
    locked = tmp_path / "locked.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", private, "-out", locked, "-passout", "pass:x"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "text").write_text("no key")
    cases = [
        (public, "no private key"),
        (rsa, "no Ed25519"),
        (locked, "passphrase"),
        (tmp_path / "text", "no private key"),
        (tmp_path / "absent", "cannot be read"),
        (tmp_path, "cannot be read"),
    ]
    for file, message in cases:
        with pytest.raises(ConfigError, match=message):
            Signer(file)
    with pytest.raises(ConfigError, match="no public key"):
        TrustedKeys([private])
