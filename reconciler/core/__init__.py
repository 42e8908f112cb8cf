"""Pure decisions: no I/O, no clock, no asyncio. In a straight line from spec to report."""
