"""Backbones: what one is, those there are by name, and pairs of them."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from umscosod.config import FeaturesConfig
from umscosod.device import FLOAT32, choose_precision, precision_of, resolve_device
from umscosod.errors import ConfigError, UmscosodError, WeightsError, one_line
from umscosod.features.records import training_note
from umscosod.features.specs import APACHE, PAIRS, PREFIXES, VIT_SPECS, VitSpec, is_vit_name, vit_id, vit_spec
from umscosod.features.store import check_regular_file, expand_user, find_weights, hash_weights, obtain_weights
from umscosod.types import ByteArray, EncodedImage

if TYPE_CHECKING:
    import torch

    from umscosod.features.vit import LoadedVit

logger = logging.getLogger(__name__)


class Backbone(Protocol):
    """One pass over an image gives tokens, keys and self-attention (spec A0).

    Attributes
    ----------
    id : str
        Name, weights hash, size, layer, facet and code version: part of every cache key. Equal ids mean equal tokens
        but for rounding, see `umscosod.features.specs.exact_id`.
    name : str
        What the user typed, for example ``"dino_vits8"``.
    weights_sha256 : str
        Hash of the weight file, or ``""`` where there are no weights.
    dim : int
        Token width D.
    grid_hw : (int, int)
        Patches down and across.
    batch_size : int
        Images that one pass takes in; 1 where they go one by one anyhow. A collection brings that many at a time.
    needs_whitening : bool
        The collection's own statistics must be applied to the tokens before use.
    is_centred : bool
        Tokens of all patches have nothing in common, so that their cosines tell. Whitened tokens are centred anyhow.
    has_attention : bool
        `EncodedImage.attn_AP` is an attention that finds objects. False: it is a first guess, which the group sharpens
        before use and gets as one more channel of its tokens and keys; of two rows the second is the probability map
        of a network, which takes part in the sharpening.
    is_label_free : bool
        No person's labels went into it; if some did, reports say so.

    Notes
    -----
    Two more attributes are read where a backbone has them: `precision`, see `umscosod.device.precision_of`; and
    `at_once`: in how many threads `encode` may run at the same time, 1 where it is missing.
    """

    id: str
    name: str
    weights_sha256: str
    dim: int
    grid_hw: tuple[int, int]
    batch_size: int
    needs_whitening: bool
    is_centred: bool
    has_attention: bool
    is_label_free: bool

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images.

        Parameters
        ----------
        images : sequence of ndarray, uint8, (H, W, 3)
            Decoded and upright, at their own sizes.

        Returns
        -------
        list of EncodedImage
            In the order given. An image's encoding must not depend on the others: they may have come from a cache.
        """
        ...


