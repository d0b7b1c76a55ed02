"""Defines the operators `import_predictions` and `export`: import results of other methods, export masks."""

from pathlib import Path
from typing import Any

from umscosod.errors import ConfigError
from umscosod.integrations.fiftyone import group_fields

from ..forms import (
    Form,
    add_editable,
    add_field_choice,
    add_out_dir,
    mask_fields,
    names_as_words,
    read_flag,
    read_group_field,
    read_number,
    read_text,
)
from ..outlook import open_form
from .base import JobOperator

KINDS = {
    "auto": "find out: masks if the pictures hold two values only",
    "mask": "masks",
    "map": "soft maps, cut at a threshold",
}
FORMATS = {
    "coco": "COCO instances: one JSON file with run-length masks",
    "yolo": "YOLO segmentation: text files with polygons",
    "cvat": "CVAT for images 1.1: one XML file with run-length masks",
    "png": "PNG: a tree of masks named like the images",
}
WITHOUT_REGIONS = ("png", "yolo")
ONE_CATEGORY = "(one category)"


class ImportPredictions(JobOperator):
    """Imports maps or masks of any other method as a run."""

    NAME = "import_predictions"
    LABEL = "UMS-CoSOD: import predictions"
    DESCRIPTION = "Bring saliency maps or masks made elsewhere onto the samples, to compare, refine and review them"
    ACTION = "Import predictions of"
    ICON = "file_download"
    CALL = "import_predictions"
    CAN_EDIT = True
    DEFAULT = "imported"
    DONE = "Predictions are in the field '{}', as a run of that name"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for folder, groups and output field; on demand also for the kind of the pictures."""
        form, outlook = open_form(self, inputs, ctx)
        outlook.add_headline()
        folder = read_text(ctx, "folder")
        is_wrong = bool(folder) and not Path(folder).expanduser().is_dir()
        inputs.str(
            "folder",
            label="Folder of predictions",
            required=True,
            invalid=is_wrong,
            error_message="No such folder on the App's machine" if is_wrong else "",
            description="FOLDER/GROUP/NAME.png, FOLDER/NAME.png, or an output folder of 'umscosod label'; it is copied",
        )
        if is_wrong:
            form.error("folder_problem", f"There is no folder {folder}")
        outlook.add_group_choice()
        field = add_field_choice(form, self.DEFAULT)
        if form.flag("advanced", label="Advanced", description="Kind of pictures, threshold, folder"):
            if form.choice("kind", KINDS, "auto", label="The pictures are") != "mask":
                inputs.float(
                    "threshold",
                    default=form.last("threshold", 0.5),
                    min=0.0,
                    max=1.0,
                    label="Threshold of maps",
                    description="Value of a map, 0 to 1, from which on a pixel belongs to the mask",
                )
            add_editable(form)
            add_out_dir(form, field)

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the folder, the kind of its pictures, and the groups."""
        folder = read_text(ctx, "folder")
        if not folder:
            raise ConfigError("Choose the folder of predictions")
        return {
            "folder": folder,
            "group_field": read_group_field(ctx),
            "kind": read_text(ctx, "kind", "auto"),
            "threshold": read_number(ctx, "threshold", 0.5),
        }


class Export(JobOperator):
    """Exports masks."""

    NAME = "export"
    LABEL = "UMS-CoSOD: export masks"
    DESCRIPTION = "Write the masks of a field as COCO, YOLO, CVAT or PNG files"
    ACTION = "Export the masks of"
    ICON = "file_upload"
    CALL = "export_dataset"
    OUTPUT = ""

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask for field, format and folder; on demand also for categories and the other options."""
        form = Form(inputs, ctx, self.NAME)
        masks = mask_fields(ctx.dataset)
        field = form.proposals("field", names_as_words(masks), _default_field(ctx.dataset), label="Masks")
        if field not in masks:
            problem = f"There is no mask field {field!r}" if masks else "This data set has no masks yet"
            form.error("field_problem", problem)
        form.flag(
            "only_accepted",
            label="Only masks that a person accepted",
            description="Of a corrected mask the correction is taken",
        )
        kind = form.choice("format", FORMATS, "coco", label="Format")
        _add_target(form)
        if kind != "png" and form.flag("advanced", label="Advanced", description="Names of categories, regions"):
            form.text("category", "co-salient", label="Name of the category")
            words = {ONE_CATEGORY: "one category for all", **names_as_words(group_fields(ctx.dataset))}
            form.proposals("category_field", words, ONE_CATEGORY, label="Categories")
            if kind not in WITHOUT_REGIONS:
                form.flag(
                    "per_region",
                    label="One object for each region",
                    description="Off: one an image, however many pieces it has",
                )

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return field, format, folder, categories."""
        out_dir = read_text(ctx, "out_dir")
        if not out_dir:
            raise ConfigError("Choose a folder for the export")
        form = read_text(ctx, "format", "coco")
        category_field = read_text(ctx, "category_field", ONE_CATEGORY)
        return {
            "field": read_text(ctx, "field", _default_field(ctx.dataset)),
            "out_dir": out_dir,
            "format": form,
            "category": read_text(ctx, "category", "co-salient"),
            "category_field": None if category_field == ONE_CATEGORY else category_field,
            "only_accepted": read_flag(ctx, "only_accepted"),
            "per_region": read_flag(ctx, "per_region") and form not in WITHOUT_REGIONS,
        }

    def describe_done(self, ctx: Any) -> str:
        """Return the text that says where the files are."""
        return f"Masks are in {read_text(ctx, 'out_dir')}"


def _default_field(dataset: Any) -> str:
    """Return the preselected mask field: the one of `label`, else the first."""
    masks = mask_fields(dataset)
    return "cosal" if "cosal" in masks or not masks else masks[0]


def _add_target(form: Form) -> None:
    """Ask for the folder, and refuse one that an export cannot use."""
    from umscosod.integrations.fiftyone.runs.start import check_folder

    form.inputs.str("out_dir", label="Folder for the export", required=True, description="A new or an empty one")
    if folder := read_text(form.ctx, "out_dir"):
        form.refuse("out_dir_problem", check_folder, folder, "export")
    form.flag(
        "overwrite",
        label="Replace an earlier export there",
        description="Only files that an export wrote are ever replaced",
    )
