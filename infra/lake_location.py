"""Where the lake is: a local folder, or a prefix of an object store.

A local folder is a `Path`; a prefix is a `StoreFolder`, which is joined and printed like one. What
else the code asks of either is in `infra/lake_files.py`. On a store Spark goes through Hadoop's
file systems, whatever does not need a JVM through `object_store` (in `deltalake` and `obstore`).

Tested against a real S3-compatible server. `gs://` and `abfss://` take the same way through the
same libraries, and are not tested.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.errors import UserError

# What is taken from the environment; names are those of object_store, of each cloud's own tools.
_VARIABLES: dict[str, tuple[str, ...]] = {
    "s3a": (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_REGION", "AWS_ENDPOINT_URL", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT"),
    "abfss": (
        *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN"),
        *("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"),
        "AZURE_FEDERATED_TOKEN_FILE",
    ),
}
_OTHER_NAMES = {"AWS_ENDPOINT_URL": "AWS_ENDPOINT_URL_S3", "AWS_REGION": "AWS_DEFAULT_REGION"}
_DEFAULT_REGION = "us-east-1"
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
# Hadoop's paths and object_store's encode other characters differently.
_PLAIN = re.compile(r"[A-Za-z0-9._-]+(@[A-Za-z0-9.-]+)?(/[A-Za-z0-9._=-]+)*")


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """Name a prefix of an object store.

    Attributes:
        url: As Spark is told it, without a slash at the end.
        options: How object_store reaches it; may hold secrets, so it is never printed.
    """

    url: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False, compare=False)

    def __truediv__(self, name: str) -> "StoreFolder":
        return replace(self, url=f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        """Return the last part."""
        return self.url.rpartition("/")[2]

    @property
    def scheme(self) -> str:
        """Return "s3a", "gs" or "abfss"."""
        return self.url.partition("://")[0]

    @property
    def bucket(self) -> str:
        """Return the bucket; on Azure the container and its account."""
        return self.url.split("/")[2]


Folder = Path | StoreFolder


def lake_folder(text: str, environ: Mapping[str, str]) -> Folder:
    """Return where a setting puts the lake.

    Args:
        text: `s3a://bucket/prefix`, `gs://...`, `abfss://container@account.../prefix`, or a folder.
        environ: The variables that say how a store is reached.

    Raises:
        UserError: If it is neither.
    """
    if not is_remote_path(text):
        return Path(os.path.abspath(Path(text).expanduser()))  # noqa: PTH100 - links are kept
    scheme, _, rest = text.rstrip("/").partition("://")
    is_known = scheme in _VARIABLES and _PLAIN.fullmatch(rest)
    if not is_known or ("@" in rest) != (scheme == "abfss"):
        # What follows the scheme is not repeated: some put a password there.
        raise UserError(
            f"RANKLAKE_LAKE={text.partition(':')[0]}:... is not a place that a lake can be at",
            remedy="give s3a://bucket/prefix, gs://bucket/prefix, abfss://container@account/prefix "
            "(letters, digits, '.', '_', '-' and '=') or a folder; credentials are variables",
        )
    return StoreFolder(f"{scheme}://{rest}", tuple(_options(scheme, environ).items()))


def is_remote_path(text: str) -> bool:
    """Return whether a text names a place by a scheme, as `s3a://bucket` does."""
    return _REMOTE.match(text) is not None


def _options(scheme: str, environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in _VARIABLES[scheme]:
        names = (name, _OTHER_NAMES[name]) if name in _OTHER_NAMES else (name,)
        values = [environ[each].strip() for each in names if each in environ]
        if value := next(filter(None, values), ""):
            found[name.lower()] = value
    if scheme == "s3a":
        found.setdefault("aws_region", _DEFAULT_REGION)
        found["aws_conditional_put"] = "etag"
        if "aws_endpoint_url" in found:
            found["aws_virtual_hosted_style_request"] = "false"
    return found
