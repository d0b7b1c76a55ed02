"""Commands that take long: they measure on data sets with ground truth, or train starter weights.

Heavy imports stay inside the functions.
"""

from __future__ import annotations

from umscosod.cli import arguments as args
from umscosod.cli.console import ProgressBar, say
from umscosod.config import PipelineConfig
from umscosod.errors import ConfigError, count_of


def bench(command: args.Bench, config: PipelineConfig) -> int:
    """Run, save and print a bench; 0 all well, 1 something failed, 3 nothing was scored."""
    from umscosod.bench.entries import parse_methods
    from umscosod.bench.run import run_bench, save_bench

    if command.shown < 0:
        raise ConfigError(f"--shown must be >= 0, got {command.shown}")
    if command.examples is not None:
        return _bench_examples(command, config, command.examples)
    methods = parse_methods(command.methods)
    with ProgressBar() as progress:
        report = run_bench(
            command.data,
            methods,
            command.out,
            config,
            as_is=command.as_is,
            overwrite=command.overwrite,
            mask_value=command.mask_value,
            progress=progress,
        )
    say(save_bench(report, shown=command.shown), end="")
    say(f"\ntables and pictures: {command.out / 'index.html'}")
    return report.exit_code


def _bench_examples(command: args.Bench, config: PipelineConfig, most: int) -> int:
    from umscosod.bench.curator import run_curator, save_curator

    if most < 1 or command.seeds < 1:
        raise ConfigError(f"--examples and --seeds must be >= 1, got {most} and {command.seeds}")
    with ProgressBar() as progress:
        report = run_curator(command.data, command.out, config, most=most, seeds=command.seeds, progress=progress)
    say(save_curator(report), end="")
    return 0


def ablate(command: args.Ablate, config: PipelineConfig) -> int:
    """Run, save and print an ablation; 0 all well, 1 something failed, 3 nothing was scored."""
    from umscosod.bench.ablation import run_ablation, save_ablation

    with ProgressBar() as progress:
        report = run_ablation(
            command.data,
            command.out,
            config,
            study=command.study,
            seeds=command.seeds,
            overwrite=command.overwrite,
            mask_value=command.mask_value,
            progress=progress,
        )
    say(save_ablation(report), end="")
    say(f"\ntables and figures: {command.out / 'ablation.md'}, {command.out / 'ablation.json'}")
    return report.bench.exit_code


def pretrain(command: args.Pretrain, _: PipelineConfig) -> int:
    """Train starter weights and say what file holds them."""
    from umscosod.pretrain import pretrain as make_weights

    if command.out.suffix.lower() != ".safetensors":
        raise ConfigError(f"--out {command.out} must end in .safetensors, by which weight files are known")
    with ProgressBar() as progress:
        report = make_weights(command.photos, command.out, seed=command.seed, device=command.device, progress=progress)
    say(f"{report.file}: learnt from {count_of(report.photos, 'photograph')}, sha256 {report.sha256}")
    say(f"use it with: --backbone starter --weights {report.file}")
    return 0
