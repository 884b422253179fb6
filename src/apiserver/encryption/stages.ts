// The keys that mote makes itself and the stages of changing them, as k3s has them: prepare (a new key can read), rotate (it
// writes), reencrypt (everything is written again, then the old keys go). Pure: what a command makes of what there is.
// Upstream counterpart: k3s pkg/secretsencrypt.
import type { Provider } from "./configuration.ts";
import { parseEncryptionConfiguration, refused } from "./configuration.ts";

export const stages = [
  "start",
  "prepare",
  "rotate",
  "reencrypt_request",
  "reencrypt_active",
  "reencrypt_finished",
] as const;
export type Stage = (typeof stages)[number];

export type ManagedProvider = "aescbc" | "secretbox";

export interface ManagedKey {
  readonly type: ManagedProvider;
  readonly name: string;
  /** Base64 of 32 bytes. */
  readonly secret: string;
}

export interface ManagedKeys {
  /** False: what is written is plain, and encrypted values are still read. */
  readonly enabled: boolean;
  /** The first one writes. Never empty. */
  readonly keys: readonly ManagedKey[];
}

export interface ManagedState extends ManagedKeys {
  readonly stage: Stage;
  /** Old keys stay when everything is written again. */
  readonly skip: boolean;
}

/** What k3s's API takes: one of the two. */
export interface EncryptionCommand {
  readonly stage?: "prepare" | "rotate" | "reencrypt_request" | "rotate_keys";
  readonly enable?: boolean;
  readonly force?: boolean;
  readonly skip?: boolean;
}

/** Throws APISERVER_ENCRYPTION where the command does not fit. `fresh`: a key that may be needed. */
export function planCommand(
  command: EncryptionCommand,
  state: ManagedState | undefined,
  fresh: ManagedKey,
): ManagedState {
  const { stage, enable, force = false, skip = false } = command;
  if ((stage === undefined) === (enable === undefined)) throw refused("one of stage and enable is expected, not both");
  const isRunning = state?.stage === "reencrypt_request" || state?.stage === "reencrypt_active";
  if (isRunning && !force) throw refused(`incorrect stage: ${state.stage}: secrets are being reencrypted`);
  if (enable !== undefined) {
    if (!state) {
      if (!enable) throw refused("secrets encryption is disabled, and no configuration file was found");
      return { enabled: true, keys: [fresh], stage: "start", skip: false };
    }
    return { ...state, enabled: enable };
  }
  if (!state) throw refused("secrets encryption is disabled, and no configuration file was found; enable it first");
  const { keys } = state;
  const expect = (...allowed: readonly Stage[]): void => {
    if (force || allowed.includes(state.stage)) return;
    throw refused(`incorrect stage: ${state.stage}; ${allowed.join(" or ")} is expected, or use --force`);
  };
  // With nothing encrypted a new key would write nothing either.
  if (!state.enabled && stage !== "reencrypt_request") throw refused("secrets encryption is disabled; enable it first");
  switch (stage) {
    case "prepare":
      expect("start", "reencrypt_finished");
      return { ...state, keys: [...keys, fresh], stage: "prepare" };
    case "rotate":
      expect("prepare");
      if (keys.length < 2) throw refused("there is no second key to rotate to; prepare makes one");
      return { ...state, keys: [keys.at(-1)!, ...keys.slice(0, -1)], stage: "rotate" };
    case "reencrypt_request":
      expect("rotate");
      return { ...state, stage: "reencrypt_request", skip };
    case "rotate_keys":
      expect("start", "reencrypt_finished");
      return { ...state, keys: [fresh, ...keys], stage: "reencrypt_request", skip };
    default:
      throw refused(`the stage ${JSON.stringify(stage)} is not known`);
  }
}

/** After all is written again. Everything reads by the first key then, or is plain. */
export const planFinish = (state: ManagedState): ManagedState => ({
  ...state,
  keys: state.skip ? state.keys : state.keys.slice(0, 1),
  stage: "reencrypt_finished",
  skip: false,
});

/** `aescbckey`, later `aescbckey-<RFC 3339>`: never one that is taken, whatever the clock says. */
export function keyName(type: ManagedProvider, taken: readonly ManagedKey[], now: string): string {
  const base = `${type}key`;
  if (taken.length === 0) return base;
  const isTaken = (name: string) => taken.some((key) => key.name === name);
  let name = `${base}-${now}`;
  for (let n = 2; isTaken(name); n++) name = `${base}-${now}-${n}`;
  return name;
}

/** The configuration file: keys of one type in a row share a provider; identity reads, or writes, plain values. */
export function formatManaged({ enabled, keys }: ManagedKeys): string {
  const providers: { [type: string]: { keys: { name: string; secret: string }[] } }[] = [];
  let last: ManagedProvider | undefined;
  for (const { type, name, secret } of keys) {
    if (type === last) providers.at(-1)![type]!.keys.push({ name, secret });
    else providers.push({ [type]: { keys: [{ name, secret }] } });
    last = type;
  }
  const identity = { identity: {} };
  return JSON.stringify({
    kind: "EncryptionConfiguration",
    apiVersion: "apiserver.config.k8s.io/v1",
    resources: [{ resources: ["secrets"], providers: enabled ? [...providers, identity] : [identity, ...providers] }],
  });
}

export function parseManaged(text: string): ManagedKeys {
  const { rules } = parseEncryptionConfiguration(text);
  const [rule] = rules;
  if (!rule || rules.length > 1 || rule.resources.join() !== "secrets") {
    throw refused("secrets-encrypt knows one rule, for secrets; for other rules use encryption-provider-config");
  }
  const keys: ManagedKey[] = [];
  let identityAt = -1;
  for (const [at, provider] of rule.providers.entries()) {
    if (provider.type === "identity") identityAt = at;
    else keys.push(...managedKeysOf(provider));
  }
  if (keys.length === 0 || (identityAt !== 0 && identityAt !== rule.providers.length - 1)) {
    throw refused("secrets-encrypt expects keys, and identity before or behind them");
  }
  return { enabled: identityAt !== 0, keys };
}

function managedKeysOf(provider: Exclude<Provider, { type: "identity" }>): ManagedKey[] {
  const { type } = provider;
  if (type === "aesgcm") throw refused("secrets-encrypt knows aescbc and secretbox, not aesgcm");
  return provider.keys.map(({ name, secret }) => ({ type, name, secret: Buffer.from(secret).toString("base64") }));
}

/** One line: `<stage>-<sha256 of the configuration>`, as in k3s's encryption-state.json and on the node. */
export const stateLine = ({ stage, skip }: Pick<ManagedState, "stage" | "skip">, hash: string): string =>
  `${stage}-${hash}${skip ? "-skip" : ""}`;

/**
 * The stage of a configuration. The file names the coming state first and the one of before below it, so that the
 * configuration, which is replaced in between, always finds its own.
 */
export function stageOf(text: string, hash: string): Pick<ManagedState, "stage" | "skip"> | undefined {
  for (const line of text.split("\n")) {
    for (const stage of stages) {
      for (const skip of [false, true]) {
        if (line.trim() === stateLine({ stage, skip }, hash)) return { stage, skip };
      }
    }
  }
  return undefined;
}
