// SPDX-License-Identifier: Apache-2.0
//
// Writes each dashboard as a file of the folder that is given: node main.mjs ../../deploy/grafana

import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { agents } from './agents.mjs';
import { external } from './external.mjs';
import { overview } from './overview.mjs';
import { pods } from './pods.mjs';
import { zones } from './zones.mjs';

const [folder] = process.argv.slice(2);
if (!folder) {
  console.error('usage: node main.mjs FOLDER');
  process.exit(2);
}
mkdirSync(folder, { recursive: true });
readdirSync(folder).filter((name) => name.endsWith('.json')).forEach((name) => rmSync(join(folder, name)));
for (const make of [overview, pods, external, zones, agents]) {
  const dashboard = make();
  writeFileSync(join(folder, `${dashboard.uid}.json`), `${JSON.stringify(dashboard, null, 2)}\n`);
}
