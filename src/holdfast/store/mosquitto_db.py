"""placeholder"""

from pathlib import Path

from holdfast.store.building import Builder


def is_mosquitto(start: bytes) -> bool:
    return False


def import_mosquitto(source: Path, data: bytes, builder: Builder, done: object) -> None:
    raise NotImplementedError