class BlankBackbone:
    """One empty patch an image; see `umscosod.features.backbone.Backbone`.

    For work that needs a collection's pictures and sizes only, such as thresholding stored maps again.
    """

    id = "none"
    name = "none"
    weights_sha256 = ""
    dim = 1
    grid_hw = (1, 1)
    batch_size = 1
    needs_whitening = False
    is_centred = False
    has_attention = True  # nothing to sharpen
    is_label_free = True

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Give every image one patch of zeros."""
        blank_11 = np.zeros((1, 1), np.float16)
        return [
            EncodedImage(tokens_PD=blank_11, keys_PK=blank_11, attn_AP=blank_11, grid_hw=self.grid_hw) for _ in images
        ]


def blank_pair() -> BackbonePair:
    """Two blank streams, and a note that says so."""
    note = "backbones: none, as no setting looks at features"
    return BackbonePair(first=BlankBackbone(), second=BlankBackbone(), notes=(note,))


class LateBackbone:
    """A backbone that is built in the process that first encodes with it; until then it is what it says of itself.

    Light to send to another process, which may never encode.

    Parameters
    ----------
    built : Backbone
        The one that it stands for.
    stream : int
        0: the first of its pair, 1: the second.
    config : FeaturesConfig
        The pair was built by it.
    device : str
        On which it is built there.
    is_alike : bool
        That is a device of the same kind as here, so that the arithmetic must be the same.
    """

    def __init__(self, built: Backbone, stream: int, config: FeaturesConfig, device: str, *, is_alike: bool) -> None:
        vars(self).update({name: getattr(built, name) for name in Backbone.__annotations__})
        self.precision, self._is_alike = precision_of(built), is_alike
        self._stream, self._config, self._device = stream, config, device

    def encode(self, images: Sequence[ByteArray]) -> list[EncodedImage]:
        """Encode RGB images; see `umscosod.features.backbone.Backbone.encode`.

        Raises
        ------
        WeightsError
            The weights here are others.
        ConfigError
            The arithmetic here is another.
        """
        backbone = _build_once(self._config, self._device).both[self._stream]
        mine = vars(self)["id"]
        if backbone.id != mine:
            raise WeightsError(
                f"the backbone here is {backbone.id}, the job's is {mine}; use the same weights on all machines"
            )
        if self._is_alike and (precision := precision_of(backbone)) != self.precision:
            raise ConfigError(
                f"{backbone.name} computes in {precision} here, in {self.precision} where the job was started; use "
                "machines of one kind, or features.precision=float32"
            )
        return backbone.encode(images)


@lru_cache(maxsize=1)
def _build_once(config: FeaturesConfig, device: str) -> BackbonePair:
    return build_backbones(config, resolve_device(device))


def late_pair(pair: BackbonePair, config: FeaturesConfig, device: str, here: str) -> BackbonePair:
    """Give a pair that `build_backbones` made by `config`, on the device `here`, in a form to be sent to others."""
    is_alike = device.partition(":")[0] == here.partition(":")[0]
    late: list[Any] = [LateBackbone(one, at, config, device, is_alike=is_alike) for at, one in enumerate(pair.both)]
    return BackbonePair(first=late[0], second=late[1], notes=pair.notes)


AUTO = "auto"
EMBEDDED = "embedded"
STARTER = "starter"
ENTRY_POINTS = "umscosod.backbones"
PAPER_FIRST = VIT_SPECS["dino_vitb8"]
# The first stream has the paper's grid whatever its patch: one cell per patch of DINO ViT-B/8, 28x28 at 224 px.
_CELL_PX = PAPER_FIRST.patch_px
_SECOND_WEIGHTS = "--config.features.second-weights"


@dataclass(frozen=True, kw_only=True, slots=True)
class BackbonePair:
    """The two streams.

    Attributes
    ----------
    first : Backbone
        Sets the grid, the attention and the region features.
    second : Backbone
        Its tokens are resized to the first one's grid.
    notes : tuple of str
        What was chosen and why, for the report and its reader.
    """

    first: Backbone
    second: Backbone
    notes: tuple[str, ...] = ()

    @property
    def both(self) -> tuple[Backbone, Backbone]:
        """First and second."""
        return self.first, self.second


def is_weight_free(pair: BackbonePair) -> bool:
    """Whether both streams are `embedded`: plain numpy, which fills one core, and whose bits no thread changes."""
    return all(backbone.name == EMBEDDED for backbone in pair.both)


def pair_backbones(first: Backbone, second: Backbone) -> BackbonePair:
    """Pair backbones of one's own.

    Raises
    ------
    ConfigError
        One lacks something that `umscosod.features.backbone.Backbone` names.
    """
    for backbone in (first, second):
        wanted = (*Backbone.__annotations__, "encode")
        if missing := [name for name in wanted if not hasattr(backbone, name)]:
            raise ConfigError(
                f"{type(backbone).__name__} is no backbone: it has no {', '.join(missing)}; see "
                "umscosod.features.backbone.Backbone"
            )
    return BackbonePair(first=first, second=second, notes=tuple(_notes(first, second)))


def installed_backbones() -> dict[str, EntryPoint]:
    """Backbones of other packages by name: their entry points of the group ``umscosod.backbones``.

    Each leads to a callable that takes ``config`` (`FeaturesConfig`), ``cell_px`` (`int`; of a square picture of
    ``config.size_px``) and ``device`` (`torch.device`) by name and gives a `Backbone`.
    """
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def backbone_names() -> tuple[str, ...]:
    """Every name that a configuration may give, besides those that begin with one of `PREFIXES`."""
    own = (AUTO, EMBEDDED, STARTER, *VIT_SPECS)
    return (*own, *sorted(installed_backbones().keys() - set(own)))


def build_backbones(config: FeaturesConfig, device: torch.device) -> BackbonePair:
    """Choose, load and pair the backbones.

    Parameters
    ----------
    config : FeaturesConfig
        ``backbone="auto"`` takes what `choose_auto` finds on this machine; a weight file given with it is recognised
        by its shapes and used. A ViT without ``second_backbone`` is paired with its partner where those weights are
        at hand, else with a second, coarser granularity of itself that shares the loaded module.
    device : torch.device
        For the ViTs.

    Returns
    -------
    BackbonePair

    Raises
    ------
    ConfigError
        A name is unknown.
    WeightsError
        Weights that were asked for by name or by file are missing or do not fit.
    """
    builder = _Builder(config, device)
    first, second = builder.plan()
    builder.tell_of_unused_files((first, second))
    pair = pair_backbones(builder.build(first), builder.build(second))
    licences = {name: builder.spec(name).licence for name in (first.name, second.name) if is_vit_name(name)}
    for note in (
        *pair.notes,
        *(
            f"{name}: weights under the licence {own!r}"
            for name, own in licences.items()
            if own.casefold() != APACHE.casefold()
        ),
    ):
        builder.note(note)
    return replace(pair, notes=tuple(builder.notes))


def choose_auto(second: str = "") -> str:
    """Choose the first stream of ``auto`` by the weights on this machine; no file is opened.

    Parameters
    ----------
    second : str
        Second stream that the user asked for; empty: none.

    Returns
    -------
    str
        The first of: the paper's pair, its small siblings, any other ViT that was trained without labels, in the order
        of the table, and ``embedded``, which needs no weights.
    """
    for first, partner in PAIRS:
        if all(find_weights(VIT_SPECS[name]) is not None for name in ((first,) if second else (first, partner))):
            return first
    others = (name for name, spec in VIT_SPECS.items() if spec.is_label_free and find_weights(spec) is not None)
    return next(others, EMBEDDED)


def check_backbones(config: FeaturesConfig, device: torch.device) -> None:
    """Refuse names and weight files that `build_backbones` would refuse, without building anything.

    Raises
    ------
    ConfigError
        A name is unknown.
    WeightsError
        Weights that were asked for by name or by file are missing.
    """
    builder = _Builder(config, device, is_quiet=True)
    streams = builder.plan()
    builder.tell_of_unused_files(streams)
    for stream in streams:
        if is_vit_name(stream.name):
            builder.obtain(stream)


def identify_backbones(config: FeaturesConfig, device: torch.device) -> tuple[tuple[str, str], tuple[str, str]]:
    """Name and id of the two that `build_backbones` would build; no model is built.

    Raises
    ------
    ConfigError, WeightsError
        As `build_backbones`.
    """
    builder = _Builder(config, device, is_quiet=True)
    first, second = builder.plan()
    return (first.name, builder.identify(first)), (second.name, builder.identify(second))


class _Stream(NamedTuple):
    """What a stream is built from; the weight file and the option that gives it are a ViT's."""

    name: str
    cell_px: int
    size_px: int
    file: str
    option: str


