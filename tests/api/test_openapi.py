"""The OpenAPI document: whole, consistent, and what the running app really answers."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from http import HTTPMethod
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute
from tests.conftest import AUTH, SECRET
from tests.fakes.receiver import Receiver
from tests.in_process import serving
from tests.integration.jobs.worker_in_process import working

from llm_service import errors
from llm_service.api.errors import EXAMPLES as ERRORS
from llm_service.api.errors import envelope
from llm_service.api.openapi import wire_structs
from llm_service.app import create_app
from llm_service.errors import InvalidLimitResults, RequestError
from llm_service.jobs.limit_results import LimitResults
from llm_service.jobs.report import WebhookBody
from llm_service.settings import Settings, load_settings
from llm_service.webhooks.signing import signature_headers

Node = dict[str, Any]
METHODS = {method.lower() for method in HTTPMethod}
OPEN = {"/health", "/health/live", "/health/ready", "/metrics", "/schema", "/schema/openapi.json"}
# No server is asked for anything while the document is made.
NOWHERE = {
    "DATABASE_URL": "postgresql://nobody@localhost:1/nothing",
    "REDIS_URL": "redis://localhost:1/0",
    "LLM_SERVICE_API_SECRET": SECRET,
    "LLM_SERVICE_MODEL": "offline",
}


@pytest.fixture(scope="module")
def app() -> Litestar:
    return create_app(load_settings(NOWHERE))


@pytest.fixture(scope="module")
def document() -> Node:
    """The document as it is served."""

    async def fetch() -> Node:
        async with serving(load_settings(NOWHERE)) as client:
            first, again, root = [
                await client.get(path) for path in ("/schema/openapi.json", "/schema/openapi.json", "/schema")
            ]
        assert {answer.status_code for answer in (first, again, root)} == {200}
        assert first.headers["Content-Type"] == "application/vnd.oai.openapi+json"
        assert first.content == again.content == root.content
        fetched: Node = first.json()
        return fetched

    return asyncio.run(fetch())


@pytest.fixture(scope="module")
def operations(document: Node) -> dict[str, Node]:
    """Every operation as `GET /health`."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }


def walk(node: Any, place: str = "#") -> Iterator[tuple[str, Node]]:
    """Every object in the document, and where it stands."""
    if isinstance(node, dict):
        yield place, node
        for key, child in node.items():
            yield from walk(child, f"{place}/{key}")
    elif isinstance(node, list):
        for index, child in enumerate(node):
            yield from walk(child, f"{place}/{index}")


def resolve(document: Node, ref: str) -> Any:
    found: Any = document
    for part in ref.removeprefix("#/").split("/"):
        found = found[part]
    return found


# --- a JSON Schema reader, no larger than the document needs: an unknown word is an error ------------------

FORMATS: dict[str, Callable[[str], object]] = {
    "uuid": UUID,
    "date-time": datetime.fromisoformat,
    "uri": httpx.URL,
}
TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
}
WORDS = {
    *(
        "title",
        "description",
        "default",
        "examples",
        "type",
        "enum",
        "anyOf",
        "$ref",
        "properties",
        "required",
    ),
    *("additionalProperties", "items", "minItems", "maxItems", "format", "minLength", "maxLength"),
    *("minimum", "maximum"),
}


def misfits(value: Any, schema: Node, document: Node, place: str = "$") -> list[str]:
    """What of a value the schema does not allow; a property that it does not name is not allowed."""
    assert schema.keys() <= WORDS, f"{place}: this reader does not know {schema.keys() - WORDS}"
    if "$ref" in schema:
        return misfits(value, resolve(document, schema["$ref"]), document, place)
    if "anyOf" in schema:
        found = [misfits(value, branch, document, place) for branch in schema["anyOf"]]
        return [] if [] in found else [problem for problems in found for problem in problems]
    if not _has_type(value, schema.get("type")):
        return [f"{place}: {value!r} is no {schema['type']}"]
    return list(_misfits_of_kind(value, schema, document, place))


def _has_type(value: Any, wanted: str | None) -> bool:
    if wanted is None:
        return True
    return isinstance(value, TYPES[wanted]) and (wanted == "boolean" or not isinstance(value, bool))


