"""Settings, from defaults, a TOML file, the environment and the command line."""

from holdfast.config.checks import Problem, check_reach, check_settings, problems, warnings
from holdfast.config.listeners import ListenerSettings
from holdfast.config.loading import ENVIRONMENT_PREFIX, load_settings
from holdfast.config.settings import (
    LogLevel,
    LogPolicy,
    QueuePolicy,
    ServerRedirect,
    Settings,
    SharedStrategy,
    StoreKind,
    StoreRecovery,
)
from holdfast.config.values import Address, ListenAddress, UnixAddress

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Address",
    "ListenAddress",
    "ListenerSettings",
    "LogLevel",
    "LogPolicy",
    "Problem",
    "QueuePolicy",
    "ServerRedirect",
    "Settings",
    "SharedStrategy",
    "StoreKind",
    "StoreRecovery",
    "UnixAddress",
    "check_reach",
    "check_settings",
    "load_settings",
    "problems",
    "warnings",
]
