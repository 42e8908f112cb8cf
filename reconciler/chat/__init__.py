"""Group chats: a log that is the only state, what follows from it, and the process that carries it out.

entries.py, routing.py, turns.py and prompts.py are pure: from the log to what is owed next, and what is said to whom.
log.py keeps the log, jobs.py runs headless turns on hosts, runner.py is the process, which does nothing of its own.
"""
