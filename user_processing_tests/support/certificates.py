"""Certificates made anew for a test session: a good one, and one for each way in which a certificate is not."""

import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_NOW = dt.datetime.now(dt.UTC)
_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Certificates:
    """What a server needs for TLS, by what a client has to think of its certificate.

    Attributes:
        authority: the PEM file that a client has to trust for `good` to be good.
    """

    authority: Path
    good: ssl.SSLContext
    expired: ssl.SSLContext
    not_yet_valid: ssl.SSLContext
    of_another_host: ssl.SSLContext
    self_signed: ssl.SSLContext


def make(folder: Path) -> Certificates:
    """Make keys and certificates in this folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the tests")])
    authority = folder / "authority.pem"
    signed = (
        _builder(name, name, key, key, _NOW - _DAY, _NOW + _DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
    )
    authority.write_bytes(signed.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def server(
        title: str, *, begins: dt.datetime = _NOW - _DAY, ends: dt.datetime = _NOW + _DAY, host: str = "127.0.0.1"
    ) -> ssl.SSLContext:
        own_key = ec.generate_private_key(ec.SECP256R1())
        own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
        issuer, signer = (own_name, own_key) if title == "self-signed" else (name, key)
        certificate = (
            _builder(own_name, issuer, own_key, signer, begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
            .sign(signer, hashes.SHA256())
        )
        path = folder / f"{title}.pem"
        path.write_bytes(
            own_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    return Certificates(
        authority,
        good=server("good"),
        expired=server("expired", begins=_NOW - 2 * _DAY, ends=_NOW - _DAY),
        not_yet_valid=server("not yet valid", begins=_NOW + _DAY, ends=_NOW + 2 * _DAY),
        of_another_host=server("of another host", host="127.0.0.2"),
        self_signed=server("self-signed"),
    )


def _builder(  # noqa: PLR0913, PLR0917
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    begins: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    """What every certificate holds. From Python 3.13 on, one without the key identifiers of RFC 5280 is refused."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _key_usage(**uses: bool) -> x509.KeyUsage:
    """What the key is for, and nothing else."""
    names = (
        *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(**(dict.fromkeys(names, False) | uses))
