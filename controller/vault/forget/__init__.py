"""Which restore points stay, and letting go of the others."""
