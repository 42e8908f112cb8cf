"""A fleet of simulated machines in virtual time: what `run` does when a host dies. Touches no network, no machine."""
