// run.mjs TEST.mjs - runs one test; skips it (status 77) when the npm packages are not installed.
import { existsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const SKIPPED = 77;

if (Number(process.versions.node.split('.')[0]) < 18) {
  console.error(`Node ${process.versions.node} is too old for the packages of tests/node`);
  process.exit(process.env.CI === 'true' ? 1 : SKIPPED);
}
if (!existsSync(new URL('node_modules', import.meta.url))) {
  console.error('tests/node/node_modules is missing; "tools/setup.sh test" installs it');
  process.exit(process.env.CI === 'true' ? 1 : SKIPPED);
}
await import(pathToFileURL(process.argv[2]));