@dataclass
class _Builder:
    """One call of `build_backbones`: what is loaded so far, and what there is to say."""

    config: FeaturesConfig
    device: torch.device
    is_quiet: bool = False
    notes: list[str] = field(default_factory=list)
    loaded: dict[tuple[str, Path], LoadedVit] = field(default_factory=dict)
    specs: dict[str, VitSpec] = field(default_factory=dict)

    def plan(self) -> tuple[_Stream, _Stream]:
        first, second = self._names()
        size_px = self.config.size_px
        patch_px = self.spec(first).patch_px if is_vit_name(first) else _CELL_PX
        first_px = patch_px * (PAPER_FIRST.round_px(size_px) // _CELL_PX)  # the paper's grid; embedded has it anyhow
        # the same ViT at its full size would be the first stream over again
        is_again = second == first and is_vit_name(first) and patch_px <= _CELL_PX
        weights = (self.config.weights, "--weights")
        shares_file = second == first and not self.config.second_weights
        second_weights = weights if shares_file else (self.config.second_weights, _SECOND_WEIGHTS)
        return (
            _Stream(first, _CELL_PX, first_px, *weights),
            _Stream(second, 2 * _CELL_PX, size_px // 2 if is_again else size_px, *second_weights),
        )

    def _names(self) -> tuple[str, str]:
        """Resolve ``auto`` and an empty second name."""
        first, second = self.config.backbone, self.config.second_backbone
        _check_name("backbone", first)
        _check_name("second_backbone", second)
        if second == AUTO:
            second = ""
        if not second and self.config.second_weights:
            second = _recognised(self.config.second_weights, _SECOND_WEIGHTS).name
        if first == AUTO:
            first = self._resolve_auto(second)
        if not second:
            second = self._default_second(first)
        return first, second

    def _resolve_auto(self, second: str) -> str:
        if self.config.weights:
            spec = _recognised(self.config.weights, "--weights")
            # shapes tell the architecture only: a fine-tuned file must not pass for the original in a report
            self.note(f"auto: {self.config.weights} has the architecture of {spec.name}; its training is not known")
            return spec.name
        found = choose_auto(second)
        if found == EMBEDDED:
            self.note(
                f"no ViT weights here: using the weight-free '{EMBEDDED}' features; for better masks run: "
                "umscosod weights get paper",
                logging.WARNING,
            )
        return found

    def _default_second(self, first: str) -> str:
        partner = self.spec(first).partner if is_vit_name(first) else ""
        if partner and find_weights(VIT_SPECS[partner]) is not None:
            return partner
        if partner:
            self.note(f"second stream: {first} again, coarser; its partner: umscosod weights get {partner}")
        return first

    def spec(self, name: str) -> VitSpec:
        if name not in self.specs:
            self.specs[name] = vit_spec(name)
        return self.specs[name]

    def tell_of_unused_files(self, streams: tuple[_Stream, _Stream]) -> None:
        """A file that is given in vain is said; one that is not there was never meant so."""
        for file, option in dict.fromkeys((one.file, one.option) for one in streams if one.name == EMBEDDED):
            if file:
                check_regular_file(expand_user(file), cure=f"check {option}")
                self.note(f"{option} {file} is not used: {EMBEDDED} has no weights", logging.WARNING)

    def identify(self, stream: _Stream) -> str:
        if stream.name == STARTER:
            return self.build(stream).id
        if not is_vit_name(stream.name):
            return _embedded(self.config, stream.cell_px).id
        sha256 = hash_weights(self.obtain(stream))
        return vit_id(self.spec(stream.name), sha256, stream.size_px, debias=self.config.debias)

    def build(self, stream: _Stream) -> Backbone:
        if stream.name == EMBEDDED:
            return _embedded(self.config, stream.cell_px)
        if stream.name == STARTER:
            return _starter(self.config, stream, self.device)
        if not is_vit_name(stream.name):
            return _installed(stream.name, self.config, stream.cell_px, self.device)
        from umscosod.features.vit import VitBackbone, load_vit

        key = stream.name, self.obtain(stream)
        if key not in self.loaded:
            self.loaded[key] = load_vit(self.spec(stream.name), key[1], self.device)
            if note := training_note(key[1]):
                self.note(note)
        return VitBackbone(
            self.loaded[key],
            size_px=stream.size_px,
            device=self.device,
            batch_size=self.config.batch_size,
            debias=self.config.debias,
            precision=choose_precision(self.config.precision, self.device),
        )

    def obtain(self, stream: _Stream) -> Path:
        return obtain_weights(self.spec(stream.name), stream.file, option=stream.option)

    def note(self, text: str, level: int = logging.INFO) -> None:
        if not self.is_quiet:
            logger.log(level, text)
        self.notes.append(text)


def _embedded(config: FeaturesConfig, cell_px: int) -> Backbone:
    from umscosod.features.embedded import EmbeddedBackbone

    return EmbeddedBackbone(config.size_px, cell_px)


def _starter(config: FeaturesConfig, stream: _Stream, device: torch.device) -> Backbone:
    from umscosod.features.starter import SHIPPED, StarterBackbone

    file = expand_user(stream.file) if stream.file else SHIPPED
    check_regular_file(file, cure=f"check {stream.option}" if stream.file else "install umscosod again")
    return StarterBackbone(file, config.size_px, stream.cell_px, device)


def _installed(name: str, config: FeaturesConfig, cell_px: int, device: torch.device) -> Backbone:
    point = installed_backbones()[name]
    try:
        backbone: Backbone = point.load()(config=config, cell_px=cell_px, device=device)
    except UmscosodError:
        raise
    except Exception as error:  # code of somebody else
        raise ConfigError(
            f"backbone {name!r} ({point.value}) cannot be built: {type(error).__name__}: {one_line(str(error))}; "
            "mend or remove the package that brings it"
        ) from error
    return backbone


def _notes(first: Backbone, second: Backbone) -> list[str]:
    notes = [f"backbones: {_describe(first)} and {_describe(second)}"]
    for backbone in {first.name: first, second.name: second}.values():
        if not backbone.is_label_free:
            why = "was trained with labels or texts of people"
            if backbone.name.startswith(PREFIXES):
                why = "is not in the table and its training is not known"
            notes.append(f"{backbone.name} {why}: these results are not annotation-free")
    return notes


def _check_name(option: str, name: str) -> None:
    names = backbone_names()
    if name in names or name.startswith(PREFIXES) or (option == "second_backbone" and not name):
        return
    near = difflib.get_close_matches(name.lower(), names, n=1)
    suggestion = f", did you mean {near[0]!r}?" if near else "."
    raise ConfigError(
        f"features.{option}: unknown backbone {name!r}{suggestion} Known names: {', '.join(names)}, "
        "timm:NAME, hf-hub:OWNER/NAME, local-dir:FOLDER"
    )


def _recognised(file: str, option: str) -> VitSpec:
    from umscosod.features.weights import recognise

    path = expand_user(file)
    check_regular_file(path, cure=f"check {option}")
    spec = recognise(path)
    if spec is None:
        raise WeightsError(f"weights {path} ({option}) fit none of {', '.join(VIT_SPECS)}; name a backbone to see why")
    return spec


def _describe(backbone: Backbone) -> str:
    weights = f", weights {backbone.weights_sha256[:12]}" if backbone.weights_sha256 else ""
    precision = precision_of(backbone)
    arithmetic = "" if precision == FLOAT32 else f", {precision}"
    return f"{backbone.name} {backbone.grid_hw[0]}x{backbone.grid_hw[1]}{weights}{arithmetic}"
