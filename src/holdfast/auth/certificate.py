"""Clients that TLS has verified by their certificates."""

from typing import final

from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.broker.authentication import AuthRequest, grant, refuse
from holdfast.broker.identity import Identity, PeerCertificate
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD


@final
class CertificateLink(Link):
    """Takes what the listener reads in a certificate for the name of the user."""

    def __init__(self, name: str, *, ignores_user_name: bool) -> None:
        super().__init__(name)
        self._ignores_user_name = ignores_user_name

    def step(self, request: AuthRequest) -> Answer:
        """Grant who has a certificate with a name; a user name beside it has to be the same."""
        certificate = request.certificate
        if request.method is not None or certificate is None or not certificate.identity:
            return NOT_MINE
        if not self._ignores_user_name and request.user_name not in (None, certificate.identity):
            return refuse(
                BAD_USER_NAME_OR_PASSWORD,
                detail="the user name is another one than that of the certificate",
            )
        return grant(identity=_identity(certificate))


def _identity(certificate: PeerCertificate) -> Identity:
    attributes = {
        "certificate_common_name": certificate.common_name,
        "certificate_fingerprint": certificate.fingerprint,
    }
    return Identity(
        certificate.identity,
        attributes={name: value for name, value in attributes.items() if value},
        mark=certificate.fingerprint,
    )
