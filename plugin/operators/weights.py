"""Defines the operator `get_weights`, which downloads the weights of a backbone."""

from typing import Any

from umscosod.errors import ConfigError, UmscosodError
from umscosod.integrations.fiftyone import offered_weights

from ..forms import Form, read_flag, read_text
from ..jobs import NextStep
from ..settings import weights_words
from .base import JobOperator

SETS = {
    "paper": "The pair of the paper: DINO ViT-B/8 and DINOv2 ViT-B/14 with registers",
    "small": "The small pair: DINO ViT-S/8 and DINOv2 ViT-S/14 with registers",
}


class GetWeights(JobOperator):
    """Downloads weights."""

    NAME = "get_weights"
    LABEL = "UMS-CoSOD: get weights"
    DESCRIPTION = "Download the weights of a vision transformer: better masks than without weights"
    ICON = "download"
    CALL = "get_weights"
    OUTPUT = ""
    DONE = "The features 'auto' and every form find the weights from now on"

    def add_inputs(self, inputs: Any, ctx: Any) -> None:
        """Ask which weights; show size and licence, and ask about a licence of its own kind."""
        form = Form(inputs, ctx, self.NAME)
        chosen = form.choice("names", {**SETS, **weights_words()}, "paper", label="Weights")
        try:
            missing = [offer for offer in offered_weights([chosen]) if offer.path is None]
        except UmscosodError as error:
            form.error("names_problem", str(error))
            return
        for offer in missing:
            form.notice(f"offer_{offer.name}", offer.describe())
        if not missing:
            form.notice("here", "These weights are on this machine: their hashes are checked, nothing is downloaded")
        if any(not offer.has_free_licence for offer in missing):
            form.flag("accepted", label="I have read the licence at that address and accept it")
            if not read_flag(ctx, "accepted"):
                form.error("licence_problem", "Accept the licence first")

    def own_options(self, ctx: Any) -> dict[str, Any]:
        """Return the names; several are separated by commas, for calls from Python."""
        names = tuple(name for each in read_text(ctx, "names", "paper").split(",") if (name := each.strip()))
        missing = [offer for offer in offered_weights(names) if offer.path is None]
        own = [offer for offer in missing if offer.licence and not offer.has_free_licence]
        if own and not read_flag(ctx, "accepted"):
            raise ConfigError(f"{own[0].describe()}; pass accepted=True when you have")
        return {"names": names}

    def work(self, view: Any, progress: Any, *, overwrite: bool = False, **options: Any) -> Any:
        """Call the library; the samples do not matter."""
        import umscosod.integrations.fiftyone as integration

        return integration.get_weights(**options, progress=progress)

    def next_steps(self, ctx: Any) -> tuple[NextStep, ...]:
        """Offer to label with them."""
        return (NextStep(label="Label the common object", operator="label", params={}),)
