"""Co-saliency measures as metric operators of FiftyOne's evaluation form."""

METRICS: tuple[type, ...] = ()
