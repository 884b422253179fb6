// `mote kine` as a program of its own, with an eighth of mote's code: what is not loaded is not resident, some 14 MB. The
// launcher of build/dist starts it; `kine` of the whole program (mote.ts) is the same. Arguments: `kine`, then its flags.
import { helpText } from "#cli/flags.ts";
import { kineFlags, kineSummary } from "#cli/kine-flags.ts";
import { refuseDebugger } from "#platform/signals.ts";
import { exitCodeOf } from "./exit-code.ts";
import { runKine } from "./kine.ts";

const args = process.argv.slice(3);
refuseDebugger();
if (args.includes("--help") || args.includes("-h")) {
  console.log(`mote kine: ${kineSummary}\n\n${helpText(kineFlags)}`);
  process.exit(0);
}
process.exit(await exitCodeOf(() => runKine(args, process.env)));
