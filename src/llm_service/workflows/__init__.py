"""What can be run: the built-in workflows, and those that other packages bring."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from llm_service.errors import SettingsInvalid
from llm_service.workflows import completion, driving_directions, emergency_contacts, mission_generation
from llm_service.workflows.base import Workflow

ENTRY_POINT_GROUP = "llm_service.workflows"

WORKFLOWS: dict[str, Workflow[Any, Any]] = {
    "completion": completion.WORKFLOW,
    "mission_generation": mission_generation.WORKFLOW,
    "emergency_contacts": emergency_contacts.WORKFLOW,
    "driving_directions": driving_directions.WORKFLOW,
}


def load_workflows(plugins: Iterable[EntryPoint] | None = None) -> dict[str, Workflow[Any, Any]]:
    """Return the built-ins and the workflow behind every entry point of the installed packages, by name.

    Raises SettingsInvalid, naming the entry point, for one that cannot be loaded, is no Workflow, or bears a
    name already taken: a service that starts has every workflow it was installed with.
    """
    found = entry_points(group=ENTRY_POINT_GROUP) if plugins is None else plugins
    workflows = dict(WORKFLOWS)
    for plugin in found:
        workflow = _load(plugin)
        if workflow.name in workflows:
            raise SettingsInvalid(f"{_describe(plugin)}: there is already a workflow named {workflow.name!r}")
        workflows[workflow.name] = workflow
    return workflows


def _load(plugin: EntryPoint) -> Workflow[Any, Any]:
    try:
        workflow = plugin.load()
    except Exception as error:
        raise SettingsInvalid(f"{_describe(plugin)} cannot be loaded: {error!r}") from error
    if not isinstance(workflow, Workflow):
        raise SettingsInvalid(f"{_describe(plugin)} is a {type(workflow).__name__}, not a Workflow")
    return workflow


def _describe(plugin: EntryPoint) -> str:
    return f"Entry point {plugin.name!r} ({plugin.value}) of group {ENTRY_POINT_GROUP}"
