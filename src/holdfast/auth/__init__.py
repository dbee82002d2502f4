"""Who may connect, and what they may do: what plug-ins are made of."""

from holdfast.auth.access_rules import AccessRule, Subject, TopicTemplate
from holdfast.auth.interface import Authenticator, Authorizer
from holdfast.auth.link import NOT_MINE, Answer, Link
from holdfast.auth.secret_cache import SecretCache
from holdfast.broker.authentication import AuthReply, AuthRequest, go_on, grant, refuse
from holdfast.broker.identity import Identity, PeerCertificate
from holdfast.errors import AuthenticatorUnavailable, ConfigError
from holdfast.protocol.reason_codes import BAD_USER_NAME_OR_PASSWORD, NOT_AUTHORIZED

__all__ = [
    "BAD_USER_NAME_OR_PASSWORD",
    "NOT_AUTHORIZED",
    "NOT_MINE",
    "AccessRule",
    "Answer",
    "AuthReply",
    "AuthRequest",
    "Authenticator",
    "AuthenticatorUnavailable",
    "Authorizer",
    "ConfigError",
    "Identity",
    "Link",
    "PeerCertificate",
    "SecretCache",
    "Subject",
    "TopicTemplate",
    "go_on",
    "grant",
    "refuse",
]
