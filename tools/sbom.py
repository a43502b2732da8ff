"""The bill of materials of a wheel (PEP 770, CycloneDX): what is in it that others wrote.

This module knows the format. It does not know where in a wheel the file goes: commands.py does.
"""

from __future__ import annotations

import uuid
from typing import Any


def bill_of_materials(name: str, version: str, *, cython: str | None) -> dict[str, Any]:
    """Describe a wheel.

    Args:
        name: the name of the distribution.
        version: its version.
        cython: the version of the Cython that compiled the extension modules, or None for a pure
            wheel.
    """
    purl = f"pkg:pypi/{name}@{version}"
    components = [] if cython is None else [cython_helpers(cython)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Derived from the content, so that building a wheel again gives the same bytes.
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"{purl}#{components}").urn,
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": purl,
                "name": name,
                "version": version,
                "licenses": [{"license": {"id": "MIT"}}],
                "purl": purl,
            }
        },
        "components": components,
        "dependencies": [
            {"ref": purl, "dependsOn": [component["bom-ref"] for component in components]}
        ],
    }


def cython_helpers(version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/cython@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": "Cython",
        "version": version,
        "description": "Helper functions that Cython adds to the C code of extension modules.",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "purl": purl,
    }
