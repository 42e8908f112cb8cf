"""Where specs come from. A source gives a `Desired` or raises `SpecError`; it never writes."""
