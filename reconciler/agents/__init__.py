"""Agent CLIs, one pure file each; the file's name with `_` as `-` is the name in the specs."""
