// What WireGuard devices are set to, by `wg`, and this node's key, which never leaves it. A machine that lacks the program or
// the kernel's module is told which package brings it.
import { createPrivateKey, createPublicKey, generateKeyPairSync } from "node:crypto";
import { dirname } from "node:path";
import { AppError, hasCode } from "#base/errors.ts";
import { makeFolder, readFileIfExists, writeFileDurable } from "#platform/files.ts";
import type { Commands } from "#platform/processes.ts";
import type { Kernel } from "./kernel.ts";
import { isWireguardKey } from "./peers.ts";
import { type OwnKey, parseWireguard, type WireguardState, wireguardDevices } from "./wireguard.ts";

/** What stands before the 32 bytes of a private X25519 key in PKCS #8. */
const pkcs8Prefix = Buffer.from("302e020100300506032b656e04220420", "hex");

/** Makes the key where there is none yet. Nodes that peers know by another one are new to them. */
export async function ownWireguardKey(file: string): Promise<OwnKey> {
  let text = (await readFileIfExists(file))?.toString("utf8").trim();
  if (!isWireguardKey(text)) {
    const { d } = generateKeyPairSync("x25519").privateKey.export({ format: "jwk" });
    text = Buffer.from(d!, "base64url").toString("base64");
    await makeFolder(dirname(file));
    await writeFileDurable(file, `${text}\n`, 0o600);
  }
  const der = Buffer.concat([pkcs8Prefix, Buffer.from(text, "base64")]);
  const { x } = createPublicKey(createPrivateKey({ key: der, format: "der", type: "pkcs8" })).export({ format: "jwk" });
  return { file, publicKey: Buffer.from(x!, "base64url").toString("base64") };
}

/** Throws NETWORK_WIREGUARD where there is no `wg`. */
export async function readWireguard(commands: Commands, kernel: Kernel): Promise<WireguardState[]> {
  const present = Object.values(wireguardDevices).filter((name) =>
    kernel.links.some(({ ifname, linkinfo }) => ifname === name && linkinfo?.info_kind === "wireguard"),
  );
  try {
    if (present.length === 0) await commands.run("wg", ["--version"]);
    const states: WireguardState[] = [];
    for (const name of present) {
      const { code, stdout } = await commands.run("wg", ["show", name, "dump"]);
      // It may have gone this moment; the next look sees that.
      if (code === 0) states.push(parseWireguard(name, stdout));
    }
    return states;
  } catch (error) {
    if (!hasCode(error, "COMMAND_START")) throw error;
    const message = "flannel-backend wireguard-native needs the program wg: apt-get install wireguard-tools";
    throw new AppError("NETWORK_WIREGUARD", message, {}, { cause: error });
  }
}

/** What the kernel says when it does not know such devices, in words that help. */
export function explainWireguard(error: unknown): unknown {
  if (!hasCode(error, "NETWORK_OVERLAY") || !/link add .* type wireguard/.test((error as Error).message)) return error;
  const message = `flannel-backend wireguard-native needs the kernel's module wireguard (Debian's kernels have it: package linux-image-amd64, or that of your architecture): ${(error as Error).message}`;
  return new AppError("NETWORK_WIREGUARD", message, {}, { cause: error });
}
