"""Arguments of the sub-commands, one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from typing_extensions import Doc

from umscosod.cli.options import (
    DIR,
    INT,
    NAME,
    RARE,
    Command,
    Configured,
    EngineJob,
    Images,
    Job,
    Out,
    Overwrite,
    Switch,
    unset,
)
from umscosod.config import GroupingConfig, Method

Data = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="DATA"),
    Doc("Data sets, BENCH with BENCH/image/GROUP and BENCH/gt/GROUP, or a folder of several."),
]


_EXAMPLES = "Folder of examples: masks GROUP/NAME.png, NAME.not.png for what is not the object, NAME.json for points."
MaskValue = Annotated[
    str | None,
    unset("IDS"),
    Doc("Ids that are foreground in the ground truths: 15, 1,2 or 1-20, or a colour, '#ff0000'; 255 is then ignored."),
]


@dataclass(frozen=True, kw_only=True)
class Bench(Configured):
    """Run several methods on data sets with ground truth, one refinement for all; tables and a page of differences."""

    data: Data
    out: Out
    methods: Annotated[
        str,
        tyro.conf.arg(metavar="NAMES"),
        Doc(
            "Separated by commas: attention, tokencut, dvfdvd, scosparc, pseudo, ums; all; or name=FOLDER, the maps of "
            "another program."
        ),
    ] = "all"
    examples: Annotated[
        int | None,
        tyro.conf.arg(metavar="K", help_behavior_hint=""),
        Doc(
            "In place of the methods: a simulated curator who shows up to K true masks a group, points, what it is not."
        ),
    ] = None
    seeds: Annotated[int, Doc("Draws of the images that the curator shows.")] = 3
    as_is: Annotated[bool, Switch, Doc("Score the maps of name=FOLDER as they are, without our refinement.")] = False
    mask_value: MaskValue = None
    shown: Annotated[int, Doc("Pictures of each data set on the page, where methods disagree most.")] = 8
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class Ablate(Configured):
    """Leave parts of the method out, on data sets with ground truth and with several seeds: what each is worth."""

    data: Data
    out: Out
    study: Annotated[
        Literal["modules", "labels", "all"],
        Doc(
            "modules: AFMM, CFMM, FRAM and RRBE as in the paper's Table 3, trained with each seed; labels: what makes "
            "the pseudo-labels, nothing trained; or both."
        ),
    ] = "all"
    seeds: Annotated[int, Doc("Seeds of training: that of the settings and those after it.")] = 3
    mask_value: MaskValue = None
    overwrite: Overwrite = False


@dataclass(frozen=True, kw_only=True)
class Label(EngineJob):
    """Find and segment the common object of each group: features, pseudo-labels, training on these images, masks."""

    checkpoint: Annotated[Path | None, DIR, Doc("Label with this network instead of training one.")] = None
    train: Annotated[
        Literal["auto", "always", "never"],
        Doc("Train a network on the pseudo-labels: auto trains with a ViT and 100 images or more, and says so."),
    ] = "auto"
    examples: Annotated[Path | None, DIR, Doc(_EXAMPLES)] = None
    no_train: Annotated[bool, Switch, RARE, Doc("Short for --train never.")] = False
    method: Annotated[
        Method | None,
        NAME,
        Doc("ums, pseudo, or a method of others: attention, tokencut, dvfdvd, scosparc. Short for --config.method."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Steer(Command):
    """Correct the masks of a finished result by examples: masks, points or boxes of a few images. Takes seconds."""

    results: Annotated[
        Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT"), Doc("Output folder of 'umscosod label' or 'predict'.")
    ]
    examples: Annotated[Path | None, DIR, Doc(_EXAMPLES)] = None
    groups: Annotated[
        str | None,
        tyro.conf.arg(metavar="NAMES", help_behavior_hint=""),
        Doc("Groups to relabel, separated by commas; by default those with examples."),
    ] = None
    examples_for: Annotated[
        Literal["group", "all"], Doc("Whether examples serve their own group, or all groups: 'find this in these'.")
    ] = "group"
    mask_value: MaskValue = None
    undo: Annotated[bool, Switch, Doc("Take the last relabelling back, to the byte.")] = False


@dataclass(frozen=True, kw_only=True)
class Pseudo(Job):
    """Make pseudo-labels only, as PNG and JSON, to look at, replace, and train on."""


@dataclass(frozen=True, kw_only=True)
class Train(Job):
    """Train the network on pseudo-labels."""

    pseudo: Annotated[
        Path, tyro.conf.arg(metavar="DIR"), Doc("Folder of pseudo-labels, as 'umscosod pseudo' writes it (OUT/pseudo).")
    ]


@dataclass(frozen=True, kw_only=True)
class Predict(EngineJob):
    """Label with a network trained before: inference and refinement only."""

    checkpoint: Annotated[Path, tyro.conf.arg(metavar="DIR"), Doc("Checkpoint, as 'umscosod train' names it.")]


@dataclass(frozen=True, kw_only=True)
class Refine(Job):
    """Make masks anew from the soft maps of an earlier run, with other settings of refinement: no network runs."""

    maps: Annotated[
        Path,
        tyro.conf.arg(metavar="DIR"),
        Doc("Folder of 8-bit soft maps, laid out like the outputs; an OUT of 'umscosod label' stands for its maps."),
    ]


@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Score maps or masks against ground truth: MAE, F, E, S, IoU for the data set and each group."""

    pred: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="PRED"),
        Doc("Folder of maps or masks; an OUT of 'umscosod label' stands for its masks."),
    ]
    gt: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="GT"),
        Doc("Folder of ground truths with the same sub-folders and names, or a data set's root that holds one."),
    ]
    json: Annotated[bool, Switch, Doc("Print JSON instead of a table.")] = False
    definition: Annotated[
        Literal["cosod", "sod"],
        Doc("What the figures mean: eval-co-sod's arithmetic (that of the papers' tables) or PySODMetrics'."),
    ] = "cosod"
    mask_value: MaskValue = None
    worst: Annotated[int, Doc("List so many images after the table, lowest IoU first.")] = 0


