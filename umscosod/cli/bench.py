"""``umscosod bench`` and ``ablate``: data sets with ground truth in, tables out. Heavy imports stay inside."""

from __future__ import annotations

from umscosod.cli import arguments_bench as args
from umscosod.cli.console import ProgressBar, say
from umscosod.config import PipelineConfig
from umscosod.errors import ConfigError


def bench(command: args.Bench, config: PipelineConfig) -> int:
    """Run, save and print a bench; 0 all well, 1 something failed, 3 nothing was scored."""
    from umscosod.bench.entries import parse_methods
    from umscosod.bench.run import run_bench
    from umscosod.bench.save import save_bench

    if command.shown < 0:
        raise ConfigError(f"--shown must be >= 0, got {command.shown}")
    methods = parse_methods(command.methods)
    with ProgressBar() as progress:
        report = run_bench(
            command.data,
            methods,
            command.out,
            config,
            as_is=command.as_is,
            overwrite=command.overwrite,
            progress=progress,
        )
    say(save_bench(report, shown=command.shown), end="")
    say(f"\ntables and pictures: {command.out / 'index.html'}")
    return report.exit_code


def ablate(command: args.Ablate, config: PipelineConfig) -> int:
    """Run, save and print an ablation; 0 all well, 1 something failed, 3 nothing was scored."""
    from umscosod.bench.ablation import run_ablation
    from umscosod.bench.ablation_table import save_ablation

    with ProgressBar() as progress:
        report = run_ablation(
            command.data,
            command.out,
            config,
            study=command.study,
            seeds=command.seeds,
            overwrite=command.overwrite,
            progress=progress,
        )
    say(save_ablation(report), end="")
    say(f"\ntables and figures: {command.out / 'ablation.md'}, {command.out / 'ablation.json'}")
    return report.exit_code
