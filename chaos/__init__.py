"""Random fleets, specs and faults on real hosts; afterwards the safety contract is checked, invariant by invariant."""
