"""Settings, from defaults, a TOML file, the environment and the command line."""

from holdfast.config.checks import Problem, check_reach, check_settings, problems, warnings
from holdfast.config.listeners import ListenerSettings
from holdfast.config.loading import (
    ENVIRONMENT_PREFIX,
    Loaded,
    load_settings,
    load_with_sources,
    settings_of,
)
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
from holdfast.config.shown import shown
from holdfast.config.values import Address, ListenAddress, UnixAddress

__all__ = [
    "ENVIRONMENT_PREFIX",
    "Address",
    "ListenAddress",
    "ListenerSettings",
    "Loaded",
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
    "load_with_sources",
    "problems",
    "settings_of",
    "shown",
    "warnings",
]
