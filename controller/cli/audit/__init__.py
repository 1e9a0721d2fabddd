"""Audit logs, read and verified on the operator's side."""
