"""Background jobs: programs that run beside the kernel, and never outlive it unless they are meant to.

One job is one supervisor process and one folder of state. `manager().submit(spec)` starts one.
"""

from lazynb.jobs.job import Job
from lazynb.jobs.manager import Manager, manager

__all__ = ["Job", "Manager", "manager"]