@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write the masks of an output folder as COCO, YOLO, CVAT or a tree of PNG files."""

    results: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="OUT"),
        Doc("Output folder of 'umscosod label' or 'predict', or of 'pseudo', whose pseudo-labels are then taken."),
    ]
    to: Annotated[Path, tyro.conf.arg(metavar="FOLDER"), Doc("Folder for the export: a new or an empty one.")]
    format: Annotated[
        Literal["png", "coco", "yolo", "cvat"],
        Doc("png: a tree of masks; coco: instances.json; yolo: labels/ and data.yaml; cvat: 'CVAT for images 1.1'."),
    ]
    category: Annotated[str, tyro.conf.arg(metavar="NAME"), Doc("Name of the one category.")] = "co-salient"
    per_group: Annotated[bool, Switch, Doc("Each group is a category of its own.")] = False
    per_region: Annotated[
        bool, Switch, Doc("One annotation for each connected region, not one an image (yolo always does so).")
    ] = False
    images: Annotated[
        Path | None,
        unset("IMAGES"),
        Doc(
            "The folder or list that was labelled: images are named from there, linked for yolo, and checked for EXIF."
        ),
    ] = None
    overwrite: Annotated[
        bool, Switch, Doc("Replace the export that is in FOLDER; other files there are left alone.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class ExportModel(Configured):
    """Write a trained model as ONNX files, checked against torch, and how to run them; it needs umscosod[onnx]."""

    checkpoint: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="CHECKPOINT"),
        Doc("Checkpoint, as 'umscosod train' names it, or an OUT of 'umscosod label'."),
    ]
    out: Annotated[Path, tyro.conf.arg(metavar="DIR"), Doc("Folder for the files: a new or an empty one.")]
    onnx: Annotated[bool, Switch, Doc("Write ONNX, the only format there is; may be left out.")] = False
    int8: Annotated[bool, Switch, Doc("Write the backbones in int8 too, and measure what that costs.")] = False
    images: Annotated[
        Path | None,
        unset("IMAGES"),
        Doc("Pictures for the checks and that measure: one sub-folder a group; without it those of the demo."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class Pretrain(Command):
    """Train weights of the backbone 'starter' on photographs alone: no labels; the same line resumes after a kill."""

    photos: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="PHOTOS"),
        Doc("Folder of photographs, searched at any depth; a few thousand or more."),
    ]
    out: Annotated[
        Path,
        tyro.conf.arg(metavar="FILE"),
        Doc("Weight file to write, .safetensors; FILE.work beside it holds what a resumed run needs."),
    ]
    seed: Annotated[int, Doc("Seed of everything random.")] = 123
    device: Annotated[str, tyro.conf.arg(metavar="NAME"), Doc("auto, cpu, cuda, cuda:N or mps.")] = "auto"


@dataclass(frozen=True, kw_only=True)
class Discover(Configured):
    """Propose groups for an unsorted collection, as a .csv list to look through, correct, and give as IMAGES."""

    images: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="IMAGES"),
        Doc("Folder, searched at any depth; sub-folders mean nothing here."),
    ]
    out: Annotated[Path, tyro.conf.arg(metavar="FILE"), Doc("The list: columns path and group.")]
    n_groups: Annotated[int | None, INT, Doc("Number of groups; without it, chosen by how well they are apart.")] = None
    overwrite: Annotated[bool, Switch, Doc("Replace a list that is there.")] = False
    grouping: Annotated[GroupingConfig, RARE, Doc("How groups are found.")] = field(default_factory=GroupingConfig)


@dataclass(frozen=True, kw_only=True)
class FeaturesEstimate(Configured):
    """Say how much disk the features of a collection take, before they are encoded."""

    images: Images


@dataclass(frozen=True, kw_only=True)
class FeaturesEncode(Configured):
    """Encode a collection into the feature cache, so that later commands only read."""

    images: Images


@dataclass(frozen=True, kw_only=True)
class FeaturesPrune(Command):
    """Remove the features unused for longest until the rest fits."""

    max_gb: Annotated[float, Doc("Size the cache may keep, in GB (1e9 bytes); 0 empties it.")]
    cache_dir: Annotated[
        Path | None, DIR, Doc("Folder of the cache, where it is not UMSCOSOD_CACHE or the user's cache folder.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class WeightsList(Command):
    """List the backbones: size and licence of their weights, whether they are here, where they come from, hash."""

    json: Annotated[bool, Switch, Doc("Print JSON instead of a table, with whole hashes and paths.")] = False


@dataclass(frozen=True, kw_only=True)
class WeightsGet(Command):
    """Download weights, after a question; resumed, and checked against the hash that the hub states."""

    names: Annotated[
        tuple[str, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="NAME"),
        Doc(
            "paper (DINO ViT-B/8 and DINOv2 ViT-B/14, the paper's pair), small (their ViT-S siblings), a backbone of "
            "'umscosod weights list', hf-hub:OWNER/NAME or timm:NAME."
        ),
    ]
    yes: Annotated[bool, Switch, tyro.conf.arg(aliases=("-y",)), Doc("Do not ask.")] = False


@dataclass(frozen=True, kw_only=True)
class WeightsVerify(Command):
    """Read each weight file that is here: its hash, and whether it fits its architecture."""


@dataclass(frozen=True, kw_only=True)
class WeightsImport(Command):
    """Put a weight file where every command finds it; which backbone it is of is told by its tensors."""

    file: Annotated[
        Path,
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE"),
        Doc(".safetensors or .pth, in the layout of timm or of the authors."),
    ]
    name: Annotated[str | None, NAME, Doc("Backbone, where the tensors fit several.")] = None
    link: Annotated[bool, Switch, Doc("Link to the file in the place of a copy; it must stay where it is.")] = False


@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Check this machine: database, OpenCV, DenseCRF, weights, GPU, disk; each fault with its cure."""


@dataclass(frozen=True, kw_only=True)
class Presets(Command):
    """Show the presets and what they change; with a NAME, the whole resulting configuration as YAML."""

    name: Annotated[
        str | None, tyro.conf.Positional, NAME, Doc("Preset to print in full; save it as a file for --config-file.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class PluginInfo(Command):
    """Say where the FiftyOne plugin lies, where FiftyOne looks for plugins, and whether the one leads to the other."""


@dataclass(frozen=True, kw_only=True)
class PluginInstall(Command):
    """Link the FiftyOne plugin into FiftyOne's plugins folder, under the name fiftyone-umscosod."""

    overwrite: Annotated[bool, Switch, Doc("Replace a link that leads elsewhere. A real folder is never removed.")] = (
        False
    )
