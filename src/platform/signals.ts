// SIGTERM and SIGINT as an AbortSignal; SIGUSR1 as nothing.
import { AppError } from "#base/errors.ts";

/** Aborted by the first SIGTERM or SIGINT; a second one ends the process as the default would. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals) => {
    process.off("SIGTERM", stop);
    process.off("SIGINT", stop);
    controller.abort(new AppError("STOPPED", `asked to stop by ${name}`));
  };
  process.on("SIGTERM", stop);
  process.on("SIGINT", stop);
  return controller.signal;
}

/** Without a listener of ours, Node answers SIGUSR1 by opening its debugger on a port: whoever reaches it runs code here. */
export function refuseDebugger(): void {
  process.on("SIGUSR1", () => undefined);
}
