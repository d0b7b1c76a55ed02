"""``umscosod bench``: methods on data sets with ground truth, as tables and a page. Heavy imports stay inside."""

from __future__ import annotations

from umscosod.cli import arguments as args
from umscosod.cli.console import ProgressBar
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
    print(save_bench(report, shown=command.shown), end="")
    print(f"\ntables and pictures: {command.out / 'index.html'}")
    return report.exit_code
