// Runs pytest in Pyodide on Node. Pyodide is CPython compiled to WebAssembly, for browsers.
//
//     node tools/pyodide.mjs PYODIDE SITE CHECKOUT [PYTEST OPTION]...
//
// PYODIDE is the folder of npm's package, SITE a folder of installed packages, and CHECKOUT the
// folder of pyproject.toml and tests/. Python sees no other files of this machine. The exit status
// is pytest's. tools/cross.py knows which tests run, and why.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, site, checkout, ...options] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(resolve(folder, "pyodide.mjs")));

// If pytest does not end normally, that is a failure. (Pyodide sets its own exit status.)
let status = 1;
process.on("exit", () => {
  process.exitCode = status;
});
try {
  const python = await loadPyodide({
    env: { FASTWS_IMPL: "py", HOME: "/home/pyodide", PYTHONDEVMODE: "1" },
  });
  python.mountNodeFS("/site", resolve(site));
  python.mountNodeFS("/checkout/tests", resolve(checkout, "tests"));
  const settings = readFileSync(resolve(checkout, "pyproject.toml"));
  python.FS.writeFile("/checkout/pyproject.toml", settings);
  python.globals.set("options", python.toPy(options));
  status = python.runPython(`
import sys, zlib
sys.dont_write_bytecode = True
sys.path.insert(0, "/site")
import fastws, pytest
for name in fastws.__all__:
    getattr(fastws, name)
print(
    f"Python {sys.version.split()[0]} for {sys.platform}, {sys.maxsize.bit_length() + 1} bits,",
    f"zlib {zlib.ZLIB_RUNTIME_VERSION}, dev mode {sys.flags.dev_mode};",
    f"fastws {fastws.__version__} in {fastws.__file__}, implementation {fastws.implementation}",
)
int(pytest.main(["-c", "/checkout/pyproject.toml", "--rootdir=/checkout", *options]))
`);
} catch (error) {
  console.error(error.message);
}
