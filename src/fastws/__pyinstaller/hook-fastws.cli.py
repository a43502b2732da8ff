"""The page of `fastws echo`."""

from PyInstaller.utils.hooks import collect_data_files  # type: ignore[import-untyped]

datas = collect_data_files("fastws", includes=["demo/*.html", "demo/*.css", "demo/*.js"])
