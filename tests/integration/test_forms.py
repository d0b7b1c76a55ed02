"""Forms on a real data set: what is preselected, what is said beforehand, what is refused, what is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fo = pytest.importorskip("fiftyone")
import fiftyone.operators as foo  # noqa: E402
from fiftyone.core.collections import SampleCollection  # noqa: E402
from fiftyone.operators.executor import ExecutionContext  # noqa: E402

from umscosod.config.io import load_config  # noqa: E402
from umscosod.integrations.fiftyone import label_dataset  # noqa: E402

pytestmark = pytest.mark.mongod

URI = "@umscosod/umscosod"


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    from plugin import outlook

    outlook._CACHE.clear()


def context(dataset: Any, params: dict[str, Any] | None = None, view: Any = None) -> ExecutionContext:
    stages = [] if view is None else view._serialize()
    return ExecutionContext({"dataset_name": dataset.name, "params": params or {}, "view": stages})


def form_of(name: str, dataset: Any, params: dict[str, Any] | None = None, view: Any = None) -> dict[str, Any]:
    from plugin import outlook

    for kept in [outlook, _loaded_outlook()]:
        kept._CACHE.clear()
    return foo.get_operator(f"{URI}/{name}").resolve_input(context(dataset, params, view)).type.properties


def _loaded_outlook() -> Any:
    """The module as FiftyOne loaded it, under a name of its own."""
    import sys

    foo.get_operator(f"{URI}/label")
    return next(module for name, module in sys.modules.items() if name.endswith("umscosod.outlook"))


def said(form: dict[str, Any], name: str) -> str:
    return str(form[name].view.label)


def test_the_group_field_is_preselected_and_the_outlook_told(toy_dataset: Any) -> None:
    form = form_of("label", toy_dataset)
    assert form["group_field"].default == "cls"
    assert said(form, "outlook") == "8 images, 2 groups (4, 4), weight-free features, less than a minute"
    assert list(form)[:2] == ["view_target", "outlook"] or next(iter(form)) == "outlook"
    assert "one_group" not in form
    names = {"outlook", "group_field", "field", "train", "advanced"}
    assert set(form) - {"view_target"} == names


def test_the_view_that_is_chosen_counts(toy_dataset: Any) -> None:
    view = toy_dataset.match(fo.ViewField("cls") == "disk-0").limit(3)
    form = form_of("label", toy_dataset, {"group_field": "cls", "view_target": "CURRENT_VIEW"}, view)
    assert said(form, "outlook").startswith("3 images, 1 group, ")
    assert "one_group" in form
    form = form_of("label", toy_dataset, {"group_field": "cls", "view_target": "DATASET"}, view)
    assert said(form, "outlook").startswith("8 images, 2 groups (4, 4), ")


def test_what_is_odd_about_the_groups_is_said(toy_dataset: Any) -> None:
    toy_dataset.set_values("cls", ["a", "b", "b", "b", None, None, "c", "c"])
    form = form_of("label", toy_dataset, {"group_field": "cls"})
    assert said(form, "outlook").startswith("6 images, 3 groups (3, 2, 1)")
    assert "1 image is alone in a group" in said(form, "single_images")
    assert "2 images have no value in 'cls'" in said(form, "ungrouped")
    toy_dataset.set_values("cls", [None] * 8)
    assert form_of("label", toy_dataset, {"group_field": "cls"})["groups_problem"].invalid


def test_many_groups_and_a_flat_folder_are_said(toy_dataset: Any) -> None:
    folder = Path(toy_dataset.first().filepath).parent
    flat = [fo.Sample(filepath=str(folder / f"{number:03}.png"), cls=f"c{number}") for number in range(201)]
    toy_dataset.clear()
    toy_dataset.add_samples(flat)
    assert "201 groups are many" in said(form_of("label", toy_dataset, {"group_field": "cls"}), "many_groups")
    form = form_of("label", toy_dataset)
    assert form["group_field"].default == "(folder)"  # a value an image names no groups
    assert "one folder" in said(form, "one_group")


def test_videos_are_refused_in_the_form(dataset_factory: Any, tmp_path: Path) -> None:
    dataset = dataset_factory()
    dataset.clear()
    dataset.media_type = "video"
    assert "media type 'video'" in said(form_of("label", dataset), "groups_problem")


@pytest.mark.parametrize(
    ("params", "problem", "text"),
    [
        ({"device": "gpu"}, "device_problem", "use auto, cpu, cuda"),
        ({"device": "cuda:99"}, "device_problem", "not available on this machine"),
        ({"weights": "/nowhere/w.safetensors"}, "weights_problem", "/nowhere/w.safetensors"),
        ({"weights": "{tmp}/w.txt"}, "weights_problem", "unknown ending '.txt'"),
        ({"weights": "{tmp}/w.safetensors"}, "weights_problem", "cannot be read"),
        ({"out_dir": "{tmp}/loop/below"}, "out_dir_problem", "leads to no folder"),
        ({"out_dir": "{tmp}/w.txt"}, "out_dir_problem", "a file, not a folder"),
        ({"out_dir": "{tmp}/w.txt/below"}, "out_dir_problem", "a file, not a folder"),
        ({"out_dir": "/proc/1/nothing"}, "out_dir_problem", "nothing can be written"),
        ({"settings": "train.epochs=0"}, "settings_problem", "epochs"),
    ],
)
@pytest.mark.parametrize("name", ["label", "predict"])
def test_what_cannot_work_is_refused_while_it_is_typed(
    toy_dataset: Any, tmp_path: Path, name: str, params: dict[str, str], problem: str, text: str
) -> None:
    for file in ("w.txt", "w.safetensors"):
        (tmp_path / file).write_text("no tensors")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    given = {key: value.format(tmp=tmp_path) for key, value in params.items()}
    form = form_of(name, toy_dataset, {**given, "advanced": True})
    assert form[problem].invalid
    assert text in said(form, problem)
    assert problem not in form_of(name, toy_dataset, {"advanced": True})


def test_faults_are_shown_where_the_field_is_hidden(toy_dataset: Any) -> None:
    form = form_of("label", toy_dataset, {"device": "gpu", "preset": "smoke"})
    assert form["device_problem"].invalid
    assert "Device 'gpu'" in form["advanced"].view.description


def test_a_folder_with_other_files_is_said(toy_dataset: Any, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    form = form_of("label", toy_dataset, {"out_dir": str(tmp_path), "advanced": True})
    assert "mine.txt" in said(form, "out_dir_note")


def test_training_is_off_where_it_does_not_pay(toy_dataset: Any) -> None:
    form = form_of("label", toy_dataset)
    assert form["train"].default is False
    assert "without weights" in form["train"].view.description
    form = form_of("label", toy_dataset, {"backbone": "dino_vits8"})
    assert form["train"].default is False
    assert "on sets below 100 the mean gain was nil" in form["train"].view.description
    toy_dataset.add_samples([fo.Sample(filepath=f"/pictures/{n}.jpg", cls=f"k{n % 4}") for n in range(100)])
    assert form_of("label", toy_dataset, {"backbone": "dino_vits8"})["train"].default is True
    assert form_of("label", toy_dataset)["train"].default is False


def test_values_used_last_are_the_next_defaults_of_a_form(toy_dataset: Any, tmp_path: Path) -> None:
    settings = {"preset": "smoke", "settings": "refine.crf.enabled=false", "advanced": True, "train": True}
    params = {"group_field": "(folder)", "field": "quick", "out_dir": str(tmp_path / "out"), **settings}
    foo.get_operator(f"{URI}/label")(toy_dataset, **params)
    assert toy_dataset.count("quick") > 0
    form = form_of("label", toy_dataset)
    assert (form["group_field"].default, form["field"].default) == ("(folder)", "quick")
    assert form["advanced"].default is True
    shown = form_of("label", toy_dataset, {"advanced": True})
    assert (shown["preset"].default, shown["settings"].default) == ("smoke", "refine.crf.enabled=false")
    assert shown["out_dir"].default is None
    assert shown["train"].default is False  # found anew
    assert form_of("predict", toy_dataset)["field"].default == "predicted"
    foo.get_operator(f"{URI}/label")(toy_dataset.limit(2), preset="smoke", backbone="embedded", train=False)
    assert toy_dataset.count("cosal") == 2  # a call from Python has the plain default


def test_a_remembered_field_that_is_gone_is_not_preselected(toy_dataset: Any) -> None:
    toy_dataset.add_sample_field("kind", fo.StringField)
    toy_dataset.set_values("kind", ["x", "y"] * 4)
    settings = {"preset": "smoke", "train": False}
    foo.get_operator(f"{URI}/label")(toy_dataset, group_field="kind", field="quick", **settings)
    assert form_of("label", toy_dataset)["group_field"].default == "kind"
    toy_dataset.delete_sample_field("kind")
    assert form_of("label", toy_dataset)["group_field"].default == "cls"


def test_own_text_fields_name_no_groups(toy_dataset: Any) -> None:
    config = load_config("smoke")
    label_dataset(toy_dataset, group_field="cls", train=False, config=config)
    for name in ("label", "predict", "import_predictions", "evaluate"):
        form = form_of(name, toy_dataset, {"advanced": True})
        assert [choice.value for choice in form["group_field"].view.choices] == ["(folder)", "cls"]
    form = form_of("group_by_class", toy_dataset, {"by": "field"})
    assert [choice.value for choice in form["source"].view.choices] == ["cls", "cosal_confidence"]
    form = form_of("evaluate", toy_dataset)
    assert (form["pred_field"].default, form["gt_field"].default) == ("cosal", "ground_truth")


@pytest.mark.parametrize("name", ["label", "generate_pseudo_masks", "train", "predict", "evaluate"])
def test_forms_ask_the_database_once_for_many_keystrokes(
    toy_dataset: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    asked: list[Any] = []
    real = SampleCollection.aggregate
    monkeypatch.setattr(SampleCollection, "aggregate", lambda self, x, **k: asked.append(x) or real(self, x, **k))
    form_of(name, toy_dataset)
    assert 0 < len(asked) < 4
    asked.clear()
    for length in range(1, 5):
        foo.get_operator(f"{URI}/{name}").resolve_input(context(toy_dataset, {"field": "predicted"[:length]}))
    assert asked == []


def test_groups_start_from_pictures_where_nothing_else_names_them(toy_dataset: Any) -> None:
    assert form_of("group_by_class", toy_dataset)["by"].default == "field"
    assert form_of("group_by_class", toy_dataset)["source"].default == "cls"
    toy_dataset.delete_sample_field("cls")
    assert form_of("group_by_class", toy_dataset)["by"].default == "folder"
    view = toy_dataset.limit(4)
    form = form_of("group_by_class", toy_dataset, {"view_target": "CURRENT_VIEW"}, view)
    assert form["by"].default == "discovered"
    assert form["action"].default == "preview"


def test_proposed_groups_can_be_looked_at(toy_dataset: Any) -> None:
    from umscosod.integrations.fiftyone import preview_groups, preview_view, stored_preview

    assert len(preview_view(toy_dataset)) == 0
    preview_groups(toy_dataset, n_groups=2, config=load_config("smoke"))
    sizes = stored_preview(toy_dataset)
    view = preview_view(toy_dataset)
    assert len(view) == len(sizes) == 2
    operator = foo.get_operator(f"{URI}/group_by_class")
    ctx = context(toy_dataset, {"by": "discovered"})
    assert operator.view_after(ctx).values("id") == view.values("id")
    (step,) = operator.next_steps(ctx)
    assert (step.operator, step.params["action"]) == ("group_by_class", "write")
    # the grid shows one image a group by now; all that were looked at get their group
    params = {**step.params, "n_groups": 2, "preset": "smoke"}
    foo.execute_operator(operator.uri, {"dataset": toy_dataset, "view": view, "params": params})
    toy_dataset.reload()
    assert sorted(toy_dataset.count_values("cosal_group").values()) == sorted(sizes.values())
    assert form_of("group_by_class", toy_dataset, {"by": "discovered"})["action"].default == "write"


def test_predict_offers_the_networks_of_all_data_sets(dataset_factory: Any) -> None:
    from umscosod.integrations.fiftyone import train_dataset

    here, there = dataset_factory(), dataset_factory()
    assert "no_networks" in form_of("predict", here)
    config = load_config("smoke")
    label_dataset(there, group_field="cls", train=False, config=config)
    train_dataset(there, group_field="cls", labels="cosal", key="network", config=config)
    name = f"{there.name}/network"
    form = form_of("predict", here)
    assert [choice.value for choice in form["checkpoint"].view.choices] == [name]
    assert f"{name} (embedded, 8 images, 20" in form["checkpoint"].view.choices[0].label
    assert form["checkpoint"].default == name
    assert "network_note" not in form_of("predict", here, {"checkpoint": name})
    other = form_of("predict", here, {"checkpoint": name, "backbone": "dino_vits8"})
    assert "needs the features embedded" in said(other, "network_note")
    foo.get_operator(f"{URI}/predict")(here, checkpoint=name, group_field="cls", preset="smoke")
    here.reload()
    assert here.count("predicted") == 8
    assert form_of("predict", there)["checkpoint"].default == "network"
