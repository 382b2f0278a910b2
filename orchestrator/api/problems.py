"""One handler for every error: `application/problem+json`, which never echoes the body."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from orchestrator.domain.errors import AssayError, FieldError, Invalid
from orchestrator.domain.spec_errors import dotted

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:assay:problem:"


def problem(
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: list[FieldError] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The response for one error."""
    body: dict[str, Any] = {"type": f"{TYPE}{code}", "title": title, "status": status, "detail": detail}
    if errors is not None:
        body["errors"] = [{"field": error.field, "message": error.message} for error in errors]
    return JSONResponse(body, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Every error of the domain, of validation and of the framework leaves as a problem."""
    app.add_exception_handler(AssayError, _assay)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    for away in (OperationalError, InterfaceError, InternalError, TimeoutError):
        app.add_exception_handler(away, _database)
    app.add_exception_handler(Exception, _unforeseen)


def _assay(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, AssayError):
        raise error
    errors = error.errors if isinstance(error, Invalid) else None
    headers = {"Retry-After": "1"} if error.status in {429, 503} else {}
    if error.status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    return problem(error.status, error.code, error.title, error.detail or str(error), errors, headers)


def _validation(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    errors = []
    for item in error.errors():
        location = tuple(part for part in item["loc"] if part != "body")
        message = "not valid JSON" if item["type"] == "json_invalid" else str(item["msg"])
        errors.append(FieldError(dotted(location) or "body", message))
    detail = "; ".join(f"{e.field}: {e.message}" for e in errors[:5])
    return problem(422, "invalid", Invalid([]).title, detail, errors)


def _http(_request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    return problem(error.status_code, "http", str(error.detail), str(error.detail), headers=error.headers)


def _database(_request: Request, _error: Exception) -> JSONResponse:
    detail = "the database did not answer in time; nothing was written"
    return problem(503, "busy", "The service cannot take this now", detail, headers={"Retry-After": "1"})


def _unforeseen(_request: Request, _error: Exception) -> JSONResponse:
    """The log has the traceback; the client gets no more than that."""
    title = "Something went wrong in the service"
    return problem(500, "error", title, "the service's log says more; nothing was written")
