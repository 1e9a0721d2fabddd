"""What macOS knows of a file beside its content and its `stat`.

`acl`, `attributes`, `flags` and `moment` are pure and tested everywhere; `calls` asks macOS.
"""
