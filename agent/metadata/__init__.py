"""What systems know of a file beside its content and what `stat` tells."""
