"""Column types that mean the same on SQLite and PostgreSQL."""

import math
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, CursorResult, DateTime, Dialect, Integer, Text, TypeDecorator

BigInt = BigInteger().with_variant(Integer, "sqlite")
"""64 bits; SQLite counts up only an `INTEGER` primary key."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite stores it without a zone, so the zone is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored: pass an aware datetime")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        read: datetime = value
        return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


class PlainText(TypeDecorator[str]):
    """Text as people and programs wrote it, less NUL, which PostgreSQL has no place for."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\x00", "\ufffd")


def new_id(result: CursorResult[Any]) -> int:
    """The id that the database gave to the one row just inserted."""
    key = result.inserted_primary_key
    if key is None:
        raise RuntimeError("the insert gave no primary key")
    return int(key[0])


FINITE, NAN, INFINITE, MINUS_INFINITE = 0, 1, 2, 3
"""The kind of a stored number: SQLite turns NaN into NULL, so what is not finite is told by its kind."""

_BY_KIND = {NAN: math.nan, INFINITE: math.inf, MINUS_INFINITE: -math.inf}


def split_number(value: float) -> tuple[float, int]:
    """(value, kind) to store; the value of what is not finite is 0."""
    if math.isfinite(value):
        return value, FINITE
    if math.isnan(value):
        return 0.0, NAN
    return 0.0, INFINITE if value > 0 else MINUS_INFINITE


def join_number(value: float, kind: int) -> float:
    """The number that `split_number` took apart."""
    return _BY_KIND.get(kind, value)
