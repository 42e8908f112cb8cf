"""The demonstration: hosts without sshd, a scripted agent, and the story that `make demo` tells."""
