"""The OpenAPI document: what Litestar reads off the handlers, made exact, and what it cannot know.

Litestar loses the constraints of optional fields and knows neither the answers' headers nor the webhooks. The
schemas here are those of msgspec, which is also what decodes and encodes the bodies.
"""

from collections.abc import Collection, Iterator
from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.routes import HTTPRoute
from litestar.typing import FieldDefinition

from llm_service import __version__
from llm_service.api.auth import is_guarded
from llm_service.api.errors import EXAMPLES as ERRORS
from llm_service.api.errors import envelope
from llm_service.api.examples import EXAMPLES, JOB_ID, UNHEALTHY, WEBHOOK_ID, webhook_example
from llm_service.errors import JobFailure
from llm_service.jobs.model import AttemptOutcome, CallStatus, JobStatus, WebhookState
from llm_service.jobs.report import WebhookBody

JSON = "application/json"
REF = "#/components/schemas/{name}"
STOCK_PHRASES = {"Request fulfilled, document follows", "Request accepted, processing continues off-line"}
ENDINGS = (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)
Node = dict[str, Any]

DESCRIPTION = """Submit LLM workflows with the context of who asked and why; each becomes a job that is never
lost, never owned twice and never paid for twice, and is reported by a signed webhook.

Every route below `/api/v1` needs the header `X-API-Secret`. Every error has one envelope:
`{"detail": {"error": CODE, "message": TEXT, ...}}`. What no route answers is 404 `RouteNotFound` or 405
`MethodNotAllowed`. Times are ISO 8601 with offset."""

HEADERS: Node = {
    "X-Request-ID": {
        "description": "Leads to this request in the log: the X-Request-ID that was sent, if it is 1 to 64 "
        "letters, digits, dots, dashes or underscores, else a new one.",
        "schema": {"type": "string", "maxLength": 64},
    },
    "Location": {
        "description": "The job, /api/v1/jobs/{job_id}.",
        "schema": {"type": "string", "format": "uri-reference"},
        "example": f"/api/v1/jobs/{JOB_ID}",
    },
    "Idempotent-Replay": {
        "description": "Present when this is the answer to an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Retry-After": {
        "description": "Seconds to wait before the same request may succeed.",
        "schema": {"type": "integer", "minimum": 0},
        "example": 2,
    },
}

_SUMMARY: Node = {
    "status": {"enum": list(JobStatus)},
    "priority": {"minimum": 0, "maximum": 10, "description": "10 is most urgent."},
    "started_at": {"description": "The first claim by a worker."},
    "completed_at": {"description": "Set with any final state."},
    "duration_ms": {"description": "From started_at to completed_at; null where it never started."},
    "error_message": {"description": "Why it failed, in words."},
    "error_code": {
        "description": "Why it failed, in one word: "
        + ", ".join(sorted(kind.__name__ for kind in JobFailure.__subclasses__()))
        + ".",
    },
    "attempt": {"description": "How often a worker has begun it; an attempt given back does not count."},
    "webhook_state": {"enum": list(WebhookState)},
    "total_tokens": {"description": "Null while it runs, and where the provider did not say."},
    "cost_usd": {"description": "Null where a price is not known; never 0 for unknown."},
}
FACTS: dict[str, Node] = {
    "JobSummary": _SUMMARY,
    "JobDetail": _SUMMARY
    | {
        "input_data": {"type": "object", "description": "As it was submitted."},
        "result": {
            "description": "The workflow's output, as its output_schema has it; null until completed."
        },
        "retried_from": {"description": "The job that this one runs again."},
        "request_id": {"description": "The X-Request-ID of the submit."},
    },
    "JobsListResponse": {
        "total": {"description": "Every match before paging; null with count=none."},
        "limit": {"description": "The one in force: a numeric limit_results overrides the parameter."},
        "total_is_capped": {
            "description": "True: there are more than `total` says; count=exact counts them."
        },
        "next_cursor": {"description": "The `cursor` of the next page; null on the last."},
    },
    "AttemptDetail": {"outcome": {"enum": list(AttemptOutcome)}},
    "CallDetail": {"status": {"enum": list(CallStatus)}},
    "WebhookDetail": {"state": {"enum": list(WebhookState)}},
    "WorkflowSubmitResponse": {"status": {"enum": [JobStatus.PENDING]}},
    "WebhookBody": {
        "event": {"enum": [f"workflow.{status}" for status in ENDINGS]},
        "status": {"enum": list(ENDINGS)},
        "result": {"description": "The workflow's output; null unless completed."},
        "result_truncated": {
            "description": "True when the result would have made the body larger than 1 MB."
        },
        "result_url": {"description": "Where to read a result that was left out."},
    },
}
"""What the Python types do not say about a field."""

PARAMETERS: dict[str, Node] = {
    "job_id": {"description": "The id from the 202.", "schema": {"type": "string", "format": "uuid"}},
    "limit_results": {
        "examples": {
            use: {"summary": summary, "value": use}
            for use, summary in {
                "25": "The newest 25",
                "50": "The newest 50",
                "100": "The newest 100",
                "200": "The newest 200",
                "Today": "Since 00:00 UTC",
                "7 Days": "The last 168 hours",
                "30 Days": "The last 720 hours",
            }.items()
        }
    },
}


class DocumentPlugin(JsonRenderPlugin):
    """Serves the document. It is made at the first request and kept: one plugin belongs to one app."""

    def __init__(self) -> None:
        super().__init__(path=["/openapi.json", "/"])
        self._rendered: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: Node) -> bytes:
        if self._rendered is None:
            self._rendered = msgspec.json.encode(complete(openapi_schema, wire_structs(request.app)))
        return self._rendered


