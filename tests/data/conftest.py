"""The scripts in this folder need torch and llama-cpp-python: they are run by hand, not collected."""

collect_ignore_glob = ["*.py"]
