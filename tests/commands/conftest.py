"""An object store for commands that read data sets from one."""

from tests.s3 import s3, s3_server  # noqa: F401 (fixtures)