def openapi_config() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="llm-service",
        version=__version__,
        description=DESCRIPTION,
        path="/schema",
        # The viewers would load their scripts from elsewhere: the document alone is served.
        render_plugins=[DocumentPlugin()],
        tags=[
            Tag(name="Workflows", description="What can be run, and how to have it run."),
            Tag(name="Jobs", description="What became of it."),
            Tag(name="Health", description="Open routes."),
        ],
        security=[{"ApiSecret": []}],
        components=Components(
            security_schemes={
                "ApiSecret": SecurityScheme(
                    type="apiKey",
                    name="X-API-Secret",
                    security_scheme_in="header",
                    description="One of the secrets in LLM_SERVICE_API_SECRET.",
                )
            }
        ),
    )


def wire_structs(app: Litestar) -> set[type[msgspec.Struct]]:
    """Every struct that a handler takes, returns or documents."""
    handlers = [
        handler
        for route in app.routes
        if isinstance(route, HTTPRoute)
        for handler in route.route_handlers
        if isinstance(handler, HTTPRouteHandler)
    ]
    return {struct for handler in handlers for struct in _structs_of(handler)}


def _structs_of(handler: HTTPRouteHandler) -> Iterator[type[msgspec.Struct]]:
    fields = [handler.parsed_return_field, handler.parsed_data_field]
    kinds = [kind for field in fields if field is not None for kind in _annotations(field)]
    kinds += [spec.data_container for spec in (handler.responses or {}).values()]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield kind


def _annotations(field: FieldDefinition) -> Iterator[Any]:
    yield field.annotation
    for inner in field.inner_types:
        yield from _annotations(inner)


def complete(schema: Node, structs: Collection[type[msgspec.Struct]]) -> Node:
    """The document made exact. `schema` is Litestar's and stays as it is; `structs` are those it may name."""
    document: Node = msgspec.to_builtins(schema)
    components = document["components"]
    named = [struct for struct in structs if struct.__name__ in components["schemas"]]
    components["schemas"] |= struct_schemas([*named, WebhookBody])
    components["headers"] = HEADERS
    document["paths"] |= schema_paths()
    add_unhealthy(document["paths"])
    for path, item in document["paths"].items():
        for operation in item.values():
            complete_operation(operation, components["schemas"])
            if not is_guarded(path):
                operation["security"] = []
    document["webhooks"] = {f"workflow.{status}": {"post": webhook(status)} for status in ENDINGS}
    return document


def struct_schemas(structs: Collection[type[msgspec.Struct]]) -> Node:
    """The component schemas of structs and of what they hold."""
    _, found = msgspec.json.schema_components(structs, ref_template=REF)
    schemas: Node = msgspec.to_builtins(found)
    for name, facts in FACTS.items():
        for field, fact in facts.items() if name in schemas else ():
            schemas[name]["properties"][field] |= fact
    if "ErrorDetail" in schemas:
        schemas["ErrorDetail"]["additionalProperties"] = True
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            open_objects(field)
            if field.get("default", ...) is None:
                del field["default"]  # absent and null are the same: nothing to tell a generator
    return schemas


def open_objects(field: Node) -> None:
    """Say that an object without named properties may hold any: generators would else take it for an empty one."""
    for node in (field, *field.get("anyOf", ())):
        if node.get("type") == "object":
            node.setdefault("additionalProperties", True)


def complete_operation(operation: Node, schemas: Node) -> None:
    for parameter in operation.get("parameters", ()):
        complete_parameter(parameter)
    if body := operation.get("requestBody"):
        add_examples(body)
    responses = operation["responses"]
    for status in [status for status, answer in responses.items() if _is_litestars_own(status, answer)]:
        del responses[status]
    for status, answer in responses.items():
        complete_answer(status, answer, schemas)


