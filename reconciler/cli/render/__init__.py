"""How plans, progress and status look on a terminal; decides nothing."""
