"""How many files a process may have open at once: every connection is one."""

import resource


def allow_many() -> None:
    """As many as the system lets the process have. What it begins with is often 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
