"""Who types: keys, certificates, the connection, and what this operator may name."""