def _misfits_of_kind(value: Any, schema: Node, document: Node, place: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{place}: {value!r} is none of {schema['enum']}"
    if isinstance(value, dict) and "type" in schema:
        yield from _misfits_of_object(value, schema, document, place)
    elif isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{place}: {len(value)} items"
        for index, item in enumerate(value):
            yield from misfits(item, schema.get("items", {}), document, f"{place}[{index}]")
    elif isinstance(value, str):
        yield from _misfits_of_text(value, schema, place)
    elif isinstance(value, (int, float)) and not (
        schema.get("minimum", value) <= value <= schema.get("maximum", value)
    ):
        yield f"{place}: {value} is out of range"


def _misfits_of_text(value: str, schema: Node, place: str) -> Iterator[str]:
    if not schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value)):
        yield f"{place}: {len(value)} characters"
    if "format" in schema:
        try:
            FORMATS[schema["format"]](value)
        except (ValueError, httpx.InvalidURL):
            yield f"{place}: {value!r} is no {schema['format']}"


def _misfits_of_object(value: Node, schema: Node, document: Node, place: str) -> Iterator[str]:
    for name in set(schema.get("required", ())) - value.keys():
        yield f"{place}: {name} is missing"
    for name, item in value.items():
        if name in schema.get("properties", {}):
            yield from misfits(item, schema["properties"][name], document, f"{place}.{name}")
        elif schema.get("additionalProperties") is not True:
            yield f"{place}: {name} is not documented"


def test_the_reader_finds_what_does_not_fit() -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"anyOf": [{"type": "string", "maxLength": 2}, {"type": "null"}]}},
        "required": ["name"],
    }
    assert misfits({"name": None}, schema, {}) == misfits({"name": "ab"}, schema, {}) == []
    wrongs: list[Any] = [{}, {"name": "abc"}, {"name": 1}, {"name": "a", "extra": 1}, [], None, True]
    for wrong in wrongs:
        assert misfits(wrong, schema, {}), wrong


# --- the document itself ----------------------------------------------------------------------------------


def test_it_has_the_shape_of_openapi_3_1(document: Node) -> None:
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document.keys() == {
        *("openapi", "info", "servers", "tags", "security", "paths", "webhooks", "components")
    }
    assert document["info"].keys() >= {"title", "version", "description"}
    tags = {tag["name"] for tag in document["tags"]}
    for item in [*document["paths"].values(), *document["webhooks"].values()]:
        assert item.keys() <= METHODS
        for operation in item.values():
            assert operation["summary"]
            assert set(operation["tags"]) <= tags
            assert operation["responses"]
            for answer in operation["responses"].values():
                assert answer["description"].strip()


def test_every_reference_leads_somewhere(document: Node) -> None:
    for place, node in walk(document):
        if "$ref" in node:
            try:
                resolve(document, node["$ref"])
            except KeyError:
                pytest.fail(f"{place} refers to {node['$ref']}, which is not there")


def test_no_description_shows_the_indent_of_its_source(document: Node) -> None:
    for place, node in walk(document):
        text = node.get("description", "")
        assert not isinstance(text, str) or "\n  " not in text, f"{place}: {text!r}"


def test_operation_ids_are_unique(document: Node) -> None:
    ids = [node["operationId"] for _, node in walk(document) if "operationId" in node]
    assert sorted(set(ids)) == sorted(ids)


def test_the_parameters_in_a_path_are_those_of_its_operations(document: Node) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            named = {
                p["name"] for p in operation.get("parameters", ()) if p["in"] == "path" and p["required"]
            }
            assert named == set(re.findall(r"\{(\w+)\}", path)), path


def test_examples_and_headers_have_only_the_fields_of_openapi(document: Node) -> None:
    for place, node in walk(document):
        if place.endswith("/examples") and isinstance(node, dict):
            for name, example in node.items():
                assert example.keys() <= {"summary", "description", "value"}, f"{place}/{name}"
    for name, header in document["components"]["headers"].items():
        assert header["schema"], name
        assert header["description"], name


def test_every_route_is_documented_with_its_methods_and_no_other(
    app: Litestar, operations: dict[str, Node]
) -> None:
    served = {
        f"{method} {route.path_format}"
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if _is_public(route.path_format, handler)
        for method in handler.http_methods
    }
    assert served == operations.keys()


