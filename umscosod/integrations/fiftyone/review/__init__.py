"""Records a person's decisions on masks, lowest confidence first."""