def complete_parameter(parameter: Node) -> None:
    parameter |= PARAMETERS.get(parameter["name"], {})
    schema = parameter["schema"]
    if all(isinstance(value, str) for value in schema.get("enum", [None])):
        schema["type"] = "string"
    if schema.get("description") == parameter.get("description"):
        schema.pop("description", None)


def complete_answer(status: str, answer: Node, schemas: Node) -> None:
    name = _struct_name(answer)
    if answer["description"] in STOCK_PHRASES:
        answer["description"] = schemas.get(name, {}).get("description", "Done.")
    headers = dict.fromkeys([*answer.get("headers", {}), "X-Request-ID"])
    if name == "ErrorResponse" and status in {"429", "503"}:
        headers["Retry-After"] = None
    answer["headers"] = {header: {"$ref": f"#/components/headers/{header}"} for header in headers}
    for content in answer.get("content", {}).values():
        for example in content.get("examples", {}).values():
            example.pop("id", None)  # Litestar's own; OpenAPI knows no such field
    if "examples" not in answer.get("content", {}).get(JSON, {}):
        add_examples(answer)


def add_examples(body: Node) -> None:
    if examples := EXAMPLES.get(_struct_name(body)):
        body["content"][JSON]["examples"] = {
            summary.replace(" ", "-").lower(): {"summary": summary, "value": value}
            for summary, value in examples.items()
        }


def _struct_name(body: Node) -> str:
    schema = body.get("content", {}).get(JSON, {}).get("schema", {})
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _is_litestars_own(status: str, answer: Node) -> bool:
    """The 400 that Litestar documents for every handler with parameters: no handler here answers so."""
    return status == "400" and _struct_name(answer) != "ErrorResponse"


def add_unhealthy(paths: Node) -> None:
    for path in {"/health", "/health/ready"} & paths.keys():
        paths[path]["get"]["responses"]["503"] = {
            "description": "Unhealthy: PostgreSQL is away, so that nothing can be accepted; "
            "on /health/ready also while the process is stopping.",
            "content": {
                JSON: {
                    "schema": {"$ref": REF.format(name="HealthResponse")},
                    "examples": {"unhealthy": {"summary": "Unhealthy", "value": UNHEALTHY}},
                }
            },
        }


def schema_paths() -> Node:
    """The routes of this document itself."""
    return {
        path: {
            "get": {
                "tags": ["Health"],
                "summary": "This document",
                "operationId": operation_id,
                "responses": {
                    "200": {
                        "description": "OpenAPI 3.1.",
                        "content": {"application/vnd.oai.openapi+json": {"schema": {"type": "object"}}},
                    }
                },
            }
        }
        for path, operation_id in {"/schema": "Schema", "/schema/openapi.json": "SchemaOpenapiJson"}.items()
    }


def webhook(status: str) -> Node:
    """What is sent to the `webhook_url` of a job that ended as `status`."""
    return {
        "tags": ["Webhooks"],
        "summary": f"A job is {status}",
        "description": "Sent until a 2xx says that it was taken, at least once: `webhook-id` stays the same over "
        "all tries. Sign what was received, byte for byte, before parsing it.",
        "operationId": f"Workflow{status.capitalize()}",
        "security": [],
        "parameters": [
            _webhook_header("webhook-id", "Stable over all tries: what to know a repetition by.", WEBHOOK_ID),
            _webhook_header(
                "webhook-timestamp", "The time of this try, in seconds since 1970.", "1769850903"
            ),
            _webhook_header(
                "webhook-signature",
                "Standard Webhooks: `v1,` and base64 of the HMAC-SHA256 of `{webhook-id}.{webhook-timestamp}.{body}`. "
                "Absent where neither the job nor the service has a secret.",
                "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
                is_required=False,
            ),
            _webhook_header(
                "X-Webhook-Signature",
                "`sha256=` and the hex HMAC-SHA256 of the body alone. Absent as webhook-signature is.",
                "sha256=2b9f60c5c8a5a1e1d0f8b7c6a5948372615f4e3d2c1b0a99887766554433221f",
                is_required=False,
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                JSON: {
                    "schema": {"$ref": REF.format(name="WebhookBody")},
                    "examples": {status: {"summary": status.capitalize(), "value": webhook_example(status)}},
                }
            },
        },
        "responses": {
            "2XX": {"description": "Taken."},
            "410": {"description": "Never again: no further tries are made."},
            "default": {
                "description": "Not taken, a redirect included: tried again after 5 s, 15 s, 45 s, 5 min, 30 min, "
                "2 h, 5 h and 10 h. Retry-After is honoured."
            },
        },
    }


def _webhook_header(name: str, description: str, example: str, *, is_required: bool = True) -> Node:
    return {
        "name": name,
        "in": "header",
        "required": is_required,
        "description": description,
        "schema": {"type": "string"},
        "example": example,
    }


__all__ = ["DocumentPlugin", "complete", "openapi_config", "wire_structs"]
