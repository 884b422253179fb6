// What one resource's providers make of its values: the first writes behind its prefix (`k8s:enc:aesgcm:v1:KEY:`), all are
// tried for reading. `stale` says that a value should be written again. Errors have upstream's words, for clients see them.
// Upstream counterpart: storage/value/transformer.go, with its nesting made flat.
import type { Random } from "#base/clock.ts";
import { messageOf } from "#base/errors.ts";
import { type Cipher, createCipher } from "./ciphers.ts";
import type { Provider } from "./configuration.ts";

/** All encrypted values begin so; no JSON does. */
const anyPrefix = Buffer.from("k8s:enc:");

export const isEncrypted = (value: Uint8Array): boolean => startsWith(value, anyPrefix);

export interface Opened {
  readonly value: Uint8Array;
  readonly stale: boolean;
}

/** Told of each value; `provider` is its prefix, `identity`, or `unknown` where nothing fits. */
export type OnTransformed = (type: "from_storage" | "to_storage", provider: string, status: string) => void;

interface Key {
  readonly prefix: Uint8Array;
  readonly cipher: Cipher;
}

interface Section {
  readonly label: string;
  /** Empty: values are as they are. */
  readonly prefix: Uint8Array;
  readonly keys: readonly Key[];
  /** None of the keys has the name of the value. */
  readonly noKey: string;
}

export class Transformer {
  readonly #sections: readonly Section[];
  readonly #told: OnTransformed;

  constructor(providers: readonly Provider[], random: Random, told: OnTransformed) {
    this.#sections = providers.map((provider) => sectionOf(provider, random));
    this.#told = told;
  }

  /** Whether it would be written as it is written, as far as the prefix tells. */
  isCurrent(value: Uint8Array): boolean {
    const key = this.#sections[0]?.keys[0];
    return key ? startsWith(value, key.prefix) : !isEncrypted(value);
  }

  seal(plain: Uint8Array, key: string): Uint8Array {
    const [section] = this.#sections;
    const [first] = section?.keys ?? [];
    if (!section || !first) {
      this.#told("to_storage", "identity", "OK");
      return plain;
    }
    const sealed = Buffer.concat([first.prefix, first.cipher.seal(plain, key)]);
    this.#told("to_storage", section.label, "OK");
    return sealed;
  }

  open(value: Uint8Array, key: string): Opened {
    const failures: string[] = [];
    for (const [place, section] of this.#sections.entries()) {
      if (!startsWith(value, section.prefix)) continue;
      if (section.keys.length === 0) {
        // An identity in front must not keep the providers behind it from what they wrote.
        if (isEncrypted(value)) continue;
        this.#told("from_storage", section.label, "OK");
        return { value, stale: place > 0 };
      }
      const opened = openWith(section, value, key);
      if (typeof opened !== "string") {
        this.#told("from_storage", section.label, "OK");
        return { value: opened.value, stale: opened.place > 0 || place > 0 };
      }
      this.#told("from_storage", section.label, "Unknown");
      failures.push(opened);
    }
    if (failures.length === 0) this.#told("from_storage", "unknown", "Unknown");
    throw new Error(aggregate(failures) ?? "no matching prefix found");
  }
}

/** The plain value and the place of its key, or why not. */
function openWith(section: Section, value: Uint8Array, key: string): { value: Uint8Array; place: number } | string {
  const failures: string[] = [];
  for (const [place, { prefix, cipher }] of section.keys.entries()) {
    if (!startsWith(value, prefix)) continue;
    try {
      return { value: cipher.open(value.subarray(prefix.length), key), place };
    } catch (error) {
      failures.push(messageOf(error));
    }
  }
  return aggregate(failures) ?? section.noKey;
}

const aggregate = (failures: readonly string[]): string | undefined =>
  failures.length > 1 ? `[${failures.join(", ")}]` : failures[0];

function sectionOf(provider: Provider, random: Random): Section {
  if (provider.type === "identity") return { label: "identity", prefix: new Uint8Array(), keys: [], noKey: "" };
  const label = `k8s:enc:${provider.type}:v1:`;
  return {
    label,
    prefix: Buffer.from(label),
    keys: provider.keys.map(({ name, secret }) => ({
      prefix: Buffer.from(`${label}${name}:`),
      cipher: createCipher(provider.type, secret, random),
    })),
    noKey: `no matching key was found for the provided ${provider.type === "secretbox" ? "Secretbox" : "AES"} transformer`,
  };
}

function startsWith(value: Uint8Array, prefix: Uint8Array): boolean {
  if (value.length < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (value[i] !== prefix[i]) return false;
  return true;
}