def _is_public(path: str, handler: HTTPRouteHandler) -> bool:
    """Whether a route is part of the API: what is below /api/v1 can't be left out of the document."""
    own = {"/schema", "/schema/openapi.json"}
    included = handler.resolve_include_in_schema() or path.startswith("/api/v1") or path in own
    return included and "OPTIONS" not in handler.http_methods


# --- security ---------------------------------------------------------------------------------------------


def test_every_route_below_api_v1_needs_the_secret_and_no_other_does(
    document: Node, operations: dict[str, Node]
) -> None:
    assert document["security"] == [{"ApiSecret": []}]
    scheme = document["components"]["securitySchemes"]["ApiSecret"]
    assert (scheme["type"], scheme["name"], scheme["in"]) == ("apiKey", "X-API-Secret", "header")
    for name, operation in operations.items():
        needed = operation.get("security", document["security"])
        assert needed == ([{"ApiSecret": []}] if "/api/v1/" in name else []), name
    assert {name.split()[1] for name in operations if "/api/v1/" not in name} == OPEN


async def test_the_app_asks_for_the_secret_where_the_document_says_so(
    client: httpx.AsyncClient, operations: dict[str, Node]
) -> None:
    for name, operation in operations.items():
        method, path = name.split()
        answer = await client.request(
            method, path.replace("{job_id}", "01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44")
        )
        if operation.get("security") == []:
            assert answer.status_code != 401, name
        else:
            assert (answer.status_code, answer.json()) == (401, envelope(ERRORS["InvalidAPISecret"])), name


# --- errors -----------------------------------------------------------------------------------------------

BODY_CODES = {
    "400 MalformedBody",
    "401 InvalidAPISecret",
    "413 BodyTooLarge",
    "415 UnsupportedMediaType",
    "422 ValidationError",
    "500 InternalError",
}
SUBMISSION_CODES = BODY_CODES | {"422 UnknownWorkflow", "422 InvalidInputData", "422 UnsafeWebhookURL"}
JOB_CODES = {"401 InvalidAPISecret", "404 JobNotFound", "500 InternalError", "503 ServiceUnavailable"}
CODES = {
    "POST /api/v1/workflow": SUBMISSION_CODES
    | {"422 IdempotencyKeyReused", "429 TooManyRequests", "503 ServiceUnavailable"},
    "POST /api/v1/workflow/validate": SUBMISSION_CODES,
    "GET /api/v1/workflows": {"401 InvalidAPISecret", "500 InternalError"},
    "GET /api/v1/jobs": {
        *("400 InvalidLimitResults", "400 InvalidStatusFilter", "400 InvalidUserID", "400 InvalidCursor"),
        *("400 InvalidTimeRange", "400 ConflictingFilters", "401 InvalidAPISecret", "422 ValidationError"),
        *("500 InternalError", "503 ServiceUnavailable"),
    },
    "DELETE /api/v1/jobs/bulk": BODY_CODES
    | {"400 EmptyJobIdsList", "400 InvalidJobIDs", "503 ServiceUnavailable"},
    "GET /api/v1/jobs/{job_id}": JOB_CODES,
    "GET /api/v1/status/{job_id}": JOB_CODES,
    "POST /api/v1/jobs/{job_id}/cancel": JOB_CODES | {"409 JobNotCancellable"},
    "DELETE /api/v1/workflow/{job_id}": JOB_CODES | {"409 JobNotCancellable"},
    "POST /api/v1/jobs/{job_id}/redeliver": JOB_CODES | {"409 WebhookNotRedeliverable"},
    "POST /api/v1/jobs/{job_id}/retry": JOB_CODES
    | {
        *("409 JobNotRetryable", "422 UnknownWorkflow", "422 InvalidInputData", "422 UnsafeWebhookURL"),
        "429 TooManyRequests",
    },
}


def codes_of(operation: Node) -> set[str]:
    return {
        f"{status} {code}"
        for status, answer in operation["responses"].items()
        if _ref(answer) == "ErrorResponse"
        for code in answer["content"]["application/json"]["examples"]
    }


def _ref(body: Node) -> str:
    schema = body.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


@pytest.mark.parametrize("name", CODES)
def test_each_route_documents_the_codes_it_gives(name: str, operations: dict[str, Node]) -> None:
    assert codes_of(operations[name]) == CODES[name]


