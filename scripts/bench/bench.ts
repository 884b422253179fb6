// `npm run bench -- NAME`: runs a bench of this folder. Every bench prints a table and, as its last line, one JSON object
// {"bench":NAME,"figures":{…}}.
import { main, UserError } from "#scripts/stages.ts";
import { agents } from "./agents.ts";
import { api } from "./api.ts";
import { datastore } from "./datastore.ts";
import { engine } from "./engine.ts";
import { footprint } from "./footprint.ts";
import { image } from "./image.ts";
import { log } from "./log.ts";
import { pods } from "./pods.ts";
import { scheduler } from "./scheduler.ts";
import { tunnel } from "./tunnel.ts";
import { tunnels } from "./tunnels.ts";

const benches: Readonly<Record<string, (args: readonly string[]) => Promise<Readonly<Record<string, number>>>>> = {
  agents,
  api,
  datastore,
  engine,
  footprint,
  image,
  log,
  pods,
  scheduler,
  tunnel,
  tunnels,
};

await main(async () => {
  const [name, ...args] = process.argv.slice(2);
  const bench = name === undefined ? undefined : benches[name];
  if (!name || !bench) throw new UserError(`usage: npm run bench -- NAME, one of ${Object.keys(benches).join(", ")}`);
  const figures = await bench(args);
  console.log(JSON.stringify({ bench: name, figures }));
});
