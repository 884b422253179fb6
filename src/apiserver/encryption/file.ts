// A configuration of the user's (`encryption-provider-config`), looked at again every minute where that is asked for. One
// that is wrong changes nothing and is told of once. Upstream counterpart: encryptionconfig/controller.
import { createHash } from "node:crypto";
import { type Clock, pause } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { untilAborted } from "#base/service.ts";
import { readFileIfExists } from "#platform/files.ts";
import { maxConfigurationBytes, parseEncryptionConfiguration, refused } from "./configuration.ts";
import type { EncryptionSlots } from "./slots.ts";

export interface FileOptions {
  readonly path: string;
  readonly reload: boolean;
  /** Names this server in metrics. */
  readonly serverId: string;
}

export interface FileDeps {
  readonly slots: EncryptionSlots;
  readonly clock: Clock;
  readonly log: Logger;
  readonly metrics: Metrics;
}

/** As upstream. */
const pollMs = 60_000;

/** Throws where the file cannot be used. */
export async function openEncryptionFile(options: FileOptions, deps: FileDeps): Promise<Service> {
  const { slots, clock, log, metrics } = deps;
  const prefix = "apiserver_encryption_config_controller_automatic_reload";
  const labels = { apiserver_id_hash: `sha256:${createHash("sha256").update(options.serverId).digest("hex")}` };
  const reloads = metrics.counter(`${prefix}s_total`, "Reloads of the encryption configuration by outcome");
  const lastReload = metrics.gauge(
    `${prefix}_last_timestamp_seconds`,
    "When the encryption configuration was reloaded last, by outcome",
  );
  let seen = await read(options.path);
  await slots.apply(parse(options.path, seen));
  const look = async (): Promise<void> => {
    let text: string;
    try {
      text = await read(options.path);
      if (text === seen) return;
      // What is wrong is not tried again until it changes.
      seen = text;
      await slots.apply(parse(options.path, text));
    } catch (error) {
      log.error("the encryption configuration is not reloaded", { error: messageOf(error) });
      count("failure");
      return;
    }
    log.info("encryption configuration reloaded", { path: options.path });
    count("success");
  };
  const count = (status: string) => {
    reloads.add(1, { ...labels, status });
    lastReload.set(Math.floor(clock.now() / 1000), { ...labels, status });
  };
  return {
    name: "encryption-config",
    async run(signal, ready) {
      ready();
      if (!options.reload) return untilAborted(signal);
      while (!signal.aborted) {
        await pause(clock, pollMs, signal);
        if (!signal.aborted) await look();
      }
    },
  };
}

async function read(path: string): Promise<string> {
  let bytes: Buffer | undefined;
  try {
    bytes = await readFileIfExists(path);
  } catch (error) {
    throw refused(`encryption-provider-config ${path}: ${messageOf(error)}`);
  }
  if (!bytes) throw refused(`encryption-provider-config: there is no file ${path}`);
  if (bytes.length > maxConfigurationBytes) throw refused(`encryption-provider-config ${path}: it is too large`);
  return bytes.toString("utf8");
}

function parse(path: string, text: string) {
  try {
    return parseEncryptionConfiguration(text);
  } catch (error) {
    throw refused(`encryption-provider-config ${path}: ${messageOf(error)}`);
  }
}
