"""The method with parts of it left out, over data sets and seeds: what each part is worth, and how sure that is."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umscosod.bench.results import BenchReport
from umscosod.bench.run import run_bench
from umscosod.bench.studies import STUDIES, Study, StudyName, Variant
from umscosod.config import PipelineConfig
from umscosod.config_io import DEFAULT_PRESET, load_config
from umscosod.errors import ConfigError
from umscosod.evaluation.report import Measure
from umscosod.progress import ProgressFn, ignore_progress


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """A measure over seeds.

    Attributes
    ----------
    values : tuple of float
        One a seed, in the order of the seeds; at least one.
    """

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Arithmetic mean.

        Examples
        --------
        >>> Spread(values=(0.5, 0.75, 1.0)).mean
        0.75
        """
        return math.fsum(self.values) / len(self.values)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation (n - 1 in the denominator); None for one seed.

        Examples
        --------
        >>> Spread(values=(0.5, 0.75, 1.0)).deviation
        0.25
        """
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationReport:
    """Outcome of an ablation.

    Attributes
    ----------
    bench : BenchReport
        Every variant with every seed as a row of a bench.
    config : PipelineConfig
        The settings given, which variants differ from.
    studies : tuple of Study
    n_seeds : int
        Seeds of a study that trains.
    """

    bench: BenchReport
    config: PipelineConfig
    studies: tuple[Study, ...]
    n_seeds: int

    def seeds(self, study: Study) -> tuple[int, ...]:
        """Seeds of the rows of a study."""
        return study.seeds(self.config.seed, self.n_seeds)

    def spread(
        self, study: Study, variant: Variant, measure: Measure, *, dataset: str | None = None, of_maps: bool = False
    ) -> Spread | None:
        """A measure of one row over seeds.

        Parameters
        ----------
        study, variant : Study, Variant
        measure : str
        dataset : str, optional
            By default the mean over data sets, each counting once, is taken before seeds are compared.
        of_maps : bool
            Of the soft maps, not of the final masks.

        Returns
        -------
        Spread or None
            None if any of its jobs failed: a partial run must not look good.
        """
        values = []
        for seed in self.seeds(study):
            name = study.entry_name(variant, seed)
            if dataset is None:
                value = self.bench.mean(name, measure, of_maps=of_maps)
            else:
                value = self.bench.cell(dataset, name).figure(measure, of_maps=of_maps)
            if value is None:
                return None
            values.append(value)
        return Spread(values=tuple(values))

    @property
    def exit_code(self) -> int:
        """0 all well, 1 if anything failed, 3 if nothing was scored."""
        return self.bench.exit_code


def run_ablation(
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    config: PipelineConfig | None = None,
    *,
    study: StudyName = "all",
    seeds: int = 3,
    overwrite: bool = False,
    progress: ProgressFn = ignore_progress,
) -> AblationReport:
    """Run every variant of one study or both on every data set, and score the masks.

    Parameters
    ----------
    data : sequence of path
        See `umscosod.bench.entries.find_datasets`.
    out : path
        ``OUT/<data set>/<variant>``, with ``-seedN`` where training depends on it, are output folders like those of
        `label_groups`, and are resumed like them; more seeds later add to those that are there.
    config : PipelineConfig, optional
        By default the ``fast`` preset. What a variant does not name stays as given here. Seeds are ``config.seed``
        and the numbers after it.
    study : {"modules", "labels", "all"}
    seeds : int
        At least 1; studies that train nothing have one anyway.
    overwrite : bool
        Replace results of other settings or images.
    progress : callable

    Returns
    -------
    AblationReport
        What fails is a cell with an error, as in `run_bench`.

    Raises
    ------
    ConfigError
        `study` or `seeds` is wrong, or what `run_bench` refuses.
    WeightsError
        The backbone's weights are missing.
    """
    if study not in STUDIES:
        raise ConfigError(f"unknown study {study!r}; choose among {', '.join(STUDIES)}")
    if seeds < 1:
        raise ConfigError(f"--seeds must be >= 1, got {seeds}")
    config = load_config(DEFAULT_PRESET) if config is None else config
    studies = STUDIES[study]
    entries = [entry for one in studies for entry in one.entries(config.seed, seeds)]
    bench = run_bench(data, entries, Path(out), config, overwrite=overwrite, progress=progress)
    return AblationReport(bench=bench, config=config, studies=studies, n_seeds=seeds)