def test_every_route_documents_what_its_kind_gives(operations: dict[str, Node]) -> None:
    for name, operation in operations.items():
        codes = codes_of(operation)
        if "/api/v1/" not in name:
            assert not codes, name
            continue
        assert codes >= {"401 InvalidAPISecret", "500 InternalError"}, name
        assert "{job_id}" not in name or codes >= JOB_CODES, name
        assert "requestBody" not in operation or codes >= BODY_CODES, name


def test_every_error_answer_has_the_envelope_and_an_example_for_each_code(
    operations: dict[str, Node],
) -> None:
    for name, operation in operations.items():
        for status, answer in operation["responses"].items():
            if status < "400" or _ref(answer) == "HealthResponse":
                continue
            assert _ref(answer) == "ErrorResponse", f"{name} {status}"
            examples = answer["content"]["application/json"]["examples"]
            assert answer["description"] == ", ".join(examples), f"{name} {status}"
            for code, example in examples.items():
                assert getattr(errors, code).status == int(status), f"{name} {code}"
                assert example["value"] == envelope(ERRORS[code]), f"{name} {code}"


def subclasses_of(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for below in kind.__subclasses__():
        yield below
        yield from subclasses_of(below)


def test_every_code_has_an_example_that_helps() -> None:
    known = {
        kind.__name__: kind for kind in subclasses_of(RequestError) if kind.__module__ == errors.__name__
    }
    del known["RetryableRequestError"]
    assert ERRORS.keys() == known.keys()
    for code, example in ERRORS.items():
        assert len(example.message) > 20, code
        assert type(example) is known[code]


# --- bodies -----------------------------------------------------------------------------------------------


def test_every_body_has_an_example(operations: dict[str, Node]) -> None:
    lacking = [
        f"{name}: {_ref(body)}"
        for name, operation in operations.items()
        for body in [operation.get("requestBody", {}), *operation["responses"].values()]
        if "application/json" in body.get("content", {})
        and not body["content"]["application/json"].get("examples")
    ]
    assert not lacking, f"give these an example in api/openapi_examples.py: {lacking}"


def test_every_example_fits_its_schema_and_its_struct(app: Litestar, document: Node) -> None:
    kinds: set[type[msgspec.Struct]] = {*wire_structs(app), WebhookBody}
    structs = {kind.__name__: kind for kind in kinds}
    seen = set()
    for place, node in walk(document):
        for example in node["examples"].values() if "schema" in node and "examples" in node else ():
            assert misfits(example["value"], node["schema"], document) == [], place
            if name := node["schema"].get("$ref", "").rpartition("/")[2]:
                msgspec.json.decode(msgspec.json.encode(example["value"]), type=structs[name])
                seen.add(name)
    assert seen >= {"WorkflowSubmitRequest", "JobsListResponse", "JobDetail", "ErrorResponse", "WebhookBody"}


def nullable(schema: Node, **more: Any) -> Node:
    return {"anyOf": [schema, {"type": "null"}]} | more


def test_the_constraints_of_a_submission_are_there(document: Node) -> None:
    schema = document["components"]["schemas"]["WorkflowSubmitRequest"]
    bare = {
        name: {word: value for word, value in field.items() if word not in {"description", "examples"}}
        for name, field in schema["properties"].items()
    }
    short = nullable({"type": "string", "maxLength": 255})
    assert schema["required"] == ["workflow_name", "input_data"]
    assert bare == {
        "workflow_name": {"type": "string", "minLength": 1, "maxLength": 100},
        "input_data": {"type": "object", "additionalProperties": True},
        "user_id": nullable({"type": "string", "format": "uuid"}),
        "username": short,
        "action": short,
        "webhook_url": nullable({"type": "string", "format": "uri", "maxLength": 2048}),
        "webhook_secret": short,
        "priority": {"type": "integer", "minimum": 0, "maximum": 10, "default": 0},
        "debug_mode": {"type": "boolean", "default": False},
    }
    assert all(field.get("description") for field in schema["properties"].values())


def test_the_idempotency_key_is_bounded(operations: dict[str, Node]) -> None:
    [key] = operations["POST /api/v1/workflow"]["parameters"]
    assert (key["name"], key["in"], key["required"]) == ("Idempotency-Key", "header", False)
    assert key["schema"] == {"type": "string", "minLength": 1, "maxLength": 255}


def parameter(operations: dict[str, Node], name: str) -> Node:
    [found] = [p for p in operations["GET /api/v1/jobs"]["parameters"] if p["name"] == name]
    return dict(found)


def test_the_parameters_of_the_list_are_those_of_the_contract(operations: dict[str, Node]) -> None:
    assert {p["name"] for p in operations["GET /api/v1/jobs"]["parameters"]} == {
        *("status", "status_filter", "user_id", "limit", "offset", "limit_results", "username", "action"),
        *("workflow_name", "error_code", "created_after", "created_before", "cursor", "count"),
    }
    assert parameter(operations, "limit")["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 200,
        "default": 50,
    }
    assert parameter(operations, "count")["schema"]["enum"] == ["capped", "exact", "none"]
    assert all(p["description"] for p in operations["GET /api/v1/jobs"]["parameters"])


SEVEN_USES = ["25", "50", "100", "200", "Today", "7 Days", "30 Days"]
TEXTS = [
    *("", "0", "1", "7", "499", "500", "501", "-1", "+5", "1.0", "2_5", "٢٥", " 25", "today", "Today "),
    *("7 days", "7  Days", "30Days", "90 Days", "Yesterday", "All", "null", *SEVEN_USES),
]


def test_limit_results_has_its_seven_uses_as_examples(operations: dict[str, Node]) -> None:
    examples = parameter(operations, "limit_results")["examples"]
    assert [example["value"] for example in examples.values()] == SEVEN_USES


@pytest.mark.parametrize("text", TEXTS)
def test_limit_results_is_documented_as_it_is_parsed(
    text: str, document: Node, operations: dict[str, Node]
) -> None:
    schema = parameter(operations, "limit_results")["schema"]
    candidates: list[Any] = [text, int(text)] if re.fullmatch("-?[0-9]+", text) else [text]
    is_documented = any(misfits(candidate, schema, document) == [] for candidate in candidates)
    try:
        LimitResults.parse(text, datetime.now(UTC))
    except InvalidLimitResults:
        assert not is_documented
    else:
        assert is_documented


def test_the_headers_of_answers_are_there(operations: dict[str, Node]) -> None:
    accepted = operations["POST /api/v1/workflow"]["responses"]["202"]["headers"]
    assert accepted.keys() == {"Location", "Idempotent-Replay", "X-Request-ID"}
    for name, operation in operations.items():
        for status, answer in operation["responses"].items():
            assert "X-Request-ID" in answer["headers"], f"{name} {status}"
            must_wait = status in {"429", "503"} and _ref(answer) == "ErrorResponse"
            assert ("Retry-After" in answer["headers"]) == must_wait, f"{name} {status}"


def test_the_webhooks_are_there_with_the_headers_that_are_sent(document: Node) -> None:
    assert document["webhooks"].keys() == {"workflow.completed", "workflow.failed", "workflow.cancelled"}
    sent = signature_headers(["secret"], "msg_1", datetime.now(UTC), b"{}")
    unsigned = signature_headers([], "msg_1", datetime.now(UTC), b"{}")
    for event, item in document["webhooks"].items():
        operation = item["post"]
        assert operation["security"] == []
        assert _ref(operation["requestBody"]) == "WebhookBody"
        [example] = operation["requestBody"]["content"]["application/json"]["examples"].values()
        assert example["value"]["event"] == event
        headers = {p["name"]: p["required"] for p in operation["parameters"] if p["in"] == "header"}
        assert headers.keys() == sent.keys()
        assert {name for name, is_required in headers.items() if is_required} == unsigned.keys()


# --- what the running app answers -------------------------------------------------------------------------

SUBMISSION: Node = {
    "workflow_name": "emergency_contacts",
    "input_data": {"location": "Brno", "notes": "My sister Anna Novak (+420 777 123 456) lives nearby."},
    "username": "jane_smith",
    "action": "generate contacts",
    "user_id": "6f1c6f80-7d2f-4c4c-9a1e-0d6f1c9a1b2c",
}


def check_answer(answer: httpx.Response, name: str, document: Node, operations: dict[str, Node]) -> Node:
    """That status, body and headers of an answer are documented for its route; gives the body."""
    responses = operations[name]["responses"]
    assert str(answer.status_code) in responses, f"{name}: {answer.status_code} {answer.text}"
    documented = responses[str(answer.status_code)]
    schema = documented["content"]["application/json"]["schema"]
    assert misfits(answer.json(), schema, document) == [], name
    ours = {"location", "idempotent-replay", "retry-after", "x-request-id"} & answer.headers.keys()
    assert ours <= {header.lower() for header in documented["headers"]}, name
    body: Node = answer.json()
    return body


async def test_real_answers_have_the_documented_fields_and_no_other(
    client: httpx.AsyncClient,
    settings: Settings,
    receiver: Receiver,
    document: Node,
    operations: dict[str, Node],
) -> None:
    """The whole life of a job: accepted, run, reported, listed, shown."""
    job = SUBMISSION | {"webhook_url": receiver.url, "webhook_secret": "only between us", "debug_mode": True}
    once = AUTH | {"Idempotency-Key": "household-17"}
    async with working(settings):
        accepted = await client.post("/api/v1/workflow", json=job, headers=once)
        again = await client.post("/api/v1/workflow", json=job, headers=once)
        [message] = await receiver.wait_for(1)
        detail = await _delivered(client, accepted.headers["Location"])
    for answer in (accepted, again):
        check_answer(answer, "POST /api/v1/workflow", document, operations)
    late = await client.post(f"{accepted.headers['Location']}/cancel", headers=AUTH)
    assert late.json() == envelope(ERRORS["JobNotCancellable"])
    shown = check_answer(detail, "GET /api/v1/jobs/{job_id}", document, operations)
    assert shown["attempts"]
    assert shown["llm_calls"]
    assert shown["webhook"]["attempts"]
    told = document["webhooks"]["workflow.completed"]["post"]
    assert misfits(message.json(), {"$ref": "#/components/schemas/WebhookBody"}, document) == []
    assert {p["name"].lower() for p in told["parameters"]} <= {name.lower() for name in message.headers}

    old_name = await client.get(f"/api/v1/status/{shown['job_id']}", headers=AUTH)
    check_answer(old_name, "GET /api/v1/status/{job_id}", document, operations)
    page = await client.get("/api/v1/jobs", params={"limit_results": "Today"}, headers=AUTH)
    assert len(check_answer(page, "GET /api/v1/jobs", document, operations)["jobs"]) == 1


async def test_what_is_done_to_a_job_is_answered_as_documented(
    client: httpx.AsyncClient, document: Node, operations: dict[str, Node]
) -> None:
    accepted = await client.post("/api/v1/workflow", json=SUBMISSION, headers=AUTH)
    where = accepted.headers["Location"]
    early = await client.post(f"{where}/retry", headers=AUTH)
    assert early.json() == envelope(ERRORS["JobNotRetryable"])
    cancelled = await client.post(f"{where}/cancel", headers=AUTH)
    check_answer(cancelled, "POST /api/v1/jobs/{job_id}/cancel", document, operations)
    retried = await client.post(f"{where}/retry", headers=AUTH)
    check_answer(retried, "POST /api/v1/jobs/{job_id}/retry", document, operations)
    job_ids = [accepted.json()["job_id"], retried.json()["job_id"]]
    old_name = await client.delete(f"/api/v1/workflow/{job_ids[1]}", headers=AUTH)
    check_answer(old_name, "DELETE /api/v1/workflow/{job_id}", document, operations)
    deleted = await client.request("DELETE", "/api/v1/jobs/bulk", json={"job_ids": job_ids}, headers=AUTH)
    assert check_answer(deleted, "DELETE /api/v1/jobs/bulk", document, operations)["deleted_count"] == 2


async def _delivered(client: httpx.AsyncClient, location: str) -> httpx.Response:
    async with asyncio.timeout(20):
        while True:
            answer = await client.get(location, headers=AUTH)
            if answer.json()["webhook_state"] == "delivered":
                return answer
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "name",
    ["GET /api/v1/workflows", "GET /api/v1/jobs", "GET /health", "GET /health/live", "GET /health/ready"],
)
async def test_real_answers_to_reads_are_as_documented(
    name: str, client: httpx.AsyncClient, document: Node, operations: dict[str, Node]
) -> None:
    answer = await client.get(name.split()[1], headers=AUTH)
    check_answer(answer, name, document, operations)


