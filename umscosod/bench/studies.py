"""What an ablation compares: the rows of its two studies, as settings that differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from umscosod.bench.entries import Entry

StudyName = Literal["modules", "labels", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row of a study.

    Attributes
    ----------
    name : str
        Part of the name of its folder.
    title : str
        What it has, for the table.
    settings : mapping of str to object
        What differs from the settings given, by dotted name.
    train : bool
        Off: pseudo-labels are refined, no network is trained.
    network_of : str
        Variant of the same seed whose trained network it takes: the two differ after training alone.
    """

    name: str
    title: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: bool = True
    network_of: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """Variants that share a table.

    Attributes
    ----------
    name : str
    title : str
    variants : tuple of Variant
    is_trained : bool
        Rows are repeated with several seeds; else nothing is trained and one seed is enough.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    is_trained: bool

    def seeds(self, first: int, count: int) -> tuple[int, ...]:
        """Seeds of its rows: `first` and those after it, or `first` alone."""
        return tuple(range(first, first + count)) if self.is_trained else (first,)

    def entry_name(self, variant: Variant, seed: int) -> str:
        """Name of a row's folder; with the seed where there may be several."""
        return f"{variant.name}-seed{seed}" if self.is_trained else variant.name

    def entries(self, first_seed: int, count: int) -> tuple[Entry, ...]:
        """Everything to be run, seed by seed, so that what is cut short has whole tables of the first seeds."""
        return tuple(
            Entry(
                name=self.entry_name(one, seed),
                settings={**one.settings, "seed": seed},
                train=one.train,
                network_of=f"{one.network_of}-seed{seed}" if one.network_of else "",
            )
            for seed in self.seeds(first_seed, count)
            for one in self.variants
        )


def _modules(*on: str) -> dict[str, Any]:
    """Settings of a row of the paper's Table 3, every switch said, whatever the settings given; see `MODULES`."""
    switches = {f"network.{name}.enabled": name in on for name in ("afmm", "cfmm", "fram")}
    return {"method": "ums", "keep": "network", **switches, "refine.enabled": "rrbe" in on}


def _labels(**pseudo: Any) -> dict[str, Any]:
    """Settings of CM-SPLG alone with some of its own changed."""
    return {"method": "pseudo", **{f"pseudo.{name}": value for name, value in pseudo.items()}}


MODULES = Study(
    name="modules",
    title="Modules (the paper's Table 3)",
    variants=(
        Variant(name="none", title="none", settings=_modules()),
        Variant(name="afmm-cfmm", title="AFMM + CFMM", settings=_modules("afmm", "cfmm")),
        Variant(name="afmm-cfmm-fram", title="AFMM + CFMM + FRAM", settings=_modules("afmm", "cfmm", "fram")),
        Variant(
            name="afmm-cfmm-rrbe",
            title="AFMM + CFMM + RRBE",
            settings=_modules("afmm", "cfmm", "rrbe"),
            network_of="afmm-cfmm",
        ),
        Variant(
            name="all",
            title="all four",
            settings=_modules("afmm", "cfmm", "fram", "rrbe"),
            network_of="afmm-cfmm-fram",
        ),
        Variant(name="default", title="default", settings={"method": "ums"}),
    ),
    is_trained=True,
)
"""``keep=network`` in all rows but the last, or the pseudo-label's share in the final map would hide the modules.

RRBE comes after training, so a row with it takes the network of the row without it: the same masks in less time.
"""

_ALONE: Mapping[str, Any] = {"category_distance": 1e-6, "top_k": 1_000_000}  # every mask its own category; all compete
_EVERY_K = 1_000_000  # more categories than an image has

LABELS = Study(
    name="labels",
    title="Pseudo-labels",
    variants=(
        Variant(name="attention-only", title="attention only", settings={"method": "attention"}),
        Variant(name="masks-only", title="masks only", settings=_labels(select="masks")),
        Variant(
            name="cm-splg-no-categories",
            title="CM-SPLG, no categories",
            settings=_labels(select="co-saliency", **_ALONE),
        ),
        Variant(name="cm-splg-k1", title="CM-SPLG, k = 1", settings=_labels(select="co-saliency", top_k=1)),
        Variant(
            name="cm-splg-every-k", title="CM-SPLG, every k", settings=_labels(select="co-saliency", top_k=_EVERY_K)
        ),
        Variant(name="cm-splg", title="CM-SPLG", settings=_labels(select="co-saliency")),
        Variant(
            name="cm-splg-cleaned",
            title="CM-SPLG + group cleaning",
            settings=_labels(select="co-saliency", clean="prototype", probe="none") | {"method": "ums"},
            train=False,
        ),
        Variant(
            name="cm-splg-cleaned-probe",
            title="CM-SPLG + group cleaning + probe",
            settings=_labels(select="co-saliency", clean="prototype", probe="linear") | {"method": "ums"},
            train=False,
        ),
        Variant(name="default-untrained", title="default, not trained", settings={"method": "ums"}, train=False),
    ),
    is_trained=False,
)
"""All refined alike. ``clean=prototype`` where cleaning is claimed: ``auto`` leaves it out for ``embedded``."""

STUDIES: Mapping[StudyName, tuple[Study, ...]] = {
    "modules": (MODULES,),
    "labels": (LABELS,),
    "all": (LABELS, MODULES),  # minutes before hours
}
