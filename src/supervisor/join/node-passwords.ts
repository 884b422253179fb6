// Who came first owns a node name: the password that a device made for itself is kept as a salted hash in a Secret, and
// compared whenever that name asks for certificates. Beside it stands the public half of the device's key, if it has told
// one: that lets it in when its certificate has ended and the token is another by now. Deleting the Node frees the name;
// `mote node replace` lets another device have it once. Form and names are k3s's, so that a cluster can change hands.
// Upstream counterpart: k3s pkg/nodepassword.
import { createHash, scrypt, timingSafeEqual } from "node:crypto";
import type { Clock, Random } from "#base/clock.ts";
import type { Client } from "#client/client.ts";
import type { Secret } from "#model/gen/core-v1.ts";
import { secrets } from "#model/resources.ts";
import { isAlreadyExists, isConflict, isNotFound } from "#model/status.ts";
import { takePermission } from "../node-replacement.ts";
import { sameText } from "../tokens.ts";
import { namespace, secretName, secretType } from "./secret-names.ts";

/** Of the Secret's data; k3s looks at `hash` alone. */
const deviceKeyField = "device-key";

const cost = { logN: 15, r: 8, p: 1 } as const;
const keyBytes = 64;
const saltBytes = 8;
/** Twice what one takes (128·N·r). */
const maxMemoryBytes = 64 * 1024 * 1024;
/** A node asks for two certificates in a row; an entry is some 100 bytes. */
const maxRemembered = 1000;

export interface NodeClaim {
  readonly node: string;
  readonly password: string;
  /** Base64 of the public key's SubjectPublicKeyInfo; undefined: the device has none. */
  readonly deviceKey: string | undefined;
}

interface Stored {
  readonly uid: string;
  readonly hash: string;
  readonly deviceKey: string | undefined;
}

interface NodePasswordsDeps {
  readonly client: () => Client;
  readonly clock: Clock;
  readonly random: Random;
}

export class NodePasswords {
  readonly #deps: NodePasswordsDeps;
  /** Pairs of password and hash that were found to fit. */
  readonly #fitting = new Set<string>();
  /** One at a time: each takes 32 MiB and a tenth of a second, on a small board a second. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(deps: NodePasswordsDeps) {
    this.#deps = deps;
  }

  /** Whether the name may be used with this password; a name that is new is taken by it. */
  async claim(claim: NodeClaim): Promise<boolean> {
    const { node, password, deviceKey } = claim;
    const stored = (await this.#read(node)) ?? (await this.#create(claim));
    const isOwner = await this.#fits(password, stored.hash);
    if (isOwner && (deviceKey === undefined || deviceKey === stored.deviceKey)) return true;
    // Taken before it is used: two devices cannot both have it.
    if (!isOwner && !(await takePermission(node, this.#deps))) return false;
    const replaced = await this.#replace(claim, stored, isOwner ? stored.hash : undefined);
    return this.#fits(password, replaced.hash);
  }

  /** Whether somebody has the name. */
  has = async (node: string): Promise<boolean> => (await this.#read(node)) !== undefined;

  /** Whether it is the key of the device that has the name. */
  async isDevice(node: string, deviceKey: string): Promise<boolean> {
    const stored = await this.#read(node);
    return stored?.deviceKey !== undefined && deviceKey !== "" && sameText(stored.deviceKey, deviceKey);
  }

  /** The Secret cannot be changed: k3s makes them so. Whoever comes in between has the name. */
  async #replace(claim: NodeClaim, { uid }: Stored, hash: string | undefined): Promise<Stored> {
    try {
      await this.#deps
        .client()
        .delete(secrets, { name: secretName(claim.node), namespace }, { preconditions: { uid } });
    } catch (error) {
      // Another has replaced it since it was read.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
    return this.#create(claim, hash);
  }

  async #read(node: string): Promise<Stored | undefined> {
    try {
      const { data, metadata } = await this.#deps.client().get(secrets, secretName(node), namespace);
      const hash = Buffer.from(data?.["hash"] ?? "", "base64").toString("utf8");
      return { uid: metadata.uid ?? "", hash, deviceKey: data?.[deviceKeyField] };
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async #create({ node, password, deviceKey }: NodeClaim, known?: string): Promise<Stored> {
    const hash = known ?? (await this.#inTurn(() => hashPassword(password, this.#deps.random.bytes(saltBytes))));
    const secret: Secret = {
      apiVersion: "v1",
      kind: "Secret",
      metadata: { name: secretName(node), namespace },
      type: secretType,
      immutable: true,
      data: {
        hash: Buffer.from(hash).toString("base64"),
        ...(deviceKey === undefined ? {} : { [deviceKeyField]: deviceKey }),
      },
    };
    try {
      const { metadata } = await this.#deps.client().create(secrets, secret);
      this.#remember(password, hash);
      return { uid: metadata.uid ?? "", hash, deviceKey };
    } catch (error) {
      // Another was faster: its password counts.
      if (!isAlreadyExists(error)) throw error;
      return (await this.#read(node)) ?? { uid: "", hash: "", deviceKey: undefined };
    }
  }

  async #fits(password: string, hash: string): Promise<boolean> {
    if (this.#fitting.has(keyOf(password, hash))) return true;
    const isFitting = await this.#inTurn(() => verifyPassword(password, hash));
    if (isFitting) this.#remember(password, hash);
    return isFitting;
  }

  #remember(password: string, hash: string): void {
    this.#fitting.add(keyOf(password, hash));
    for (const oldest of this.#fitting) {
      if (this.#fitting.size <= maxRemembered) break;
      this.#fitting.delete(oldest);
    }
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work);
    // Whoever waits for it hears of a failure; the next in line does not care.
    this.#turn = mine.catch(() => undefined);
    return mine;
  }
}

const keyOf = (password: string, hash: string): string =>
  createHash("sha256")
    .update(JSON.stringify([password, hash]))
    .digest("base64");

export async function hashPassword(password: string, salt: Uint8Array): Promise<string> {
  const { logN, r, p } = cost;
  const key = await derive(password, salt, logN, r, p);
  return `$1:${Buffer.from(salt).toString("hex")}:${logN}:${r}:${p}:${key.toString("base64").replace(/=+$/, "")}`;
}

/** False too for what is no hash, or one that would take more than ours. */
export async function verifyPassword(password: string, hash: string): Promise<boolean> {
  const [version, salt = "", logN = "", r = "", p = "", key = ""] = hash.split(":");
  const numbers = [logN, r, p].map(Number) as [number, number, number];
  if (version !== "$1" || !/^([0-9a-f]{2})+$/.test(salt)) return false;
  if (numbers[0] !== cost.logN || numbers[1] !== cost.r || numbers[2] !== cost.p) return false;
  const wanted = Buffer.from(key, "base64");
  const found = await derive(password, Buffer.from(salt, "hex"), ...numbers);
  return wanted.length === found.length && timingSafeEqual(wanted, found);
}

function derive(password: string, salt: Uint8Array, logN: number, r: number, p: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    scrypt(password, salt, keyBytes, { N: 2 ** logN, r, p, maxmem: maxMemoryBytes }, (error, key) => {
      if (error) reject(error);
      else resolve(key);
    });
  });
}
