"""WORKFLOWS and load_workflows: what can be run, and how other packages add to it."""

from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest

from llm_service.errors import SettingsInvalid
from llm_service.workflows import ENTRY_POINT_GROUP, WORKFLOWS, load_workflows
from llm_service.workflows.prompts import read_prompt

PLUGIN = """
import msgspec
from llm_service.workflows.base import Workflow

class Empty(msgspec.Struct):
    pass

async def run(request, context):
    return request

WORKFLOW = Workflow(
    name="team_report", description="A team's own.", version="1", input_type=Empty, output_type=Empty,
    run=run, calls=lambda request: 0,
)
"""


def plugin(value: str) -> EntryPoint:
    return EntryPoint(name="theirs", value=value, group=ENTRY_POINT_GROUP)


def test_every_built_in_bears_the_name_it_is_listed_under() -> None:
    assert {name: workflow.name for name, workflow in WORKFLOWS.items()} == {name: name for name in WORKFLOWS}
    assert set(WORKFLOWS) == {"completion", "mission_generation", "emergency_contacts", "driving_directions"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_schemas_can_be_published(name: str) -> None:
    workflow = WORKFLOWS[name]
    for schema in (workflow.input_schema(), workflow.output_schema()):
        assert msgspec.json.decode(msgspec.json.encode(schema)) == schema
        assert schema["$defs"]


def test_without_plugins_there_are_the_built_ins() -> None:
    assert load_workflows([]) == WORKFLOWS


def test_an_installed_package_adds_its_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "team_report_plugin.py").write_text(PLUGIN)
    installed = tmp_path / "team_report-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: team-report\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        f"[{ENTRY_POINT_GROUP}]\nreport = team_report_plugin:WORKFLOW\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert set(load_workflows()) == {*WORKFLOWS, "team_report"}
    assert "team_report" not in WORKFLOWS, "loading must not change the built-ins"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_module:WORKFLOW", "cannot be loaded"),
        ("json:no_such_name", "cannot be loaded"),
        ("json:loads", "is a function, not a Workflow"),
        ("llm_service.workflows.completion:WORKFLOW", "already a workflow named 'completion'"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(value: str, reason: str) -> None:
    with pytest.raises(SettingsInvalid, match=reason) as refused:
        load_workflows([plugin(value)])
    assert "theirs" in refused.value.message
    assert value in refused.value.message


def test_a_prompt_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        read_prompt("no_such_prompt")
