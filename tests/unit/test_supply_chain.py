"""What is installed, how it runs, and what the code must not call. Ids: docs/security.md."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.txt"))
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("alembic/**/*.py")])
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

BANNED_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}
BANNED_MODULES = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Bare names, and methods of `os`: `re.compile` and a method called `exec` are others."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="os" | "builtins"), attr=name):
                    found.append((name, node))
                case ast.Attribute(attr=name):
                    found.append((f".{name}", node))
    return found


def wrong_with(source: str) -> list[str]:
    tree = ast.parse(source)
    wrong = [name for name, _ in calls(tree) if name in BANNED_CALLS]
    wrong += [
        "shell=True"
        for _, call in calls(tree)
        for word in call.keywords
        if word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
    ]
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        wrong += [name for name in names if name.split(".")[0] in BANNED_MODULES]
    return wrong


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "exec(x)",
        "import pickle",
        "from pickle import loads",
        "run(x, shell=True)",
        "os.system('x')",
    ],
)
def test_s57_what_runs_text_as_code_would_be_found(source: str) -> None:
    assert wrong_with(source)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_s57_nothing_runs_text_as_code(path: Path) -> None:
    assert wrong_with(path.read_text(encoding="utf-8")) == []


def equals_a_secret(tree: ast.AST) -> list[int]:
    """Lines that compare something named like a secret with == or !=: that takes longer the more of it is right."""

    def is_secret(node: ast.AST) -> bool:
        name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
        revealed = (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "reveal"
        )
        return revealed or re.fullmatch(r"_?(\w*_)?(secret|password|signature|token)", name) is not None

    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and any(is_secret(side) for side in (node.left, *node.comparators))
    ]


def test_s04_no_secret_is_compared_with_equals() -> None:
    assert equals_a_secret(ast.parse("if sent == api_secret: ..."))
    assert equals_a_secret(ast.parse("if secret.reveal() != sent: ..."))
    found = {
        str(path.relative_to(ROOT)): lines
        for path in SOURCES
        if (lines := equals_a_secret(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


def formatted(tree: ast.AST) -> list[str]:
    """What `.format` is called on, unless it is a text in the code or a constant that holds one."""
    return [
        ast.unparse(call.func)
        for name, call in calls(tree)
        if name in {".format", ".format_map"}
        and isinstance(call.func, ast.Attribute)
        and not isinstance(call.func.value, ast.Constant)
        and not (isinstance(call.func.value, ast.Name) and call.func.value.id.isupper())
    ]


def test_s47_only_constants_are_templates() -> None:
    assert formatted(ast.parse("request.prompt.format(secret=1)"))
    found = [name for path in SOURCES for name in formatted(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == []
    assert not any("Template(" in path.read_text(encoding="utf-8") for path in SOURCES)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_s56_every_locked_package_has_its_hashes_and_no_lock_names_a_host(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    entries = re.split(
        r"^(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE
    )
    packages = [entry for entry in entries if entry.strip()]
    assert packages
    for entry in packages:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry[:100]
        assert "--hash=sha256:" in entry, entry[:100]
    assert "://" not in text
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) == {"--hash"}, "an option that names a place"


def test_s56_nothing_is_installed_without_its_hash() -> None:
    lines = re.findall(r"^.*(?:\$\(UV\)|\$\(PIP\)|pip .*install).*$", MAKEFILE + DOCKERFILE, re.MULTILINE)
    installs = [line for line in lines if ":=" not in line]
    assert len(installs) >= 5
    for line in installs:
        assert "--require-hashes" in line or "--no-deps" in line or "uninstall" in line, line


def test_s54_the_audit_fails_on_what_it_could_not_ask_about() -> None:
    """Without --strict, pip-audit says of a service that knows no package: no vulnerabilities."""
    [line] = [line for line in MAKEFILE.splitlines() if "/pip-audit" in line]
    assert "--strict" in line
    assert "--require-hashes" in line
    assert "--ignore-vuln" not in line, "an exception needs a date on which it ends"
    assert "|| exit" in MAKEFILE[MAKEFILE.index(line) :][:300]


def test_s58_the_image_runs_as_nobody_and_holds_no_installer() -> None:
    runs = DOCKERFILE[DOCKERFILE.rindex("\nFROM") :]
    assert re.search(r"^USER 65532:65532$", runs, re.MULTILINE)
    assert runs.index("USER 65532") < runs.index("CMD")
    assert "uninstall --yes" in runs
    assert "ADD http" not in DOCKERFILE
    assert not re.search(r"(?i)^(ARG|ENV) .*(secret|password|key)", DOCKERFILE, re.MULTILINE)


def service_block(name: str) -> str:
    services = COMPOSE[COMPOSE.index("\nservices:") : COMPOSE.index("\nvolumes:")]
    return re.split(r"\n  (?=\w+:\n)", services.split(f"\n  {name}:\n", 1)[1])[0]


def test_s58_each_container_of_ours_is_read_only_and_has_no_rights() -> None:
    shared = COMPOSE[COMPOSE.index("x-service:") : COMPOSE.index("x-environment:")]
    for line in ("read_only: true", "cap_drop: [ALL]", 'security_opt: ["no-new-privileges:true"]'):
        assert line in shared
    for name in ("migrate", "api", "worker"):
        block = service_block(name)
        assert "<<: *service" in block
        assert "privileged" not in block
        assert "volumes" not in block


def test_s58_the_servers_have_no_port_on_the_host_and_no_secret_is_written_here() -> None:
    for name in ("postgres", "redis", "migrate", "worker"):
        assert "ports:" not in service_block(name), name
    assert 'ports: ["127.0.0.1:' in service_block("api")
    for secret in re.findall(r"^\s+\w*(?:SECRET|PASSWORD|KEYS?): *(.*)$", COMPOSE, re.MULTILINE):
        assert secret == "" or secret.startswith("${"), secret


def ignored(name: str) -> Any:
    return re.search(rf"^{re.escape(name)}$", (ROOT / ".gitignore").read_text(encoding="utf-8"), re.MULTILINE)


def test_secrets_and_builds_are_not_committed() -> None:
    assert all(ignored(name) for name in (".env", ".state/", "build/", "dist/"))


# --- docs/security.md -------------------------------------------------------------------------------------

SECURITY = (ROOT / "docs/security.md").read_text(encoding="utf-8")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))


def test_the_page_on_security_has_every_line_once() -> None:
    lines = [int(number) for number in re.findall(r"^\| (\d+) \|", SECURITY, re.MULTILINE)]
    assert lines == list(range(1, 66))


def test_every_test_that_the_page_names_is_there_and_every_numbered_one_has_its_row() -> None:
    named = set(re.findall(r"`(test_\w+)[`\[]", SECURITY))
    there = set(re.findall(r"def (test_\w+)\(", TESTS))
    assert named - there == set()
    rows = dict(re.findall(r"^\| (\d+) \|(.*)$", SECURITY, re.MULTILINE))
    numbered = {name: str(int(name[6:8])) for name in there if re.match(r"test_s\d\d_", name)}
    assert {name for name, number in numbered.items() if number not in rows} == set()
    for number, row in rows.items():
        if number in set(numbered.values()):
            assert "test_" in row or "the same" in row, number
