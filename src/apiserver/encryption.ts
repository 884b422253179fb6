// Encryption at rest as `mote server` has it: a configuration of the user's, or keys that mote makes itself and changes by
// `mote secrets-encrypt`. Opened before anything is read from the datastore, so that nothing meets a value it cannot read.
// docs/encryption.md is for users.
import type { Clock, Random } from "#base/clock.ts";
import type { Logger } from "#base/log.ts";
import type { Metrics } from "#base/metrics.ts";
import type { Service } from "#base/service.ts";
import { controlSocket } from "#platform/control-socket.ts";
import { exists, makeFolder } from "#platform/files.ts";
import { refused } from "./encryption/configuration.ts";
import { openEncryptionFile } from "./encryption/file.ts";
import { type ManagedDeps, ManagedEncryption, type ManagedServiceDeps } from "./encryption/managed.ts";
import { EncryptionSlots } from "./encryption/slots.ts";
import type { ManagedProvider } from "./encryption/stages.ts";

export type { EncryptionRequest, EncryptionStatus } from "./encryption/managed.ts";

export interface EncryptionOptions {
  /** DATA-DIR/server. */
  readonly serverDir: string;
  /** --secrets-encryption. */
  readonly enable: boolean;
  readonly provider: ManagedProvider;
  /** encryption-provider-config: undefined where mote's own keys are used. */
  readonly file: string | undefined;
  readonly reload: boolean;
  readonly serverId: string;
}

export interface EncryptionDeps {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly write?: ManagedDeps["write"];
}

export interface OpenedEncryption {
  /** For the API server. */
  readonly slots: EncryptionSlots;
  /** Answers the command, reloads, ends what was begun. */
  service(deps: ManagedServiceDeps): Service;
}

/** Where the server of a data folder listens for `mote secrets-encrypt`. */
export const encryptionSocket = (serverDir: string): string => `${serverDir}/cred/secrets-encrypt.sock`;

export async function openEncryption(options: EncryptionOptions, deps: EncryptionDeps): Promise<OpenedEncryption> {
  const slots = new EncryptionSlots(deps);
  const folder = `${options.serverDir}/cred`;
  const socket = encryptionSocket(options.serverDir);
  await makeFolder(folder, 0o700);
  if (options.file === undefined) {
    const { provider, enable } = options;
    const managed = await ManagedEncryption.open({ folder, provider, enable }, { slots, ...deps });
    return { slots, service: (live) => managed.service(socket, live) };
  }
  const own = `${folder}/encryption-config.json`;
  if (options.enable) throw refused("secrets-encryption and encryption-provider-config: use one of them");
  if (await exists(own)) {
    throw refused(
      `encryption-provider-config: there are keys in ${own} too; put them into the file that is given, then move ${own} away`,
    );
  }
  const { reload, serverId } = options;
  const file = await openEncryptionFile({ path: options.file, reload, serverId }, { slots, ...deps });
  const refuse = () => Promise.reject(refused("keys are managed by the file of encryption-provider-config"));
  const refusing = controlSocket("secrets-encrypt", socket, refuse);
  return {
    slots,
    service: () => ({
      name: file.name,
      async run(signal, ready) {
        await Promise.all([file.run(signal, ready), refusing.run(signal, () => {})]);
      },
    }),
  };
}