async def test_the_validation_of_each_documented_submission_succeeds(
    client: httpx.AsyncClient, document: Node, operations: dict[str, Node]
) -> None:
    name = "POST /api/v1/workflow/validate"
    examples = operations[name]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        answer = await client.post("/api/v1/workflow/validate", json=example["value"], headers=AUTH)
        assert answer.status_code == 200, answer.text
        check_answer(answer, name, document, operations)


PROVOKED: dict[str, tuple[str, str, Node]] = {
    "InvalidLimitResults": ("GET", "/api/v1/jobs?limit_results=Yesterday", {}),
    "InvalidStatusFilter": ("GET", "/api/v1/jobs?status=done", {}),
    "InvalidUserID": ("GET", "/api/v1/jobs?user_id=jane_smith", {}),
    "InvalidCursor": ("GET", "/api/v1/jobs?cursor=page-2", {}),
    "InvalidTimeRange": (
        "GET",
        "/api/v1/jobs?created_after=2026-02-01T00:00:00Z&created_before=2026-01-01T00:00:00Z",
        {},
    ),
    "ConflictingFilters": ("GET", "/api/v1/jobs?cursor=page-2&offset=0", {}),
    "EmptyJobIdsList": ("DELETE", "/api/v1/jobs/bulk", {"json": {"job_ids": []}}),
    "InvalidJobIDs": ("DELETE", "/api/v1/jobs/bulk", {"json": {"job_ids": ["job-17"]}}),
    "MalformedBody": ("POST", "/api/v1/workflow", {"content": b"{"}),
    "JobNotFound": ("GET", "/api/v1/jobs/01981c5e-7b1a-7c3e-9d52-2f6a1c0b9e44", {}),
    "RouteNotFound": ("GET", "/api/v1/nothing", {}),
    "MethodNotAllowed": ("PUT", "/api/v1/jobs", {}),
    "BodyTooLarge": ("POST", "/api/v1/workflow", {"content": b" " * (1024 * 1024 + 1)}),
    "UnsupportedMediaType": (
        "POST",
        "/api/v1/workflow",
        {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
    ),
    "ValidationError": ("POST", "/api/v1/workflow", {"json": SUBMISSION | {"username": "x" * 256}}),
    "InvalidInputData": (
        "POST",
        "/api/v1/workflow",
        {"json": {"workflow_name": "completion", "input_data": {}}},
    ),
    "UnknownWorkflow": (
        "POST",
        "/api/v1/workflow",
        {"json": SUBMISSION | {"workflow_name": "emergency_contact"}},
    ),
    "UnsafeWebhookURL": (
        "POST",
        "/api/v1/workflow",
        {"json": SUBMISSION | {"webhook_url": "http://hooks.example.org/"}},
    ),
}


@pytest.mark.parametrize("code", PROVOKED)
async def test_an_error_is_word_for_word_what_the_document_shows(
    code: str, client: httpx.AsyncClient
) -> None:
    method, path, request = PROVOKED[code]
    headers = AUTH | request.get("headers", {})
    answer = await client.request(method, path, **(request | {"headers": headers}))
    assert (answer.status_code, answer.json()) == (ERRORS[code].status, envelope(ERRORS[code]))


async def test_a_reused_key_is_word_for_word_what_the_document_shows(client: httpx.AsyncClient) -> None:
    headers = AUTH | {"Idempotency-Key": "report-2026-01-31"}
    await client.post("/api/v1/workflow", json=SUBMISSION, headers=headers)
    answer = await client.post("/api/v1/workflow", json=SUBMISSION | {"priority": 1}, headers=headers)
    assert answer.json() == envelope(ERRORS["IdempotencyKeyReused"])


@pytest.fixture
async def stranded(environment: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app whose PostgreSQL is away."""
    settings = load_settings(environment | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"})
    async with serving(settings) as opened:
        yield opened


async def test_without_postgresql_the_answers_are_as_documented(
    stranded: httpx.AsyncClient, document: Node, operations: dict[str, Node]
) -> None:
    refused = await stranded.post("/api/v1/workflow", json=SUBMISSION, headers=AUTH)
    assert (refused.status_code, refused.json()) == (503, envelope(ERRORS["ServiceUnavailable"]))
    check_answer(refused, "POST /api/v1/workflow", document, operations)
    assert refused.headers["Retry-After"] == ERRORS["ServiceUnavailable"].headers["Retry-After"]
    for path in ("/health", "/health/ready"):
        answer = await stranded.get(path)
        assert answer.status_code == 503
        check_answer(answer, f"GET {path}", document, operations)
