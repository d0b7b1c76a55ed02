"""The pages about the plugin and the skill for agents name what there is; tests/integration runs the snippets."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
import fiftyone.plugins as fop  # noqa: E402

import umscosod.integrations.fiftyone as integration  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((ROOT / "fiftyone.yml").read_text(encoding="utf-8"))
OPERATORS = {name for name in MANIFEST["operators"] if not name.startswith("metric_")}
PAGE = (ROOT / "docs" / "plugin.md").read_text(encoding="utf-8")
SKILL = ROOT / "skills" / "label-cosalient" / "SKILL.md"
LIMIT_BYTES = 250_000


def snippets(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


def test_every_operator_has_a_section_with_app_and_python() -> None:
    titles = " ".join(re.findall(r"^### (.*)$", PAGE, re.MULTILINE))
    assert set(re.findall(r"[a-z_]+", titles)) >= OPERATORS
    used = set(re.findall(rf'get_operator\("{MANIFEST["name"]}/(\w+)"\)', PAGE))
    assert used == OPERATORS


@pytest.mark.parametrize("text", [PAGE, SKILL.read_text(encoding="utf-8")], ids=["page", "skill"])
def test_snippets_parse_and_use_what_there_is(text: str) -> None:
    code = "\n".join(snippets(text))
    tree = ast.parse(code)
    ours = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "cosal"
    }
    assert ours <= set(integration.__all__)
    uris = re.findall(r'get_operator\("(@\S+?)"\)', code)
    assert uris
    for uri in uris:
        assert foo.get_operator(uri).uri == uri


def test_panels_and_pictures_are_there() -> None:
    labels = [str(foo.get_operator(f"{MANIFEST['name']}/{name}").config.label) for name in MANIFEST["panels"]]
    for label in labels:
        assert f"### {label.removeprefix('UMS-CoSOD: ').capitalize()}" in PAGE
    pictures = re.findall(r"!\[[^\]]+\]\((images/[^)]+)\)", PAGE)
    assert len(pictures) >= 5
    for picture in pictures:
        assert 0 < (ROOT / "docs" / picture).stat().st_size < LIMIT_BYTES


def test_fiftyone_finds_the_skill() -> None:
    """It looks in ``skills/`` beside the manifest, by the name in its head; a missing one is passed over in silence."""
    assert MANIFEST["skills"] == [SKILL.parent.name]
    list_skills = getattr(fop, "list_skills", None)
    if list_skills is None:
        pytest.skip("this FiftyOne knows no skills")
    (skill,) = list_skills(plugin=MANIFEST["name"])
    assert (skill.name, Path(skill.path).resolve()) == (SKILL.parent.name, SKILL)
    assert skill.description
    assert skill.category


def test_the_skill_names_every_operator_with_its_risk() -> None:
    text = SKILL.read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    told = {name: risk.split(":")[0].strip() for names, risk in rows for name in re.findall(r"`(\w+)`", names)}
    real = {name: foo.get_operator(f"{MANIFEST['name']}/{name}").config.risk_level for name in OPERATORS}
    assert told == {name: str(getattr(risk, "value", risk)).lower() for name, risk in real.items()}
    functions = set(re.findall(r"`(\w+)\(", text))
    assert functions <= {*integration.__all__}


def test_the_api_page_lists_every_public_name() -> None:
    text = (ROOT / "docs" / "api" / "fiftyone.md").read_text(encoding="utf-8")
    listed = [name for line in re.findall(r"members: \[(.*)\]", text) for name in line.split(", ")]
    assert sorted(listed) == sorted(integration.__all__)
