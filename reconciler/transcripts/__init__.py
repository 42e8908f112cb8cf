"""Conversations of agents: the archive on the controller, copies to and from hosts, and their readable form."""
